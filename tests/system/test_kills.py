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
        return self

    def __exit__(self, *_):
        self.machine.sh(f"rm -r {self.dropin}; systemctl daemon-reload; systemctl stop volt-{self.daemon} 2>/dev/null")

    def died(self):
        return "code=killed, status=9/KILL" in self.machine.sh(
            f"journalctl --no-pager -u volt-{self.daemon} --since=-60s -o cat"
        )


def _nothing_is_left(machine):
    assert machine.volt("ps", "-a", "-o", "name").stdout == ""
    left = machine.sh(
        "ls -A /var/lib/volt/containers; ls /var/lib/volt/roots; ls -A /run/volt-launch | grep -v '^op$' || true"
    )
    assert left == "", left
    assert (
        machine.sh("systemctl list-units --no-legend --plain 'volt-container@*' 'volt-exec@*' 'volt-container-op@*'")
        == ""
    )
    assert machine.sh("grep -c /var/lib/volt/roots /proc/mounts || true").strip() == "0"


@pytest.mark.parametrize("point", CREATE)
def test_killed_in_create_the_container_is_there_or_not(clean, point):
    with Armed(clean, "ctrd", point) as armed:
        clean.volt("container", "create", "--name", "web", IMAGE, "sleep", "1000", timeout=30)
        assert armed.died()
    names = clean.volt("ps", "-a", "-o", "name").stdout.split()
    assert names in ([], ["web"])
    if not names:
        assert clean.volt("container", "create", "--name", "web", IMAGE, "sleep", "1000").returncode == 0
    assert clean.volt("start", "web").returncode == 0
    assert clean.volt("rm", "--force", "web").returncode == 0
    _nothing_is_left(clean)


@pytest.mark.parametrize("point", START)
def test_killed_in_start_the_container_runs_or_does_not_and_the_name_is_free(clean, point):
    assert clean.volt("container", "create", "--name", "web", IMAGE, "sleep", "1000").returncode == 0
    with Armed(clean, "ctrd", point) as armed:
        clean.volt("start", "web", timeout=30)
        assert armed.died()
    state = json.loads(clean.volt("inspect", "web", "-o", "json").stdout)["state"]
    assert state == ("stopped" if point == "start.before-unit" else "running")
    if state == "stopped":
        assert clean.volt("start", "web").returncode == 0
    assert clean.volt("exec", "web", "true").returncode == 0
    assert clean.volt("rm", "--force", "web").returncode == 0
    _nothing_is_left(clean)


@pytest.mark.parametrize("point", DELETE)
def test_killed_in_delete_it_can_be_deleted_or_is_gone(clean, point):
    assert clean.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000").returncode == 0
    assert clean.volt("stop", "web").returncode == 0
    with Armed(clean, "ctrd", point) as armed:
        clean.volt("rm", "web", timeout=30)
        assert armed.died()
    assert clean.volt("rm", "--force", "web").returncode in (0, 3)
    clean.wait('test -z "$(ls -A /var/lib/volt/containers)"')
    _nothing_is_left(clean)
    refs = clean.volt("cas", "refs", "-o", "name").stdout.split()
    assert not [ref for ref in refs if ref.startswith("containers/")]


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
