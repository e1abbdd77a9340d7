"""volt-container@NAME, ExecStop=: the container's own stop signal and its own patience, then SIGKILL."""

from __future__ import annotations

import contextlib
import select
import signal
import time

from volt_ctr_launch import cgroup, confinement, files
from volt_ctr_launch.confinement import Confinement
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.paths import Layout

_CARE_SECONDS = 1.0


def run(layout: Layout, name: str) -> None:
    """Returns when the payload has ended."""
    running = files.read_own(f"{layout.launch(name)}/running.json")
    try:
        found = confinement.load(f"{layout.launch(name)}/confinement.json")
        leader = confinement.open_leader(found)
    except Refusal:
        return
    cgroup.freeze(f"{found.cgroup}/payload", False)  # what is frozen can't answer
    number, seconds = running.get("stop_signal"), running.get("stop_seconds")
    watch = select.poll()
    watch.register(leader, select.POLLIN)
    deliver(layout, found, name, leader, number if isinstance(number, int) else signal.SIGTERM)
    if not watch.poll(1000 * (seconds if isinstance(seconds, int) else 10)):
        deliver(layout, found, name, leader, signal.SIGKILL)
        watch.poll(10_000)


def deliver(layout: Layout, found: Confinement, name: str, leader: int, number: int) -> None:
    """Send a signal to the payload's init, whose pidfd is `leader`. One that it can't catch is written down first,
    for `ended` to tell."""
    if number == signal.SIGKILL:
        files.write_bytes(f"{layout.launch(name)}/killed", b"%d" % number, durable=False)
    with contextlib.suppress(OSError):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            _await_care(found.leader, number)
        signal.pidfd_send_signal(leader, number)


def _await_care(pid: int, number: int) -> None:
    """Wait, but not for long, till a process catches or blocks a signal: what comes before the first process of a
    namespace does either is lost (pid_namespaces(7)), and a stop may follow a start at once."""
    end = time.monotonic() + _CARE_SECONDS
    while time.monotonic() < end:
        status = confinement.status(pid)
        if (int(status["SigBlk"], 16) | int(status["SigCgt"], 16)) >> (number - 1) & 1:
            return
        time.sleep(0.005)
