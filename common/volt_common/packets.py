"""One packet with its descriptors over a SOCK_SEQPACKET socket, for both sides and both kinds of client."""

from __future__ import annotations

import array
import contextlib
import os
import socket
from typing import Final

from volt_common.wire import MAX_DESCRIPTORS, MAX_PACKET

_ANCILLARY: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)


def send(sock: socket.socket, packet: bytes, fds: list[int]) -> None:
    """Send it whole or not at all; the descriptors stay the caller's. Raises OSError."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([packet], rights)


def receive(sock: socket.socket, limit: int = MAX_PACKET) -> tuple[bytes, list[int], bool]:
    """The next packet, its descriptors, now the caller's to close, and whether both are whole: at most
    `limit` bytes and MAX_DESCRIPTORS. Raises OSError."""
    packet, ancillary, flags, _ = sock.recvmsg(limit, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return packet, list(fds), not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)


def close_all(fds: list[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
