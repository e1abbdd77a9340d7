"""Limits hold where the kernel has every controller of cgroup v2, and an OOM kill is told as one."""

from __future__ import annotations

import json

import pytest
from system.conftest import IMAGE

pytestmark = pytest.mark.timeout(1800)
BOX = "/sys/fs/cgroup/volt.slice/volt-containers.slice/volt-container@{}.service/box"
EATER = "perl -e 'my @all; while (1) { push @all, chr(65) x (1 << 20) }'"  # a minimal Debian has no python
SPIN = "while :; do :; done"


def read(machine, name: str, file: str) -> str:
    return machine.sh(f"cat {BOX.format(name)}/{file}").strip()


def test_more_memory_than_the_limit_ends_as_137_and_oom(clean):
    done = clean.volt("run", "--name", "web", "--memory", "64M", IMAGE, "sh", "-c", f"exec {EATER}")
    assert done.returncode == 137, done.stderr
    assert "memory" in done.stderr
    end = json.loads(clean.volt("inspect", "web", "-o", "json", check=True).stdout)["exit"]
    assert (end["code"], end["signal"], end["reason"]) == (137, 9, "oom")
    assert "out of memory" in clean.volt("ps", "-a").stdout


def test_the_same_without_a_limit_is_no_oom(clean):
    script = "exec perl -e 'my @all; push @all, chr(65) x (1 << 20) for 1..128; print scalar @all'"
    done = clean.volt("run", "--name", "web", IMAGE, "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "128"), done.stderr


def test_an_oom_kill_of_an_exec_is_told_and_the_container_goes_on(clean):
    clean.volt("run", "-d", "--name", "web", "--memory", "96M", IMAGE, "sleep", "100000", check=True)
    done = clean.volt("exec", "web", "sh", "-c", f"exec {EATER}")
    assert done.returncode == 137, done.stderr
    assert json.loads(clean.volt("inspect", "web", "-o", "json", check=True).stdout)["state"] == "running"
    assert "oom_kill 1" in read(clean, "web", "memory.events"), "exec is counted in the container's limit"


def test_what_was_asked_for_is_what_the_kernel_has(clean):
    words = ["--memory", "64M", "--cpu", "50", "--pids", "33"]
    clean.volt("run", "-d", "--name", "web", *words, IMAGE, "sleep", "100000", check=True)
    assert read(clean, "web", "memory.max") == str(64 << 20)
    assert read(clean, "web", "cpu.max") == "50000 100000"
    assert read(clean, "web", "pids.max") == "33"
    clean.volt("run", "-d", "--name", "free", IMAGE, "sleep", "100000", check=True)
    assert read(clean, "free", "memory.max") == "max"
    assert read(clean, "free", "cpu.max").split()[0] == "max"


def test_every_process_of_a_container_is_within_them(clean):
    """The payload, and what exec runs; both started it in a cgroup below `box`."""
    clean.volt("run", "-d", "--name", "web", "--pids", "33", IMAGE, "sleep", "100000", check=True)
    leader = json.loads(clean.volt("inspect", "web", "-o", "json", check=True).stdout)["leader"]
    below = BOX.format("web").removeprefix("/sys/fs/cgroup") + "/"
    assert clean.sh(f"cat /proc/{leader}/cgroup").strip().removeprefix("0::").startswith(below)
    before = int(read(clean, "web", "pids.current"))
    sleeping = "pgrep -f '^sleep 100000'"
    look = f"volt exec web sleep 100000 & pid=$!; until {sleeping} | sed -n 2p | grep -q .; do sleep 0.2; done"
    show = f"cat {BOX.format('web')}/pids.current; cat $({sleeping} | sed 's|.*|/proc/&/cgroup|'); kill $pid"
    current, *groups = clean.sh(f"{look}; {show}").splitlines()
    assert int(current) > before
    assert len(groups) == 2
    assert all(line.removeprefix("0::").startswith(below) for line in groups), groups


SHARE = """
read_usage() { sed -n 's/^usage_usec //p' "$1/cpu.stat"; }
a=$(read_usage "$1"); s=$(date +%s%N)
until [ $(( $(date +%s%N) - s )) -gt 8000000000 ]; do sleep 0.2; done
b=$(read_usage "$1"); e=$(date +%s%N)
echo $(( (b - a) * 100000 / (e - s) ))
"""


def test_half_a_processor_is_half_a_processor(clean):
    """By the kernel's own count, over eight seconds, to a factor of two; two loops could use two processors."""
    both = f"({SPIN}) & {SPIN}"
    shares = {}
    for name, words in (("half", ["--cpu", "50"]), ("free", [])):
        clean.volt("run", "-d", "--name", name, *words, IMAGE, "sh", "-c", both, check=True)
        shares[name] = int(clean.run("sh", "-euc", SHARE, "sh", BOX.format(name), check=True).stdout)
        assert ("nr_throttled 0\n" in read(clean, name, "cpu.stat") + "\n") is (name == "free")
        clean.volt("rm", "--force", name, check=True)
    assert 25 <= shares["half"] <= 100, shares


def test_no_more_processes_than_the_limit(clean):
    script = "for i in $(seq 100); do sleep 100 >/dev/null 2>&1 & done; echo not reached"
    clean.volt("run", "-d", "--name", "web", "--pids", "20", IMAGE, "sleep", "100000", check=True)
    done = clean.volt("exec", "web", "sh", "-c", script)
    assert done.returncode != 0
    assert "ork" in done.stderr, "sh: Cannot fork"
    assert int(read(clean, "web", "pids.peak" if clean.suite == "trixie" else "pids.current")) <= 20
    if clean.suite == "trixie":  # before 6.12 the count is that of the cgroup below, which went with its exec
        assert "max 0" not in read(clean, "web", "pids.events")
