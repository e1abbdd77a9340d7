"""The units: how little the daemons are exposed, and what installing, installing again and uninstalling do."""

from __future__ import annotations

import os
import subprocess
import tarfile

import pytest
from system.conftest import LAB, Machine

from voltlab import layers

MOST_EXPOSURE = 1.5
DAEMONS = {"casd": "volt-cas", "ctrd": "volt-ctr"}


@pytest.mark.parametrize("daemon", DAEMONS)
def test_exposure_is_at_most_1_5(machine, daemon, capsys):
    done = machine.run("systemd-analyze", "security", "--no-pager", f"volt-{daemon}.service")
    told = next(line for line in done.stdout.splitlines() if "exposure level" in line)
    with capsys.disabled():
        print(f"\n{machine.suite}: {told.strip('→ ')}")
    assert float(told.partition(": ")[2].split()[0]) <= MOST_EXPOSURE


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_is_a_user_of_its_own_with_at_most_one_capability(clean, daemon):
    clean.sh("volt container list; volt cas status")
    pid = clean.sh(f"systemctl show -P MainPID volt-{daemon}").strip()
    fields = dict(line.split(":", 1) for line in clean.sh(f"cat /proc/{pid}/status").splitlines())
    uid = clean.sh(f"id -u {DAEMONS[daemon]}").strip()
    assert fields["Uid"].split() == [uid] * 4 != ["0"] * 4
    assert int(fields["CapBnd"], 16) == {"casd": 1 << 28, "ctrd": 0}[daemon]  # CAP_LEASE is bit 28
    assert (fields["NoNewPrivs"].strip(), fields["Seccomp"].strip()) == ("1", "2")


def test_sockets_are_roots_and_the_groups(machine):
    machine.run("systemctl", "start", "volt.target")
    told = machine.sh("cd /run/volt; stat -c '%n %U:%G %a' *").splitlines()
    groups = [f"{name} root:volt 660" for name in ("casd.fd", "casd.sock", "ctrd.fd", "ctrd.sock")]
    assert sorted(told) == sorted([*groups, "ctr-handover root:root 600"])


def test_directories_are_their_owners_alone(machine):
    machine.volt("cas", "status")
    told = machine.sh("cd /var/lib/volt; stat -c '%n %U:%G %a' . cas containers roots roots/.views").splitlines()
    assert told == [
        ". root:root 755",
        "cas volt-cas:volt-cas 700",
        "containers volt-ctr:volt-ctr 700",
        "roots root:root 711",
        "roots/.views root:root 700",
    ]


def test_no_file_that_root_runs_belongs_to_another(machine):
    assert machine.sh("find /usr/lib/volt '(' ! -user root -o ! -group root -o -perm /022 ')' ! -type l") == ""


def test_units_are_valid(machine):
    done = machine.run("sh", "-c", "systemd-analyze verify --man=no /usr/lib/systemd/system/volt-*d.service "
                       "/usr/lib/systemd/system/volt-*.socket /usr/lib/systemd/system/volt.target")  # fmt: skip
    assert (done.returncode, [line for line in done.stderr.splitlines() if "volt" in line]) == (0, [])


def test_nothing_failed_and_no_log_has_a_traceback(clean):
    clean.volt("run", "--rm", "debian:test", "true")
    clean.volt("cas", "verify", timeout=120)
    clean.sh("systemctl restart volt-casd volt-ctrd; systemctl stop volt-casd volt-ctrd")
    assert clean.sh("systemctl --failed --plain --no-legend") == ""
    journal = clean.sh("journalctl --no-pager -b -o cat -u 'volt-*'")
    assert journal
    assert "Traceback" not in journal


@pytest.fixture(scope="module")
def bare(machine, debian_root):
    """A machine of its own without Volt, with what scripts/install needs in /opt."""
    suite = machine.suite
    one = Machine(f"u{os.getpid()}-{suite}", suite)
    subprocess.run([LAB, "up", "--suite", suite, "--name", one.name, "--bare"], check=True, stdin=subprocess.DEVNULL)
    try:
        wheels = layers.script("build-wheels", "--python", layers.PYTHON[suite])
        archive = layers.state() / f"{one.name}.tar"
        with tarfile.open(archive, "w") as tar:
            for name in layers.INSTALLED:
                tar.add(layers.TREE / name, arcname=f"volt/{name}")
            tar.add(wheels, arcname="volt/wheels")
        one.push(archive, "/opt/volt.tar")
        archive.unlink()
        one.push(debian_root(suite), "/root/image.tar")
        one.sh("cd /opt && tar -x --no-same-owner -f volt.tar")
        yield one
    finally:
        subprocess.run([LAB, "down", "--name", one.name], stdin=subprocess.DEVNULL, timeout=120)


INSTALL = "/opt/volt/scripts/install --wheels /opt/volt/wheels"
LEADER = "systemctl show -P MainPID volt-container@web"
EVERYTHING = "find / -xdev ! -type s -printf '%p %y %m %U:%G\\n'"
# What changes on a machine by itself, or in what Volt's users and data are.
ELSEWHERE = (
    "/var/lib/volt ", "/var/lib/volt/", "/var/log/", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow",
    "/etc/.pwd.lock", "/var/tmp/", "/tmp/", "/opt/", "/root/", "/var/cache/apt/", "/var/lib/apt/", "/var/lib/dpkg/",
    "/var/lib/systemd/", "/etc/ld.so.cache", "/var/cache/ldconfig/", "/etc/subuid", "/etc/subgid",
)  # fmt: skip


def everything(machine) -> set[str]:
    return {line for line in machine.sh(EVERYTHING).splitlines() if not line.startswith(ELSEWHERE)}


def test_installing_twice_is_harmless_and_uninstalling_leaves_no_trace_but_data(bare):
    before = everything(bare)
    failed = "systemctl --failed --plain --no-legend"
    failed_before = bare.sh(failed)  # no machine can load modules in this flavour, and some try
    bare.sh(INSTALL, timeout=200)
    bare.sh("volt image import mine /root/image.tar", timeout=120)
    bare.sh("volt run -d --name web mine sleep 1000")
    leader = bare.sh(LEADER)
    bare.sh("echo 'idle_seconds: 29' > /etc/volt/config.yaml")
    assert int(leader) > 1
    first = everything(bare)

    bare.sh(INSTALL, timeout=200)
    assert bare.sh(LEADER) == leader
    assert bare.volt("exec", "web", "true").returncode == 0
    assert bare.volt("stop", "web").returncode == 0
    assert bare.volt("start", "web").returncode == 0
    assert bare.sh("cat /etc/volt/config.yaml") == "idle_seconds: 29\n"
    assert bare.sh(failed) == failed_before
    assert {line for line in everything(bare) ^ first if "/__pycache__" not in line} == set()

    done = bare.sh("/opt/volt/scripts/install --uninstall", timeout=120)
    assert "/var/lib/volt" in done
    left = {line.split()[0] for line in everything(bare) - before if "/__pycache__" not in line}
    # The setting that was changed is data; directories of polkit's are what a package of it makes.
    assert left - {"/etc/volt", "/etc/volt/config.yaml", "/usr/share/polkit-1", "/usr/share/polkit-1/rules.d"} == set()
    assert bare.sh("systemctl list-units --all --plain --no-legend 'volt*'") == ""
    assert bare.sh("systemctl list-unit-files --plain --no-legend 'volt*' || true") == ""
    assert bare.sh("ps -eo user:20,args | grep -E '^volt|[v]olt-' || true") == ""
    assert bare.sh("cut -d' ' -f5 /proc/self/mountinfo | grep volt || true") == ""
    assert bare.sh("find /sys/fs/cgroup -name 'volt*'") == ""
    assert bare.run("test", "-d", "/var/lib/volt/cas/objects").returncode == 0

    bare.sh(INSTALL, timeout=200)  # the data are still good
    assert bare.volt("start", "web").returncode == 0
    assert bare.volt("cas", "verify", timeout=120).returncode == 0
