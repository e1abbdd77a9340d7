"""Readiness: a process between nspawn and systemd that records the payload's first process, then says READY.

So whoever sees the unit active finds running.json complete. It ends when it has said so.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable

from volt_ctr_launch import confinement, files, state, trace
from volt_ctr_launch.config import Config
from volt_ctr_launch.paths import Layout
from volt_ctr_launch.record import Record

_LARGEST = 65536


def start_socket(layout: Layout, name: str, *, own_network: bool) -> socket.socket:
    """The socket that nspawn is to notify. It holds one message, where the network namespace is the container's own:
    in the host's, a payload of a millisecond may be over before it was seen to begin."""
    if own_network:
        _queue_length(0)
    path = f"{layout.launch(name)}/notify"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(before)
    if own_network:
        _queue_length(512)  # for the container: what systemd sets on a host
    return sock


def _queue_length(messages: int) -> None:
    """How many messages later sockets of this network namespace hold beyond one (unix(7))."""
    with open("/proc/sys/net/unix/max_dgram_qlen", "w", encoding="ascii") as file:
        file.write(str(messages))


class Start(Record):
    """What a relay knows of the start that it serves. `about` is what running.json says besides."""

    layout: Layout
    config: Config
    nspawn: int
    base: int
    cgroup: str
    filters: list[bytes] | None
    about: dict[str, object]


def relay(start: Start, sock: socket.socket) -> None:
    """Serve one start, till it is ready or nspawn has gone.

    A payload of its own is ready when it has executed, and is held till systemd knows that: it may be over in a
    millisecond, and a service that ends before it was ready has failed to start. One that boots says so itself.
    """
    nspawn = os.pidfd_open(start.nspawn)
    begun = False
    while _more(sock, nspawn):
        message = _Message(sock)
        for line in message.lines:
            if line.startswith("X_NSPAWN_LEADER_PID="):
                _begun(start, int(line.partition("=")[2]), nspawn, message.take)
                begun = True
        message.take()
        if begun and "READY=1" in message.lines:
            if start.config.boots:
                _ready(start)
            return


def _more(sock: socket.socket, nspawn: int) -> bool:
    """Whether nspawn says something more; False when it has ended."""
    watch = select.poll()
    watch.register(sock, select.POLLIN)
    watch.register(nspawn, select.POLLIN)
    return sock.fileno() in dict(watch.poll())


class _Message:
    """The next of nspawn's messages, left where it is: till it is taken, nspawn waits with what it says next, which
    is READY=1, and with its end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock: socket.socket | None = sock
        self.lines = sock.recv(_LARGEST, socket.MSG_PEEK).decode("utf-8", "replace").splitlines()

    def take(self) -> None:
        """Let nspawn go on; a second time nothing happens."""
        if self._sock is not None:
            self._sock.recv(_LARGEST)
            self._sock = None


def _begun(start: Start, leader: int, nspawn: int, take: Callable[[], None]) -> None:
    """Record a leader. `take` lets nspawn go on."""
    name = start.config.name
    running: dict[str, object] = {"version": 1, "id": start.config.id, "leader": leader, "cgroup": start.cgroup}
    running |= start.about
    try:
        with trace.stopped_at_payload(leader, start.layout.nspawn, take):
            _look(start, leader, running)
            files.write_json(f"{start.layout.launch(name)}/running.json", running, durable=False)
            if not start.config.boots:
                _ready(start)
    except ProcessLookupError:
        # The payload is over already; then it is nspawn that must not end first.
        signal.pidfd_send_signal(nspawn, signal.SIGSTOP)
        try:
            files.write_json(f"{start.layout.launch(name)}/running.json", running, durable=False)
            if not start.config.boots:
                _ready(start)
        finally:
            signal.pidfd_send_signal(nspawn, signal.SIGCONT)


def _look(start: Start, leader: int, running: dict[str, object]) -> None:
    sandbox = running["sandbox"]
    assert isinstance(sandbox, dict)
    config = start.config
    given = ({}, "") if config.boots else (config.env, config.workdir)
    running["mounts"] = mounts(leader)
    try:
        found = confinement.capture(leader, start.base, start.cgroup, *given, start.filters)
    except OSError as error:
        os.write(2, f"{config.name}: no command can be run in it, its confinement can't be read: {error}\n".encode())
        return
    confinement.save(f"{start.layout.launch(config.name)}/confinement.json", found)
    running["sandbox"] = sandbox | confinement.describe(found)


def _ready(start: Start) -> None:
    state.became_ready(start.layout, start.config.name)
    _tell(os.environ.get("NOTIFY_SOCKET", ""), "READY=1\nSTATUS=Running")


def mounts(pid: int) -> list[str]:
    """What a process sees mounted: place, type and options, of proc(5) mountinfo."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="replace") as file:
        rows = [line.split() for line in file]
    return [f"{row[4]} {row[row.index('-') + 1]} {row[5]}" for row in rows]


def _tell(upstream: str, message: str) -> None:
    """sd_notify(3), and sd_notify_barrier(3): systemd must find this process alive to know whose message it is."""
    if not upstream:
        return
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect("\0" + upstream[1:] if upstream.startswith("@") else upstream)
        sock.send(message.encode())
        socket.send_fds(sock, [b"BARRIER=1"], [writer])
    os.close(writer)
    watch = select.poll()
    watch.register(reader, 0)
    watch.poll(5000)
