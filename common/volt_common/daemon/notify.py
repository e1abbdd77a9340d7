"""What systemd gives a service and hears from it: sd_listen_fds(3), sd_notify(3), the watchdog."""

from __future__ import annotations

import contextlib
import os
import socket


def activated() -> dict[str, int]:
    """The listening descriptors systemd passed, by name. The variables are taken out of the environment."""
    count = int(os.environ.pop("LISTEN_FDS", "0") or 0)
    pid = os.environ.pop("LISTEN_PID", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()):
        return {}
    found = {}
    for index in range(count):
        fd = 3 + index
        os.set_inheritable(fd, False)
        found[names[index] if index < len(names) else f"fd{fd}"] = fd
    return found


def notify(state: str) -> None:
    """Tell systemd `state`, e.g. READY=1; nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),  # whoever asked to be told has gone; that is no reason to fail
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        sock.connect(address)
        sock.sendall(state.encode())


def watchdog_seconds() -> float | None:
    """How often to ping: half of what systemd allows; None if it does not watch."""
    usec = os.environ.get("WATCHDOG_USEC")
    if not usec or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 2e6
