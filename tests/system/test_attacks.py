"""What people and containers can't do: a member of the group, a stranger, a container's root, and an image.

Each attack is made as the attacker, and the truth is read back from the host.
"""

from __future__ import annotations

import json
import re
import shlex

import pytest
from system import attack_support
from system.attack_support import CONTAINERS, IMAGE, ROOTS, SECRET, inside, succeeded, try_all

host, web = attack_support.host, attack_support.web


# A member of the group


def test_a_member_binds_only_what_the_policy_allows_and_it_can_read(host):
    host.sh("ln -s /etc /srv/members/etc; ln -s /srv/roots /srv/members/roots; chown -h member: /srv/members/*")
    run = f"volt run --rm -v {{}}:/mnt {IMAGE} sh -c 'cat /mnt/file /mnt/shadow; ls /mnt'"
    places = ["/", "/etc", "/etc/shadow", "/root", "/proc/1/root", "/var/lib/volt/roots", "/run", "/srv/roots"]
    places += [
        "/srv/roots/file",
        "/srv/outsiders",
        "/srv/members/etc",
        "/srv/members/roots",
        "/home/outsider/../../etc",
    ]
    host.sh("chmod 700 /home/outsider")
    found = try_all(host, "member", {place: run.format(place) for place in [*places, "/home/outsider"]})
    assert succeeded(found) == {}
    assert {code for code, _ in found.values()} <= {3, 5}, found  # not allowed, or not to be seen
    own = f"volt run --rm -v /srv/members:/mnt {IMAGE} touch /mnt/new"
    assert succeeded(try_all(host, "member", {"own": own})).keys() == {"own"}
    assert host.sh("stat -c %U:%G /srv/members/new") == "member:member\n"


def test_below_a_bound_directory_a_container_has_the_rights_of_who_asked(host):
    host.sh(
        f"""
        cd /srv/members; install -d -m 0700 closed; echo {SECRET} > closed/file
        echo {SECRET} > secret; chmod 600 secret
        echo before > readable; chmod 644 readable; echo own > own; chown member: own; chmod 0 own
        ln -s /root/secret link; install -d -m 1777 sticky; echo before > sticky/file; chmod 644 sticky/file
        """
    )
    host.volt(
        "run", "-d", "--name", "web", "-v", "/srv/members:/mnt", IMAGE, "sleep", "1000", user="member", check=True
    )
    attempts = {
        "read": "cat /mnt/secret",
        "enter": "ls /mnt/closed",
        "through a link": "cat /mnt/link",
        "write": "echo x >> /mnt/readable",
        "own": "chown 0 /mnt/readable",
        "mode": "chmod 666 /mnt/secret",
        "in a sticky directory": "rm -f /mnt/sticky/file",
        "give": "chown 1 /mnt/own",
        "device": "mknod /mnt/null c 1 3",
    }
    attempts["what it may"] = "chmod 600 /mnt/own && cat /mnt/own"
    assert inside(host, "web", attempts) == {"what it may"}
    assert host.sh("cat /srv/members/readable /srv/members/sticky/file") == "before\nbefore\n"


def test_a_setuid_file_from_a_container_is_never_roots_on_the_host(host):
    volume = ["-v", "/srv/members:/mnt"]
    host.volt("run", "-d", "--name", "web", *volume, IMAGE, "sleep", "1000", user="member", check=True)
    make = "cp /bin/dash {0}/sh; chown 0:0 {0}/sh; chmod 6755 {0}/sh"
    for place in ("/mnt", "/root", "/"):
        host.volt("exec", "web", "sh", "-ec", make.format(place), user="member", check=True)
    assert host.sh("stat -c '%U %G %a' /srv/members/sh") == "member member 6755\n"
    assert host.sh("/srv/members/sh -p -c 'id -un'", user="outsider") == "member\n"
    # In the container the mount honours neither setuid nor devices.
    options = host.volt("exec", "web", "findmnt", "-no", "OPTIONS", "/mnt").stdout
    assert {"nosuid", "nodev"} <= set(options.strip().split(",")), options
    script = "exec setpriv --reuid 1000 --clear-groups /mnt/sh -p -c 'id -u'"
    assert host.volt("exec", "web", "sh", "-c", script).stdout == "1000\n"
    # What it made in its own root can't be reached by anybody of the host, nor by way of its processes.
    leader = json.loads(host.volt("inspect", "web", "-o", "json").stdout)["leader"]
    upper = f"{ROOTS}/web/layer/upper"
    base = host.sh(f"cat {ROOTS}/web/idmap").strip()
    assert host.sh(f"stat -c '%u %a' {upper}/root/sh {upper}/sh") == f"{base} 6755\n" * 2
    ways = (f"{upper}/sh", f"{ROOTS}/web/rootfs/sh", f"/proc/{leader}/root/sh")
    for user in ("outsider", "member", "volt-ctr", "volt-cas"):
        assert succeeded(try_all(host, user, {way: f"{way} -c true" for way in ways})) == {}


def test_a_member_gets_no_root_by_options(host):
    options = {
        "administration": "--cap-add SYS_ADMIN",
        "modules": "--cap-add CAP_SYS_MODULE",
        "all": "--cap-add all",
        "network": "--network host",
        "processes": "--pids 4000000",
        "ids": "--user 70000",
        "a group's ids": "--user 0:70000",
        "an option as the image": "-- --private-users=no",
        "over the init": "--tmpfs /run/.volt",
        "over the root": "--tmpfs /",
    }
    found = try_all(host, "member", {k: f"volt run --rm {words} {IMAGE} true" for k, words in options.items()})
    assert succeeded(found) == {}
    assert {code for code, _ in found.values()} <= {2, 3, 5, 12, 125, 126}, found
    # Words of the command are the command's.
    done = host.volt("run", "--rm", IMAGE, "--capability=all", user="member")
    assert (done.returncode, "command not found" in done.stderr) == (127, True), done.stderr
    # A name on the host is no name in a path.
    names = {
        repr(name): f"volt run --name '{name}' {IMAGE} true"
        for name in ("..", "../x", ".views", "a/b", "op", "A", "a\nb")
    }
    assert succeeded(try_all(host, "member", names)) == {}


# A stranger


def test_a_stranger_reaches_neither_sockets_nor_files(web):
    web.volt(
        "exec", "web", "sh", "-c", f"echo {SECRET} > /root/file; chmod 644 /root/file; chmod 755 /root", check=True
    )
    leader = json.loads(web.volt("inspect", "web", "-o", "json").stdout)["leader"]
    connect = "import socket; socket.socket(socket.AF_UNIX, socket.{}).connect('/run/volt/{}')"
    attempts = {
        f"connect {name}": f'python3 -c "{connect.format(kind, name)}"'
        for name, kind in (
            ("casd.sock", "SOCK_STREAM"),
            ("ctrd.sock", "SOCK_STREAM"),
            ("casd.fd", "SOCK_SEQPACKET"),
            ("ctrd.fd", "SOCK_SEQPACKET"),
            ("ctr-handover", "SOCK_SEQPACKET"),
        )
    }
    attempts |= {word: f"volt {word}" for word in ("stop web", "exec web true", "inspect web", "cas ls debian:test")}
    attempts |= {
        path: f"cat {path} || ls {path}/"
        for path in (
            f"{CONTAINERS}/web/config.json",
            CONTAINERS,
            ROOTS,
            f"{ROOTS}/.views",
            f"{ROOTS}/web/layer",
            f"{ROOTS}/web/layer/upper/root/file",
            f"{ROOTS}/web/rootfs/root/file",
            "/run/volt-launch/web/confinement.json",
            "/var/lib/volt/cas/objects",
            "/var/lib/volt/cas/refs",
            "/var/log/volt/audit/ctrd.log",
            f"/proc/{leader}/root/root/file",
            f"/proc/{leader}/environ",
            f"/proc/{leader}/fd",
        )
    }
    attempts |= {
        "enter": f"nsenter -t {leader} -m -p true",
        "kill": f"kill {leader}",
        "start": "systemctl --no-ask-password start volt-container@web.service",
        "stop": "systemctl --no-ask-password stop volt-container@web.service",
    }
    assert succeeded(try_all(web, "outsider", attempts)) == {}
    # A member's handover is root's, too.
    member = {"handover": attempts["connect ctr-handover"], "control": attempts["connect ctrd.sock"]}
    assert succeeded(try_all(web, "member", member)).keys() == {"control"}
    assert succeeded(try_all(web, "volt-ctr", {"handover": attempts["connect ctr-handover"]})) == {}


# A container's root

NUMBERS = {  # arch: init_module, finit_module, kexec_load, bpf, open_by_handle_at, ptrace, keyctl, settimeofday
    "x86_64": (175, 313, 246, 321, 304, 101, 250, 164),
    "aarch64": (105, 273, 104, 280, 265, 117, 219, 170),
}


def test_container_root_is_root_of_nothing_of_the_host(web):
    machine = web.sh("uname -m").strip()
    assert machine in NUMBERS
    calls = zip(
        ("init_module", "finit_module", "kexec_load", "bpf", "open_by_handle_at", "ptrace", "keyctl", "settimeofday"),
        NUMBERS[machine],
        ("''x64,64,''", "0,'',0", "0,0,0,0", "5,''x128,128", "3,''x32,0", "16,1,0,0", "0,-3,1", "pack('qq',1,1),0"),
        strict=True,
    )
    attempts = {
        name: f"perl -e '$a=syscall({number},{words.replace(chr(39), chr(34))}); exit($a==-1)'".replace('""x', '"\\0"x')
        for name, number, words in calls
    }
    attempts |= {
        "mount": "mount -t tmpfs none /mnt",
        "bind": "mount --bind / /mnt",
        "remount sysctl": "mount -o remount,rw /proc/sys",
        "remount /sys": "mount -o remount,rw /sys",
        "unmount": "umount /proc/sys",
        "proc anew": "unshare -Urpfm sh -c 'mount -t proc none /mnt && echo b > /mnt/sysrq-trigger'",
        "disk": "mknod /dev/disk b 8 0 && head -c 1 /dev/disk",
        "memory": "mknod /dev/memory c 1 1 && head -c 1 /dev/memory",
        "kmsg": "mknod /dev/log2 c 1 11 && head -c 1 /dev/log2",
        "sysctl": "echo /owned > /proc/sys/kernel/core_pattern",
        "sysrq": "echo h > /proc/sysrq-trigger",
        "uevent": "echo /owned > /sys/kernel/uevent_helper",
        "its limits": "echo max > /sys/fs/cgroup/../pids.max",
        "its limits by name": "echo max > /sys/fs/cgroup/pids.max",
        "the host's groups": "ls /sys/fs/cgroup/system.slice",
        "namespaces": "nsenter -t 1 -m ls /srv/victim",
        "oom": "echo -1000 > /proc/1/oom_score_adj",
        "clock": "date -s 2001-01-01",
        "reboot": "reboot -f || perl -e 'exit 1'",
        "hostname": "hostname owned",
        "init": "echo x >> /run/.volt/init",
        "host's release": "echo x >> /run/host/os-release",
        "dmesg": "dmesg",
        "swap": "swapoff -a && swapon /bin/sh",
        "raw disk of /proc": "cat /proc/kcore | head -c 1 | grep -q .",
        "chroot away": "mkdir -p /jail && perl -e "
        + shlex.quote('chroot "/jail"; chdir ".." for 1..64; chroot "."; exit(! -e "/srv/victim")'),
    }
    shown = (
        "cat /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/uptime | head -2; lsmod | wc -l; date +%Y"
    )
    before = web.sh(shown)
    attempts["what it may"] = "mkdir /made && chown 5 /made && mknod /made/fifo p"
    assert inside(web, "web", attempts) == {"what it may"}
    assert web.sh(shown) == before


def test_a_booted_container_can_not_loosen_its_mounts(host):
    words = ["--mode", "hybrid-native", "-v", "/srv/members:/mnt", "-v", "/srv/open:/opt:ro"]
    done = host.volt("run", "-d", "--name", "sys", *words, IMAGE, user="member", timeout=90)
    assert done.returncode == 0, done.stderr
    attempts = {
        "setuid": "mount -o remount,bind,suid /mnt",
        "devices": "mount -o remount,bind,dev /mnt",
        "writing": "mount -o remount,bind,rw /opt",
        "uncover": "umount /opt",
        "sysctl": "mount -o remount,bind,rw /proc/sys; echo x > /proc/sys/kernel/core_pattern",
        "disk": "mknod /root/disk b 7 0 && head -c 1 /root/disk",
        "proc": "mount -t proc none /media && echo h > /media/sysrq-trigger",
        "the host's groups": "ls /sys/fs/cgroup/system.slice/dbus.service /sys/fs/cgroup/volt.slice",
    }
    attempts["what it may"] = "mount -t tmpfs none /media && mount -o remount,bind,ro /media && umount /media"
    assert inside(host, "sys", attempts) == {"what it may"}


def test_two_containers_share_neither_ids_nor_files_nor_processes(web):
    web.volt("run", "-d", "--name", "other", IMAGE, "sleep", "4242", check=True)
    for name in ("web", "other"):
        web.volt("exec", name, "sh", "-c", f"echo {name} > /root/mine; chown 1:1 /root/mine", check=True)
    owners = web.sh(f"stat -c %u {ROOTS}/web/layer/upper/root/mine {ROOTS}/other/layer/upper/root/mine").split()
    bases = web.sh(f"cat {ROOTS}/web/idmap {ROOTS}/other/idmap").split()
    assert [int(owner) - 1 for owner in owners] == [int(base) for base in bases]
    assert len(set(bases)) == 2
    assert all(int(base) >= 65536 and int(base) % 65536 == 0 for base in bases)
    assert web.volt("exec", "web", "cat", "/root/mine").stdout == "web\n"
    seen = web.volt("exec", "web", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; hostname").stdout
    assert "4242" not in seen
    assert "sleep 1000" in seen
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    links = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds)
    found = [web.volt("exec", name, "sh", "-c", links).stdout.split() for name in ("web", "other")]
    found.append(web.sh(links).split())
    assert all(len(set(same)) == 3 for same in zip(*found, strict=True)), found


def test_no_container_changes_an_object_of_the_store(web):
    store = "cd /var/lib/volt/cas/objects; find . -type f -printf '%p %m %U %s %T@ %n\\n' | sort | sha256sum"
    before = web.sh(store)
    script = """
        cd /usr/share
        set -- $(find . -xdev -type f -size +2k | sort | head -n 90)
        n=0
        for file; do
            n=$((n + 1))
            case $((n % 9)) in
                0) chmod 4777 $file ;;
                1) echo x >> $file ;;
                2) : > $file ;;
                3) mv $file $file.moved; echo y >> $file.moved ;;
                4) chown 1:1 $file ;;
                5) touch -d 2001-01-01 $file ;;
                6) ln $file $file.link; echo z >> $file.link ;;
                7) perl -e 'open(F, "+<", $ARGV[0]); seek(F, 100, 0); print F "x" x 4096' $file ;;
                8) perl -e 'open(F, "<", $ARGV[0]); open(G, "+<", "/proc/$$/fd/".fileno(F)); print G "x"' $file ;;
            esac
        done
        rm -r /usr/share/doc
    """
    done = web.volt("exec", "-i", "web", "sh", "-s", input=script, timeout=60)
    assert done.returncode == 0, done.stderr
    assert web.sh(f"find {ROOTS}/web/layer/upper/usr/share -type f | wc -l").strip() not in ("0", "1")
    assert web.sh(store) == before
    done = web.volt("cas", "verify", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


# exec

_READ = r"""
grep -E "^(Cap|NoNewPrivs|Seccomp|Uid|Gid|Umask)" /proc/{0}/status
cat /proc/{0}/limits /proc/{0}/oom_score_adj /proc/{0}/uid_map
for kind in cgroup ipc mnt net pid user uts; do readlink /proc/{0}/ns/$kind; done
"""


def _confinement(machine, pid: int) -> tuple[dict[str, str], str]:
    lines = machine.sh(_READ.format(pid)).splitlines()
    group = machine.sh(f"grep ^0:: /proc/{pid}/cgroup").strip()
    return {line.split(":")[0] if line[:3] == "Cap" else str(n): line for n, line in enumerate(lines)}, group


@pytest.fixture
def other_limits(host):
    """Limits of the unit of exec that are not the payload's."""
    drop_in = "/run/systemd/system/volt-exec@.service.d"
    host.sh(f"mkdir {drop_in}; printf '[Service]\\nLimitSTACK=1M:infinity\\n' > {drop_in}/test.conf")
    host.sh("systemctl daemon-reload")
    yield
    host.sh(f"rm -r {drop_in}; systemctl daemon-reload")


@pytest.mark.parametrize("user", ["", "nobody"])
@pytest.mark.usefixtures("other_limits")
def test_exec_is_confined_as_the_payload(host, user):
    words = ["--user", user] if user else []
    host.volt("run", "-d", "--name", "web", "--pids", "100", *words, IMAGE, "sleep", "1000", check=True)
    host.sh(f"volt exec {' '.join(words)} web sleep 4321 >/dev/null 2>&1 </dev/null & ")
    host.wait("pgrep -x sleep -a | grep -q 4321")
    payload, command = (int(host.sh(f"pgrep -xf 'sleep {seconds}'")) for seconds in (1000, 4321))
    (one, group), (two, leaf) = _confinement(host, payload), _confinement(host, command)
    assert two == one
    text = "\n".join(one.values())
    assert re.search(r"^Seccomp:\s+2$", text, re.M), text
    assert int(host.sh(f"awk '/CapEff/ {{print $2}}' /proc/{command}/status"), 16) & 1 << 21 == 0  # CAP_SYS_ADMIN
    assert leaf.startswith(group.removesuffix("/") + "/"), (group, leaf)
    filters = "for p in {} {}; do grep -h ^Seccomp_filters /proc/$p/status; done"
    of_payload, of_command = host.sh(filters.format(payload, command)).splitlines()
    assert of_command == of_payload
    # Nothing of the host comes along: descriptors, environment, terminal.
    assert host.sh(f"ls /proc/{command}/fd").split() == ["0", "1", "2"]
    names = {line.partition("=")[0] for line in host.sh(f"tr '\\0' '\\n' < /proc/{command}/environ").splitlines()}
    assert names <= {"PATH", "HOME", "container", "TERM", "LANG"}, names
    host.sh(f"kill {command}")


def test_what_a_container_plants_in_its_etc_misleads_no_launcher(web):
    """passwd and group decide who a command runs as; reading them blocks nothing and leaves the container never."""
    line = "owner:x:0:0::/:/bin/sh"
    web.sh(f"echo {line} > /srv/open/passwd; chmod 644 /srv/open/passwd")
    plants = {
        "a link to the host's": "ln -s ../../../../../../../../../srv/open/passwd /etc/passwd",
        "a link to a process": "ln -s /proc/1/root/../../srv/open/passwd /etc/passwd",
        "a fifo": "mkfifo /etc/passwd",
        "a device": "ln -s /dev/zero /etc/passwd",
        "a terminal": "ln -s /dev/ptmx /etc/passwd",
        "a directory": "mkdir /etc/passwd",
        "a sparse terabyte": "truncate -s 1T /etc/passwd",
        "ids of another": "echo owner:x:131072:131072::/:/bin/sh > /etc/passwd",
        "a negative id": "echo owner:x:-1:-1::/:/bin/sh > /etc/passwd",
        "nonsense": "head -c 100000 /dev/urandom > /etc/passwd",
    }
    web.volt("exec", "web", "cp", "/etc/passwd", "/root/passwd", check=True)
    for label, script in plants.items():
        web.volt("exec", "web", "sh", "-ec", f"rm -rf /etc/passwd; {script}", check=True)
        done = web.volt("exec", "--user", "owner", "web", "true", timeout=20)
        why = "holds an id that is not" if " id" in label or "ids" in label else "there is no user owner"
        assert (done.returncode != 0, why in done.stderr) == (True, True), (label, done.stderr)
        assert web.volt("exec", "--user", "0", "web", "true", timeout=20).returncode == 0, label
    # A start reads them from outside.
    for script in (plants["a link to the host's"], plants["a fifo"], "rm -rf /etc; ln -s ../../../../../srv/open /etc"):
        web.volt("exec", "--user", "0", "web", "/bin/sh", "-ec", f"rm -rf /etc/passwd; {script}", check=True)
        web.volt("stop", "web", check=True)
        web.sh(f'sed -i \'s/"user": "[a-z]*"/"user": "owner"/\' {CONTAINERS}/web/config.json')
        done = web.volt("start", "web", timeout=30)
        assert "there is no user owner in the container" in done.stderr, done.stderr
        web.sh(f'sed -i \'s/"user": "owner"/"user": ""/\' {CONTAINERS}/web/config.json')
        web.volt("start", "web", check=True, timeout=30)


# A hostile image


def test_an_image_whose_directories_are_links_leads_root_nowhere(host):
    """What root mounts and makes in an image before the container begins stays in the image."""
    out = "../../../../../../../../../../srv/victim"
    volume = ["-v", "/srv/open:/opt/a/b", "--tmpfs", "/mnt/c"]
    host.volt("run", "-d", "--name", "web", *volume, IMAGE, "sleep", "1000", user="member", check=True)
    host.volt("stop", "web", check=True)
    upper = f"{ROOTS}/web/layer/upper"

    def start_with(*places: str) -> str:
        links = "; ".join(f"rm -rf {upper}/{place}; ln -s {out} {upper}/{place}" for place in places)
        host.sh(f"mkdir -p {upper}/etc {upper}/var {upper}/opt; {links}")
        error = host.volt("start", "web", timeout=30).stderr
        host.volt("stop", "web", check=True)
        assert host.sh("ls -A /srv/victim") == "file\n", places
        host.sh("; ".join(f"rm -rf {upper}/{place}" for place in places))
        return error

    for place in ("dev", "proc", "run", "sys", "tmp"):  # systemd-nspawn itself follows these
        assert f"/{place} in the image must be a directory" in start_with(place)
    start_with("etc", "var", "opt", "mnt", "home", "root", "srv")
    start_with("etc/machine-id", "etc/resolv.conf", "etc/localtime", "etc/hostname", "var/log", "var/tmp", "opt/a")
    assert start_with("srv") == ""


def test_an_image_boots_with_links_for_the_files_of_its_host(host):
    """A systemd of the image writes its own machine-id, not the host's."""
    files = "etc/machine-id etc/hostname etc/localtime var/log"
    host.sh(
        f"""
        rm -rf /root/evil; mkdir /root/evil; cd /root/evil; tar -xf /root/image.tar
        for place in {files}; do rm -rf $place; ln -s ../../../../../../../srv/victim/file $place; done
        """
    )
    done = host.volt("image", "import", "evil", "/root/evil", timeout=120)
    assert done.returncode == 0, done.stderr
    host.sh("rm -rf /root/evil")
    host.volt("run", "-d", "--name", "sys", "--mode", "hybrid-native", "evil", user="member", timeout=90)
    assert host.sh("ls -A /srv/victim; cat /srv/victim/file") == "file\nbefore\n"
    host.volt("rm", "--force", "sys", timeout=60)
    host.volt("image", "delete", "evil")
