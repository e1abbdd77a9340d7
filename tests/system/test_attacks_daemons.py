"""A compromised ctrd: what its user can't do, tried as that user on real systemd.

Refusals are read where root keeps them, and what was not to change is looked at, not asked for.
"""

from __future__ import annotations

import json
import os

from system import attack_support
from system.attack_support import CONTAINERS, IMAGE, ROOTS, TRANSIENT, manager, succeeded, transient, try_all, wrong

host, web, ctrd = attack_support.host, attack_support.web, attack_support.ctrd


# ctrd and systemd


def test_ctrd_reaches_no_unit_but_its_own(web):
    state = (
        "systemctl show -P InvocationID systemd-journald dbus volt-ctrd volt-container@web;"
        " cat /proc/sys/kernel/hostname; stat -c '%n %Y' /etc/systemd/system /run/systemd/system"
    )
    before = web.sh(state)
    systemctl = "systemctl --no-ask-password"
    attempts = {
        f"{verb} {unit}": f"{systemctl} {verb} '{unit}'"
        for verb in ("start", "stop")
        for unit in (
            "systemd-journald.service",
            "dbus.service",
            "volt-casd.service",
            "volt.slice",
            "volt-containers.slice",
            "multi-user.target",
            "volt-container@X.service",
            "volt-container@.service",
            "volt-container@web.socket",
            "volt-container@-web.service",
            "volt-container@web-.service",
            r"volt-container@web\x2f.service",
            "xvolt-container@web.service",
            "volt-containers@web.service",
            "volt-container-op@web.service",
            "volt-exec@web-0123.service",
            "volt-exec@web-0123456789abcdeF.service",
        )
    }
    for line in (
        "kill dbus.service",
        "kill volt-casd.service",
        "restart volt-container@web.service",
        "reload-or-restart volt-container@web.service",
        "freeze volt-container@web.service",
        "clean volt-container@web.service",
        "set-property volt-container@web.service DeviceAllow=/dev/sda",
        "set-property --runtime volt-container@web.service DeviceAllow=/dev/sda",
        "bind volt-container@web.service /etc /mnt",
        "reset-failed",
        "reset-failed dbus.service",
        "daemon-reload",
        "daemon-reexec",
        "enable volt-container@web.service",
        "mask volt-casd.service",
        "link /var/lib/volt/containers/evil.service",
        "set-environment LD_PRELOAD=/tmp/evil.so",
        "log-level debug",
        "reboot",
    ):
        attempts[line] = f"{systemctl} {line}"
    attempts |= {
        "edit": "printf '[Service]\\nExecStartPre=/bin/sh\\n' > /etc/systemd/system/volt-container@.service",
        "drop-in": "mkdir -p /run/systemd/system/volt-container@web.service.d",
        "isolate": manager("StartUnit", "ss", "volt-container@web.service", "isolate"),
        "thaw": manager("ThawUnit", "s", "volt-container@web.service"),
        "attach": manager("AttachProcessesToUnit", "ssau", "volt-container@web.service", "", "1", "1"),
        "restart as a job": manager("EnqueueUnitJob", "sss", "volt-container@web.service", "restart", "replace"),
        "hostname": "hostnamectl --no-ask-password set-hostname owned",
        "pkexec": "pkexec --disable-internal-agent touch /root/owned",
        "run0": "systemd-run --no-ask-password touch /root/owned",
    }
    assert succeeded(try_all(web, "volt-ctr", attempts)) == {}
    assert web.sh(state) == before
    # And it may do its work, so that the refusals above are not those of a rule that refuses all.
    own = {
        "kill": f"{systemctl} kill volt-container@web.service",
        "stop": f"{systemctl} stop volt-container@web.service",
    }
    assert succeeded(try_all(web, "volt-ctr", own)).keys() == own.keys()


def test_ctrd_makes_no_transient_unit_under_any_name(web):
    attempts = {unit: transient(unit, "/root/owned") for unit in (*TRANSIENT, "volt-container@web.service")}
    aux = transient("evil.service", "/root/owned").replace(
        "evil.service replace", "volt-container@x.service replace 0 1 evil.service", 1
    )
    attempts["beside one of its own"] = aux.removesuffix(" 0")
    found = try_all(web, "volt-ctr", attempts)
    assert succeeded(found) == {}
    # Refused for what they are, not for a fault in the call: root's own is taken.
    assert all("denied" in text or "exists" in text or "fragment" in text for _, text in found.values()), found
    assert succeeded(try_all(web, "root", {"root": transient("evil.service", "/run/evil")})).keys() == {"root"}


# ctrd and config.json


def test_a_configuration_beyond_the_policy_is_refused(ctrd, host):
    uid = {name: int(host.sh(f"id -u {name}")) for name in ("member", "volt-ctr")}
    host.sh("ln -s /etc /srv/open/link; ln -s /root /srv/members/link")

    def bind(source: str, user: str = "member", target: str = "/mnt") -> dict[str, object]:
        return {"uid": uid.get(user, 0), "binds": [{"source": source, "target": target, "read_only": False}]}

    attacks: dict[str, tuple[dict[str, object], str]] = {
        "/etc": (bind("/etc"), "DENIED: a bind of /etc"),
        "/": (bind("/"), "DENIED: a bind of /"),
        "a name like an allowed one": (bind("/srvx"), "DENIED: a bind of /srvx"),
        "the store": (bind("/var/lib/volt/cas"), "DENIED: a bind of"),
        "through ..": (bind("/srv/../etc"), "INVALID"),
        "through a link": (bind("/srv/open/link"), "DENIED: a bind of /etc"),
        "through a user's link": (bind("/srv/members/link"), "DENIED"),
        "of root's, as root": (bind("/srv/roots", "root"), "DENIED: a bind asked for by root"),
        "of root's, as another": (bind("/srv/roots"), "DENIED: bind of /srv/roots as uid"),
        "of a file of root's": (bind("/srv/roots/file"), "DENIED: bind of /srv/roots/file as uid"),
        "of another user": (bind("/srv/outsiders"), "DENIED: bind of /srv/outsiders as uid"),
        "as nobody known": ({"uid": 54321, "binds": bind("/srv/open")["binds"]}, "has no account"),
        "over the root": (bind("/srv/open", target="/"), "INVALID"),
        "over what is Volt's": (bind("/srv/open", target="/run/.volt/x"), "INVALID"),
        "administration": ({"capabilities": ["CAP_SYS_ADMIN"]}, "DENIED: the capability CAP_SYS_ADMIN"),
        "all capabilities": ({"capabilities": ["all"]}, "INVALID"),
        "the host's network": ({"network": "host"}, "DENIED: the network host"),
        "processes without end": ({"resources.pids_max": 4194304}, "DENIED: more than 16384 processes"),
    }
    found = ctrd.start({label: changes for label, (changes, _) in attacks.items()})
    assert wrong(found, {label: why for label, (_, why) in attacks.items()}) == {}
    assert ctrd.start({"as it was": {}}) == {"as it was": "it started"}


def test_a_configuration_that_is_not_of_its_form_is_refused(ctrd):
    good = ctrd.changed({})
    other = "f" * 64
    attacks: dict[str, tuple[bytes | dict[str, object], str]] = {
        "another's ids": ({"id_base": 0}, "INVALID: config.json: unknown key 'id_base'"),
        "an option of nspawn": ({"private_users": "no"}, "INVALID: config.json: unknown key"),
        "a key in a table": ({"view.path": "/etc"}, "INVALID: config.json.view: unknown key"),
        "another's name": ({"name": "web"}, "INVALID: config.json is of another container"),
        "a key twice": (good[:-1] + b', "network": "none"}', "INVALID: config.json: a key occurs twice"),
        "a tree of ..": ({"tree": "../../../root/secret"}, "INVALID: config.json: tree"),
        "a tree with a line's end": ({"tree": f"{ctrd.config['tree']}\n"}, "INVALID: config.json: tree"),
        "a form of ..": ({"view.form": "../full"}, "INVALID: config.json.view: form"),
        "a tree that is not there": ({"tree": other}, "NOT_FOUND: the store has no view"),
        "a wrong hash": ({"view.sha256": other}, "CORRUPT: the store's view is not the one"),
        "a wrong size": ({"view.size": 4096}, "INVALID: the store's"),
        "an absurd size": ({"view.size": 1 << 62}, "INVALID: config.json.view: size"),
        "a negative limit": ({"resources.memory_max": -1}, "INVALID: config.json.resources: memory_max"),
        "a truth for a number": ({"uid": True}, "INVALID: config.json: uid"),
        "ids past the range": ({"root.uid": 65536}, "INVALID: config.json.root: uid"),
        "a user past the range": ({"user": "70000"}, "INVALID"),
        "a group past the range": ({"user": "0:99999"}, "INVALID"),
        "an option as hostname": ({"hostname": "-x"}, "INVALID: config.json: hostname"),
        "a hostname of two lines": ({"hostname": "a\nb"}, "INVALID: config.json: hostname"),
        "a variable of two lines": ({"env": {"A\nB": "x"}}, "INVALID: config.json: env"),
        "an end in a variable": ({"env": {"A": "x\0y"}}, "INVALID: config.json: env.A"),
        "nothing to run": ({"args": []}, "INVALID: config.json: args"),
        "an option of nspawn to run": ({"args": ["--capability=all", "--private-users=no"]}, "command not found"),
        "a mount on ..": ({"tmpfs": ["/../x"]}, "INVALID: tmpfs may not hold .."),
        "a stop signal of the kernel's": ({"stop_signal": "99"}, "INVALID: there is no signal"),
        "no JSON": (b"#!/bin/sh\n", "INVALID: config.json is not JSON"),
        "nothing": (b"", "INVALID: config.json is not JSON"),
        "no UTF-8": (b'{"name": "\xff\xfe"}', "INVALID: config.json is not JSON"),
        "a deep well": (b"[" * 3_000_000, "INVALID: config.json is not JSON"),
        "a long number": (b'{"version": ' + b"9" * 1_000_000 + b"}", "INVALID: config.json is not JSON"),
        "a list": (b"[]", "INVALID: config.json is not a table"),
    }
    found = ctrd.start({label: change for label, (change, _) in attacks.items()})
    assert wrong(found, {label: why for label, (_, why) in attacks.items()}) == {}


def test_what_is_planted_for_config_json_is_refused(ctrd, host):
    host.sh(f"cp -p {CONTAINERS}/hostile/config.json /srv/open/config; chmod 644 /srv/open/config")
    lease = "import fcntl,time; f=open('config.json','r+'); fcntl.fcntl(f,1024,1); open('held','w'); time.sleep(10)"
    hold = f'rm -f held; setsid python3 -c "{lease}" >/dev/null 2>&1 & until [ -e held ]; do sleep 0.05; done; rm held'
    plants = {
        "a link": ("ln -sf /srv/open/config config.json", "can't be opened without following links"),
        "a link to a secret": ("ln -sf /root/secret config.json", "can't be opened without following links"),
        "a relative link": ("mv config.json c; ln -s c config.json", "can't be opened without following links"),
        "a fifo": ("rm config.json; mkfifo config.json", "is not a regular file"),
        "a directory": ("rm config.json; mkdir config.json", "is not a regular file"),
        "two names": ("ln config.json other-$RANDOM", "has other names"),
        "a terabyte": ("truncate -s 1T config.json", "is larger than"),
        "a file that a lease holds": (hold, "can't be opened without following links"),
    }
    found = ctrd.plant({label: script for label, (script, _) in plants.items()})
    assert wrong(found, {label: why for label, (_, why) in plants.items()}) == {}
    # The directory of the container, as a link.
    host.sh(f"cd {CONTAINERS}; cp -a hostile /srv/open/hostile; mv hostile .away; ln -s /srv/open/hostile hostile")
    start = {"start": "systemctl --no-ask-password start volt-container@hostile.service"}
    assert succeeded(try_all(host, "volt-ctr", start)) == {}
    host.sh(f"cd {CONTAINERS}; rm hostile; mv .away hostile")
    state = json.loads(host.sh(f"cat {ROOTS}/hostile/state.json"))
    assert "can't be opened without following links" in state["exit"]["message"]


def test_ctrd_can_write_nothing_that_launchers_trust(web):
    attempts = {
        path: f"echo 0 >> {path}"
        for path in (
            f"{ROOTS}/web/idmap",
            f"{ROOTS}/web/state.json",
            f"{ROOTS}/evil",
            f"{ROOTS}/.ids.lock",
            f"{ROOTS}/.views/evil",
            "/run/volt-launch/web/running.json",
            "/run/volt-launch/web/confinement.json",
            "/run/volt-launch/op/web-0123456789abcdef.json",
            "/run/volt-launch/evil",
            "/run/volt/evil",
            "/etc/volt/policy.toml",
            "/usr/lib/volt/launch/volt_ctr_launch/main.py",
            "/var/lib/volt/evil",
            "/var/log/volt/audit/casd.log",
            "/var/log/volt/audit/evil",
        )
    }
    attempts |= {
        "the handover's place": "mv /run/volt/ctr-handover /run/volt/away",
        "the audit's place": "mv /var/log/volt/audit/ctrd.log /var/log/volt/audit/away",
        "the store": "ls /var/lib/volt/cas/objects",
        "an upper": f"ls {ROOTS}/web/layer",
        "what confines": "cat /run/volt-launch/web/confinement.json",
        "root's link": f"ln -s /srv/victim {ROOTS}/link",
    }
    assert succeeded(try_all(web, "volt-ctr", attempts)) == {}


def test_two_containers_never_get_one_range_of_ids_whatever_their_configuration_says(ctrd, host):
    host.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000", check=True)
    twin = json.loads(host.sh(f"cat {CONTAINERS}/web/config.json"))["id"]
    assert ctrd.start({"another's id": {"id": twin}}) == {"another's id": "it started"}
    bases = host.sh(f"cat {ROOTS}/web/idmap {ROOTS}/hostile/idmap").split()
    assert len({int(base) // 65536 for base in bases}) == 2
    host.volt("rm", "--force", "web", check=True)


# ctrd and operations


def _operate(machine, name: str, request: bytes, plant: str = "") -> dict[str, object]:
    """Start an operation as volt-ctr, with that request; the launcher's answer."""
    id = os.urandom(8).hex()
    path = f"{CONTAINERS}/{name}/op-{id}.json"
    write = plant.format(path=path) if plant else f"cat > {path}"
    line = f"{write}; systemctl --no-ask-password start volt-container-op@{name}-{id}.service"
    machine.run("bash", "-c", line, user="volt-ctr", input=request)
    answer = machine.run("cat", f"/run/volt-launch/op/{name}-{id}.json").stdout
    return json.loads(answer) if answer else {}


def test_operations_that_are_not_of_their_form_are_refused(web):
    def ask(**request: object) -> tuple[bytes, str]:
        return json.dumps({"version": 1, **request}).encode(), ""

    delete = ask(op="delete")[0]
    attacks = {
        "unknown": (ask(op="chown"), "INVALID"),
        "of another": (ask(op="delete", name="other"), "unknown key"),
        "a path": (ask(op="delete", path="/srv/victim"), "unknown key"),
        "no such signal": (ask(op="signal", signal="../9"), "there is no signal"),
        "limits past the policy": (ask(op="limits", resources={"pids_max": 100000}), "DENIED"),
        "while it runs": ((delete, ""), "CONFLICT"),
        "a link": ((delete, "cat > /tmp/op; ln -s /tmp/op {path}"), "without following links"),
        "a fifo": ((delete, "mkfifo {path}"), "not a regular file"),
        "too large": ((b" " * 70000 + delete, ""), "larger than"),
    }
    answers = {label: _operate(web, "web", *attack) for label, (attack, _) in attacks.items()}
    assert [one["ok"] for one in answers.values()] == [False] * len(attacks)
    found = {label: f"{one['code']}: {one['message']}" for label, one in answers.items()}
    assert wrong(found, {label: why for label, (_, why) in attacks.items()}) == {}
    assert web.volt("exec", "web", "true").returncode == 0


def test_names_that_lead_elsewhere_are_no_instances(host):
    """Asked for by root, whom polkit lets: the launcher itself refuses."""
    id = "0123456789abcdef"
    for unit in (f"volt-container-op@..-{id}", f"volt-container-op@.views-{id}", f"volt-container-op@op-{id}"):
        host.run("systemctl", "start", f"{unit}.service")
        host.wait(f"journalctl -b -o cat -u {unit}.service | grep -q 'not NAME-ID'")
    for name in ("..", ".views", "a-", "A", "a\\x2fb", "op", "a" * 64):
        host.run("systemctl", "start", f"volt-container@{name}.service")
        host.wait(f"journalctl -b -o cat -u 'volt-container@{name}.service' | grep -q 'not a container'")
    assert host.sh(f"ls {ROOTS}; ls -d {ROOTS}/.views /run/volt-launch/op") == f"/run/volt-launch/op\n{ROOTS}/.views\n"


def test_deleting_follows_no_link(host):
    """Root's directory of a container as a link, and what a container leaves in its own."""
    host.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000", check=True)
    links = (
        "mkdir /deep; cd /deep; ln -s /srv/victim a; ln -s ../../../../../../../srv/victim b; mkfifo c; mkdir -m 0 d"
    )
    host.volt("exec", "web", "sh", "-ec", links, check=True)
    host.sh(f"ln -s /srv/victim {ROOTS}/link; mkdir -p {CONTAINERS}/link; chown volt-ctr: {CONTAINERS}/link")
    try:
        assert _operate(host, "link", b'{"version": 1, "op": "delete"}')["ok"] is False
    finally:
        host.sh(f"rm -r {ROOTS}/link {CONTAINERS}/link")
    assert host.volt("rm", "--force", "web").returncode == 0
    assert host.sh(f"ls {ROOTS}") == ""
