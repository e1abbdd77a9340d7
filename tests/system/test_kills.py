"""ctrd and casd killed at each step of create, start, delete, build and ref set, under real systemd.

A failpoint in the daemon's environment kills it the first time it comes by. Afterwards the daemon is started
without it, and everything must be there or not: no bad object, no stuck name, no leftover mount, unit or directory.
"""

from __future__ import annotations

import json

import pytest

IMAGE = "debian:test"
CREATE = ["create.before-rename", "create.after-rename"]
START = ["start.before-unit", "start.after-unit"]
DELETE = ["delete.before-rename", "delete.after-rename"]
BUILD = [
    "object.created",
    "object.written",
    "batch.before-sync",
    "batch.after-sync",
    "build.before-tree",
    "build.committed",
    "ref.before-write",
    "ref.written",
    "build.done",
]


class Armed:
    """A daemon that dies at `point`, within `with`."""

    def __init__(self, machine, daemon, point):
        self.machine, self.daemon, self.point = machine, daemon, point
        self.dropin = f"/run/systemd/system/volt-{daemon}.service.d"

    def __enter__(self):
        text = f"[Service]\\nEnvironment=VOLT_FAILPOINT={self.point}=kill\\nRestart=no\\n"
        stop = f"systemctl stop volt-{self.daemon} 2>/dev/null"
        self.machine.sh(
            f"mkdir -p {self.dropin}; printf '{text}' > {self.dropin}/kill.conf; systemctl daemon-reload; {stop}"
        )
        self.since = self.machine.sh("date +%s").strip()
        return self

    def __exit__(self, *_):
        self.machine.sh(f"rm -r {self.dropin}; systemctl daemon-reload; systemctl stop volt-{self.daemon} 2>/dev/null")

    def died(self):
        return "code=killed, status=9/KILL" in self.machine.sh(
            f"journalctl --no-pager -u volt-{self.daemon} --since=@{self.since} -o cat"
        )


@pytest.fixture
def spotless(clean):
    """The machine, which the test must leave as it found it: no directory, unit or mount more."""
    before = _traces(clean)
    yield clean
    assert clean.volt("ps", "-a", "-o", "name").stdout == ""
    assert _traces(clean) == before


def _traces(machine):
    return machine.sh(
        "ls -A /var/lib/volt/containers /var/lib/volt/roots | grep -v lock;"
        "ls -A -I .filters -I .policy.json /run/volt-launch;"
        "systemctl list-units --no-legend --plain 'volt-container@*' 'volt-exec@*' 'volt-container-op@*';"
        "grep /var/lib/volt/roots /proc/mounts || true; volt cas refs -o name | grep ^containers/ || true"
    )


@pytest.mark.parametrize("point", CREATE)
def test_killed_in_create_the_container_is_there_or_not(spotless, point):
    with Armed(spotless, "ctrd", point) as armed:
        spotless.volt("container", "create", "--name", "web", IMAGE, "sleep", "1000", timeout=30)
        assert armed.died()
    names = spotless.volt("ps", "-a", "-o", "name").stdout.split()
    assert names in ([], ["web"])
    if not names:
        assert spotless.volt("container", "create", "--name", "web", IMAGE, "sleep", "1000").returncode == 0
    assert spotless.volt("start", "web").returncode == 0
    assert spotless.volt("rm", "--force", "web").returncode == 0


@pytest.mark.parametrize("point", START)
def test_killed_in_start_the_container_runs_or_does_not_and_the_name_is_free(spotless, point):
    assert spotless.volt("container", "create", "--name", "web", IMAGE, "sleep", "1000").returncode == 0
    with Armed(spotless, "ctrd", point) as armed:
        spotless.volt("start", "web", timeout=30)
        assert armed.died()
    state = json.loads(spotless.volt("inspect", "web", "-o", "json").stdout)["state"]
    assert state == ("stopped" if point == "start.before-unit" else "running")
    if state == "stopped":
        assert spotless.volt("start", "web").returncode == 0
    assert spotless.volt("exec", "web", "true").returncode == 0
    assert spotless.volt("rm", "--force", "web").returncode == 0


@pytest.mark.parametrize("point", DELETE)
def test_killed_in_delete_it_can_be_deleted_or_is_gone(spotless, point):
    assert spotless.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000").returncode == 0
    assert spotless.volt("stop", "web").returncode == 0
    with Armed(spotless, "ctrd", point) as armed:
        spotless.volt("rm", "web", timeout=30)
        assert armed.died()
    assert spotless.volt("rm", "--force", "web").returncode in (0, 3)
    spotless.wait("! ls -A /var/lib/volt/containers | grep -q web")


@pytest.mark.parametrize("point", BUILD)
def test_killed_in_a_build_the_store_is_whole_and_the_ref_is_there_or_not(clean, point):
    clean.sh(f"rm -rf /root/tree; mkdir /root/tree; for i in 1 2 3; do echo {point} $i > /root/tree/$i; done")
    with Armed(clean, "casd", point) as armed:
        clean.volt("image", "import", "killed:1", "/root/tree", timeout=60)
        assert armed.died()
    done = clean.volt("cas", "verify", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert clean.volt("image", "import", "killed:1", "/root/tree").returncode == 0
    assert clean.volt("cas", "cat", "images/killed/1:/2").stdout == f"{point} 2\n"
    assert clean.sh("find /var/lib/volt/cas/tmp -mindepth 1 | wc -l").strip() == "0"
    assert clean.volt("image", "delete", "killed:1").returncode == 0
