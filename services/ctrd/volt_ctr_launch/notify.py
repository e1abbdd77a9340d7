"""Readiness: a process between nspawn and systemd that records the payload's first process, then says READY.

So whoever sees the unit active finds running.json complete. It ends when it has said so.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket

from volt_ctr_launch import confinement, files, state
from volt_ctr_launch.config import Config
from volt_ctr_launch.paths import Layout


def start_socket(layout: Layout, name: str) -> socket.socket:
    """The socket that nspawn is to notify."""
    path = f"{layout.launch(name)}/notify"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(before)
    return sock


def relay(
    layout: Layout, config: Config, sock: socket.socket, nspawn: int, base: int, cgroup: str, about: dict[str, object]
) -> None:
    """Serve one start. `about` is what running.json says besides. When nspawn has gone there is nothing to wait
    for."""
    gone = os.pidfd_open(nspawn)
    watch = select.poll()
    watch.register(sock, select.POLLIN)
    watch.register(gone, select.POLLIN)
    while True:
        events = dict(watch.poll())
        if sock.fileno() not in events:
            return
        lines = sock.recv(65536).decode("utf-8", "replace").splitlines()
        for line in lines:
            if line.startswith("X_NSPAWN_LEADER_PID="):
                _record(layout, config, int(line.partition("=")[2]), base, cgroup, about)
        if "READY=1" in lines:
            state.became_ready(layout, config.name)
            _tell(os.environ.get("NOTIFY_SOCKET", ""), f"READY=1\nMAINPID={nspawn}\nSTATUS=Running")
            return


def _record(layout: Layout, config: Config, leader: int, base: int, cgroup: str, about: dict[str, object]) -> None:
    running: dict[str, object] = {"version": 1, "id": config.id, "leader": leader, "cgroup": cgroup, **about}
    sandbox = running["sandbox"]
    assert isinstance(sandbox, dict)
    given = ({}, "") if config.boots else (config.env, config.workdir)
    try:
        found = confinement.capture(leader, layout.nspawn, base, cgroup, *given)
        confinement.save(f"{layout.launch(config.name)}/confinement.json", found)
        running["sandbox"] = sandbox | confinement.describe(found)
        running["mounts"] = mounts(leader)
    except ProcessLookupError:
        pass  # it was over before it could be looked at
    except OSError as error:
        os.write(2, f"{config.name}: no command can be run in it: its confinement can't be read: {error}\n".encode())
    files.write_json(f"{layout.launch(config.name)}/running.json", running, durable=False)


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
