"""Runs that somebody watches: what their attendant does, and what becomes of them when something is killed."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from system.conftest import IMAGE, LAB

# Reads the filters of the init of a machine that systemd-nspawn runs by itself, with the options of a container.
PLAIN = """
import json, os, subprocess, sys, time
sys.path.insert(0, "/usr/lib/volt/launch")
from volt_ctr_launch import confinement, trace

running = json.load(open("/run/volt-launch/web/running.json"))
options = [word for word in running["command"] if word.startswith(("--capability=", "--drop-capability="))]
os.makedirs("/root/plain/usr", exist_ok=True)
nspawn = subprocess.Popen(
    ["systemd-nspawn", "-q", "--register=no", "--keep-unit", "--directory=/root/plain", "--console=pipe",
     "--machine=plain", "--bind-ro=/usr/bin/catatonit:/run/init", *options, "--", "/run/init", "-P"],
    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
)
def leader():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if open(f"/proc/{pid}/cmdline").read().split("\\0")[:2] == ["/run/init", "-P"]:
                return int(pid)
        except OSError:
            pass
while not (pid := leader()):
    time.sleep(0.01)
with trace.stopped_at_payload(pid, "/usr/bin/systemd-nspawn", lambda: None):
    plain = [code.hex() for code in confinement.filters_of(pid)]
os.kill(pid, 9)
nspawn.wait()
ours = json.load(open("/run/volt-launch/web/confinement.json"))["filters"]
print(json.dumps([len(plain), plain == ours]))
"""


@pytest.mark.parametrize("options", [(), ("--mode", "hybrid-native")])
def test_the_filters_are_those_that_nspawn_gives_by_itself_byte_for_byte(clean, options):
    payload = () if options else ("sleep", "1000")
    clean.volt("run", "-d", "--name", "web", *options, IMAGE, *payload, check=True, timeout=90)
    count, equal = json.loads(clean.python(PLAIN, check=True).stdout)
    assert count > 0
    assert equal
    inside = clean.volt("exec", "web", "grep", "Seccomp", "/proc/1/status").stdout.split()
    assert inside == ["Seccomp:", "2", "Seccomp_filters:", str(count)]


def test_a_slow_reader_gets_every_byte_and_both_streams(clean):
    script = (
        f"volt run --rm {IMAGE} sh -c 'head -c 3000000 /dev/zero; echo end >&2' 2>/root/errors | (sleep 1; wc -c);"
        "cat /root/errors"
    )
    assert clean.sh(script).split() == ["3000000", "end"]


def test_a_reader_that_does_not_read_holds_back_only_its_own_output(clean):
    payload = "head -c 120000 /dev/zero; exit 5"  # more than its pipe takes, and less than with the payload's
    clean.sh(
        f"systemd-run --quiet --unit=reader sh -c \"volt run --name web {IMAGE} sh -c '{payload}' | exec sleep 1000\""
    )
    try:
        clean.wait("test -e /var/lib/volt/roots/web/state.json")
        assert clean.volt("wait", "web").stdout == "5\n"
        assert json.loads(clean.volt("inspect", "web", "-o", "json").stdout)["state"] == "stopped"
        assert "web" not in clean.volt("ps", "-o", "name").stdout
    finally:
        clean.run("systemctl", "stop", "reader")
    assert clean.volt("rm", "web").returncode == 0
    _gone(clean, "web")


def test_what_goes_in_comes_out_unchanged(clean):
    clean.sh("head -c 48M /dev/urandom >/root/big; sha256sum </root/big >/root/sum")
    clean.sh(f"volt run --rm -i {IMAGE} cat </root/big | sha256sum | cmp - /root/sum; rm /root/big", timeout=100)


def test_the_same_name_can_be_used_at_once_again(clean):
    for number in range(15):
        done = clean.volt("run", "--rm", "--name", "again", IMAGE, "sh", "-c", f"exit {number}")
        assert (done.returncode, done.stderr) == (number, "")
    clean.wait("! volt cas refs -o name | grep -q ^containers/")
    for number in range(5):
        assert clean.volt("run", "--name", "again", IMAGE, "sh", "-c", f"exit {number}").returncode == number
        state = json.loads(clean.volt("inspect", "again", "-o", "json").stdout)
        assert (state["state"], state["exit"]["code"]) == ("stopped", number)
        assert clean.volt("start", "again").returncode == 0  # its unit may still be tidied up
        clean.volt("wait", "again")
        assert clean.volt("rm", "again").returncode == 0


def _beside(machine, *words):
    return subprocess.Popen(
        [LAB, "run", "--name", machine.name, "--", "volt", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _gone(machine, name):
    machine.wait(f"! ls -A /var/lib/volt/containers /var/lib/volt/roots /run/volt-launch | grep -qw {name}")
    machine.wait(f"! systemctl list-units --all --plain --no-legend | grep -q volt-container@{name}")


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_ctrd_restarted_meanwhile_costs_nothing(clean, signal):
    with _beside(clean, "run", "--rm", "--name", "web", IMAGE, "sh", "-c", "echo up; sleep 2; exit 7") as command:
        assert command.stdout.readline() == "up\n"
        clean.sh(f"systemctl kill -s {signal} volt-ctrd")
        assert command.wait(30) == 7, command.stderr.read()
    _gone(clean, "web")


def test_a_killed_attendant_ends_the_run_and_leaves_nothing(clean):
    with _beside(clean, "run", "--rm", "--name", "web", IMAGE, "sh", "-c", "echo up; sleep 1000") as command:
        assert command.stdout.readline() == "up\n"
        clean.sh("kill -KILL $(systemctl show -P MainPID volt-container@web)")
        assert command.wait(30) == 137, command.stderr.read()
    _gone(clean, "web")
    assert clean.sh("pgrep -fc '^sleep 1000' || true").strip() == "0"


def test_a_run_whose_caller_is_killed_goes_on_to_its_end(clean):
    with _beside(clean, "run", "--rm", "--name", "web", IMAGE, "sh", "-c", "echo up; sleep 2; echo late") as command:
        assert command.stdout.readline() == "up\n"
        clean.sh("pkill -KILL -f 'volt run --r[m] --name web'")
        command.wait(30)
    assert json.loads(clean.volt("inspect", "web", "-o", "json").stdout)["state"] == "running"
    _gone(clean, "web")
    assert "late" in clean.sh("journalctl -o cat VOLT_WORKLOAD=web --since=-30s")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("nosuch", "true"), 3),
        ((IMAGE, "nosuch"), 127),
        ((IMAGE, "/etc/passwd"), 126),
        (("--user", "nobody-there", IMAGE, "true"), 126),
        (("--network", "host", IMAGE, "true"), 5),
    ],
)
def test_what_cannot_be_run_leaves_nothing(clean, words, code):
    done = clean.volt("run", "--name", "web", *words)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1
    assert clean.volt("ps", "-a", "-o", "name").stdout == ""
    _gone(clean, "web")


def test_an_interrupt_while_it_is_being_made_leaves_nothing(clean):
    for milliseconds in range(0, 120, 12):
        with _beside(clean, "run", "--name", "web", IMAGE, "sleep", "1000") as command:
            time.sleep(0.06 + milliseconds / 1000)
            clean.run("pkill", "-INT", "-f", "^/usr/bin/python.*volt run --name web")
            clean.run("sh", "-c", "sleep 0.3; volt kill -s KILL web")  # where it ran already
            command.wait(30)
        clean.volt("rm", "--force", "web")
        _gone(clean, "web")


def test_no_user_of_the_host_sees_a_variable(clean):
    clean.sh("id stranger >/dev/null 2>&1 || useradd stranger")
    clean.volt("run", "-d", "--name", "web", "-e", "TOKEN=hunter2", IMAGE, "sleep", "1000", check=True)
    look = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ /var/lib/volt/roots/web/* /run/volt-launch/web/* 2>/dev/null"
    assert "hunter2" not in clean.run("sh", "-c", look, user="stranger").stdout
    assert clean.volt("exec", "web", "printenv", "TOKEN").stdout == "hunter2\n"
