"""What each daemon may ask of the other, what a compromised casd can't reach, and what is left after the uninstall."""

from __future__ import annotations

import json
import subprocess

from system import attack_support
from system.attack_support import CONTAINERS, IMAGE, ROOTS, SECRET, TRANSIENT, succeeded, transient, try_all

host, web = attack_support.host, attack_support.web


# Each daemon's row

_CALL = """
import json, os, sys, tempfile
from volt_common.api import cas, ctr
from volt_common.api.base import Stream
from volt_common.client.blocking import Client, PacketClient
from volt_common.errors import VoltError
daemon, tree = sys.argv[1:]
read, write = os.pipe()
os.close(write)
null = [os.open("/dev/null", os.O_RDWR)] * 3
if daemon == "casd":
    calls = {
        "refs": (cas.RefList(), None), "status": (cas.Status(), None),
        "verify": (cas.Verify(), None),
        "set an image": (cas.RefSet(name="images/evil", kind="tree", digest=tree), None),
        "set beside its own": (cas.RefSet(name="containersx/evil", kind="tree", digest=tree), None),
        "set its own": (cas.RefSet(name="containers/evil", kind="tree", digest=tree), None),
        "delete an image": (cas.RefDelete(name="images/debian/test"), None),
        "delete its own": (cas.RefDelete(name="containers/evil"), None),
        "put": (cas.Put(), [read]), "build a tar": (cas.BuildTar(), [read]),
        "build layers": (cas.BuildLayers(), [read]), "build": (cas.Build(), []),
    }
else:
    calls = {
        "list": (ctr.List(), None), "inspect": (ctr.Inspect(name="web"), None), "stop": (ctr.Stop(name="web"), None),
        "kill": (ctr.Kill(name="web"), None), "delete": (ctr.Delete(name="web", force=True), None),
        "create": (ctr.Create(name="evil", spec=ctr.Spec(image="debian:test")), None),
        "exec": (ctr.Exec(name="web", args=["true"]), null), "run": (ctr.Run(name="web"), null),
    }
found = {}
for label, (call, fds) in calls.items():
    try:
        if fds is None:
            with Client(daemon, timeout=20) as client:
                list(client.stream(call)) if isinstance(call, Stream) else client.call(call)
        else:
            with PacketClient(daemon) as client:
                client.call(call, fds=fds)
        found[label] = "done"
    except VoltError as error:
        found[label] = error.code
    except OSError as error:
        found[label] = error.strerror
json.dump(found, sys.stdout)
"""


def _calls(machine, user: str, daemon: str) -> dict[str, str]:
    tree = json.loads(machine.sh("volt image inspect debian:test -o json"))["tree"]
    script = "import sys, glob; sys.path.extend(glob.glob('/usr/lib/volt/lib/python3*/site-packages'))" + _CALL
    who = ["setpriv", "--reuid", user, "--regid", user, "--groups", "volt"]  # what a member of the group would reach
    done = machine.run(*who, "/usr/lib/volt/bin/python3", "-I", "-c", script, daemon, tree, timeout=90, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_ctrd_has_its_row_of_the_store_and_no_more(web):
    found = _calls(web, "volt-ctr", "casd")
    own = {label for label, result in found.items() if result == "done"}
    assert own == {"refs", "status", "set its own", "delete its own"}, found
    assert {result for label, result in found.items() if label not in own} == {"DENIED"}, found
    assert web.volt("image", "inspect", IMAGE).returncode == 0


def test_casd_has_no_row_of_ctrd_and_no_way_to_its_files(web):
    assert set(_calls(web, "volt-cas", "ctrd").values()) == {"DENIED"}
    connect = "import socket; socket.socket(socket.AF_UNIX).connect('/run/volt/ctrd.sock')"
    attempts = {
        "connect": f'python3 -c "{connect}"',
        "read": f"cat {CONTAINERS}/web/config.json",
        "list": f"ls {CONTAINERS}/",
        "write": f"touch {CONTAINERS}/evil",
        "an upper": f"ls {ROOTS}/web/layer/",
        "a view's copy": f"ls {ROOTS}/.views/",
        "start": "systemctl --no-ask-password start volt-container@web.service",
        "stop": "systemctl --no-ask-password stop volt-container@web.service",
        "kill": "systemctl --no-ask-password kill volt-container@web.service",
        "transient": transient("volt-container@x.service", "/root/owned"),
        "another's audit": "echo >> /var/log/volt/audit/ctrd.log",
    }
    assert succeeded(try_all(web, "volt-cas", attempts)) == {}
    assert web.volt("exec", "web", "true").returncode == 0


# casd, which may change what it stores, but not what is mounted


def test_a_view_that_casd_changes_is_not_mounted(web):
    """Root mounts copies of its own, taken when their hash is the one that was recorded."""
    config = json.loads(web.sh(f"cat {CONTAINERS}/web/config.json"))
    view = f"/var/lib/volt/cas/views/{config['tree']}.{config['view']['form']}"
    web.volt("container", "create", "--name", "other", IMAGE, "true", check=True)
    as_casd = "setpriv --reuid volt-cas --regid volt-cas --clear-groups sh -ec"
    web.sh(f"cp -a {view} /srv/open/kept")
    try:
        change = f"cp {view} {view}.n; mv -f {view}.n {view}; chmod 600 {view}"
        change += f"; printf evil | dd of={view} bs=1 seek=9000 conv=notrunc"
        web.sh(f"{as_casd} '{change}' 2>&1")
        # As long as root has its copy, that is mounted.
        web.volt("start", "other", check=True)
        web.volt("wait", "other")
        web.volt("stop", "web", check=True)
        web.volt("start", "web", check=True)
        assert web.volt("exec", "web", "true").returncode == 0
        # And without, nothing is.
        web.volt("stop", "web", check=True)
        web.sh(f"rm -f {ROOTS}/.views/*")
        done = web.volt("start", "web")
        assert (done.returncode != 0, "its hash is another" in done.stderr) == (True, True), done.stderr
        for plant in (f"ln -s /srv/open/kept {view}", f"mkfifo {view}", f"mkdir {view}", f"truncate -s 1T {view}"):
            web.sh(f"{as_casd} 'rm -rf {view}; {plant}'")
            assert web.volt("start", "web", timeout=30).returncode != 0, plant
    finally:
        web.sh(f"rm -rf {view}; cp -a /srv/open/kept {view}")
    assert web.sh(f"ls -A {ROOTS}/.views") == ""
    web.volt("start", "web", check=True)


def test_an_object_that_casd_makes_a_link_leads_no_container_to_the_host(web):
    """In the form that redirects, the kernel opens objects as root does."""
    digest = json.loads(web.sh("volt cas ls debian:test:/etc/debian_version -o json"))[0]["digest"]
    thing = f"/var/lib/volt/cas/objects/{digest[:2]}/{digest}"
    web.sh(f"test -f {thing}")
    as_casd = "setpriv --reuid volt-cas --regid volt-cas --clear-groups sh -ec"
    web.sh(f"cp -a {thing} /srv/open/kept")
    try:
        for plant in (f"ln -s /root/secret {thing}", f"ln -s ../../../../../../root/secret {thing}", f"mkfifo {thing}"):
            web.sh(f"{as_casd} 'rm -f {thing}; {plant}'; echo 3 > /proc/sys/vm/drop_caches || true")
            web.volt("stop", "web", check=True)
            web.volt("start", "web", check=True)
            done = web.volt("exec", "web", "timeout", "5", "cat", "/etc/debian_version", timeout=20)
            assert SECRET not in done.stdout, plant
        # The directory of all objects, as a link.
        objects = "/var/lib/volt/cas/objects"
        web.volt("stop", "web", check=True)
        web.sh(f"{as_casd} 'mv {objects} {objects}.away; ln -s /srv/victim {objects}'")
        try:
            if json.loads(web.sh(f"cat {CONTAINERS}/web/config.json"))["view"]["form"] == "redirect":
                assert web.volt("start", "web").returncode != 0
        finally:
            web.sh(f"rm {objects}; mv {objects}.away {objects}")
    finally:
        web.sh(f"rm -f {thing}; cp -a /srv/open/kept {thing}")
    assert web.volt("cas", "verify", timeout=120).returncode == 0


# After the end of Volt


def test_after_uninstall_ctrds_user_has_no_right_left(machine):
    """On a machine of its own: on systemd 257 a rule that outlives its templates lets a unit of that name be made."""
    name = f"{machine.name}-un"
    lab = attack_support.LAB
    subprocess.run([lab, "up", "--suite", machine.suite, "--name", name], check=True, stdin=subprocess.DEVNULL)
    other = type(machine)(name, machine.suite)
    try:
        own = {"own": "systemctl --no-ask-password start volt-container@x.service"}
        assert "Job for" in try_all(other, "volt-ctr", own)["own"][1]  # it may start it, and the launcher refuses
        other.push(attack_support.ROOT / "scripts", "/root/scripts")
        other.sh("/root/scripts/install --uninstall", timeout=90)
        attempts = {unit: transient(unit, "/root/owned") for unit in TRANSIENT}
        attempts |= {verb: f"systemctl --no-ask-password {verb} volt-container@x.service" for verb in ("start", "stop")}
        assert succeeded(try_all(other, "volt-ctr", attempts)) == {}
        assert other.run("test", "-e", "/root/owned").returncode == 1
        assert other.sh("grep -rl volt-ctr /etc/polkit-1 /usr/share/polkit-1 /etc/sudoers.d 2>/dev/null || true") == ""
    finally:
        subprocess.run([lab, "down", "--name", name], stdin=subprocess.DEVNULL, timeout=120)
