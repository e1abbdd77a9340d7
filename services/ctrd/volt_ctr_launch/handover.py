"""Fetching a caller's descriptors from volt-ctrd: /run/volt/ctr-handover, which only root can reach."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import socket
import stat

from volt_ctr_launch.errors import Refusal, invalid
from volt_ctr_launch.files import parse_json

_MAX_PACKET = 1 << 20
_ACCESS = 3  # O_ACCMODE
_O_PATH = 0o10000000


class Handover:
    """The connection for one run or exec. It stays open as long as the command lives."""

    def __init__(self, path: str, unit: str, name: str, id: str, seconds: float = 30) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self.socket.settimeout(seconds)
            self.socket.connect(path)
            self.socket.send(json.dumps({"unit": unit, "name": name, "id": id}).encode())
            data, self.descriptors = _receive(self.socket)
        except OSError as error:
            raise Refusal("UNREACHABLE", f"volt-ctrd does not hand over the streams: {error}") from None
        answer = parse_json(data, "the handover")
        if not isinstance(answer, dict):
            raise invalid("the handover is not a table")
        if answer.pop("ok", None) is not True:
            raise Refusal("CONFLICT", f"nobody waits for this command: {str(answer.get('message', ''))[:200]}")
        self.answer: dict[str, object] = answer

    def report(self, **values: object) -> None:
        """Tell volt-ctrd; that it may have gone changes nothing."""
        with contextlib.suppress(OSError):
            self.socket.settimeout(5)
            self.socket.send(json.dumps(values).encode())

    def answer_within(self, seconds: float) -> object:
        """What volt-ctrd says to a report; None if nothing that makes sense."""
        with contextlib.suppress(OSError, Refusal):
            self.socket.settimeout(seconds)
            return parse_json(self.socket.recv(_MAX_PACKET), "an answer")
        return None


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    data, rights, flags, _ = sock.recvmsg(_MAX_PACKET, socket.CMSG_SPACE(4 * 253), socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, payload in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(payload[: len(payload) // 4 * 4])
    if not data or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for descriptor in found:
            os.close(descriptor)
        raise invalid("the handover was cut off")
    return data, list(found)


def check_stream(descriptor: int, writes: bool) -> None:
    """Refuse what is no stream: a directory, an O_PATH descriptor, one that is open the wrong way."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if flags & _O_PATH or (flags & _ACCESS) == (os.O_RDONLY if writes else os.O_WRONLY):
        raise invalid("a stream is not open for what it is to be used for")
    if stat.S_ISDIR(os.fstat(descriptor).st_mode) or stat.S_ISBLK(os.fstat(descriptor).st_mode):
        raise invalid("a stream is a directory or a disk")


def check_packet_socket(descriptor: int) -> socket.socket:
    """The caller's end of a terminal: one end of a SOCK_SEQPACKET pair. Takes the descriptor over."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise invalid("a terminal's descriptor is one end of a SOCK_SEQPACKET pair")
    sock = socket.socket(fileno=descriptor)
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
        sock.close()
        raise invalid("a terminal's descriptor is one end of a SOCK_SEQPACKET pair")
    sock.setblocking(False)
    return sock
