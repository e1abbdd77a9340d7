"""One question to systemd over D-Bus, on a plain socket: a library for it would cost a third of `volt ps`.

https://dbus.freedesktop.org/doc/dbus-specification.html (message format, authentication EXTERNAL)
"""

from __future__ import annotations

import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from volt_common.errors import VoltError

BUS = "/run/dbus/system_bus_socket"
_SYSTEMD = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
_DBUS = "org.freedesktop.DBus"
_LIMIT = 64 << 20  # bytes of a reply: some 100,000 units
_TIME = 10.0  # seconds until a bus that says nothing counts as dead


class Unit:
    """What ListUnits says of one unit."""

    __slots__ = ("active", "description", "load", "name", "sub")

    def __init__(self, name: str, description: str, load: str, active: str, sub: str) -> None:
        self.name = name
        self.description = description
        self.load = load
        self.active = active
        self.sub = sub


def list_units(patterns: Sequence[str], bus: str = "") -> list[Unit]:
    """The loaded units whose names match. Raises Unreachable, Denied."""
    body = marshal_strings([]) + b""
    body += b"\0" * (-len(body) % 4) + marshal_strings(patterns)
    signature, reply = call(*_SYSTEMD, "org.freedesktop.systemd1.Manager", "ListUnitsByPatterns", "asas", body, bus)
    if signature != "a(ssssssouso)":
        raise _unreachable(f"it answered {signature!r}")
    return parse_units(reply)


def call(
    destination: str, path: str, interface: str, member: str, signature: str, body: bytes, bus: str = ""
) -> tuple[str, bytes]:
    """Signature and body of the reply to one method call. Raises Unreachable, Denied."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_TIME)
        try:
            sock.connect(bus or _address())
            # Everything is sent at once: the bus reads it in order, and three round trips are saved.
            hello = message(1, _DBUS, "/org/freedesktop/DBus", _DBUS, "Hello", "", b"")
            question = message(2, destination, path, interface, member, signature, body)
            identity = str(os.geteuid()).encode().hex().encode()
            sock.sendall(b"\0AUTH EXTERNAL " + identity + b"\r\nBEGIN\r\n" + hello + question)
            with sock.makefile("rb") as stream:
                return _answer(stream)
        except OSError as error:
            raise _unreachable(error.strerror or str(error)) from None


def message(
    serial: int, destination: str, path: str, interface: str, member: str, signature: str, body: bytes
) -> bytes:
    """A METHOD_CALL, little-endian."""
    fields = [(1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", destination)]
    packed = b""
    for code, kind, value in fields:
        packed += b"\0" * (-len(packed) % 8)
        packed += bytes((code, 1)) + kind.encode() + b"\0" + _string(value)
    if signature:
        packed += b"\0" * (-len(packed) % 8)
        packed += b"\x08\x01g\0" + bytes((len(signature),)) + signature.encode() + b"\0"
    head = struct.pack("<cBBBIII", b"l", 1, 0, 1, len(body), serial, len(packed)) + packed
    return head + b"\0" * (-len(head) % 8) + body


def marshal_strings(values: Sequence[str]) -> bytes:
    """An `as`, for a position aligned to 4."""
    packed = b""
    for value in values:
        packed += b"\0" * (-len(packed) % 4) + _string(value)
    return struct.pack("<I", len(packed)) + packed


def parse_units(body: bytes) -> list[Unit]:
    """An `a(ssssssouso)`: name, description, load, active, sub, followed, path, job id, job type, job path."""
    end = struct.unpack_from("<I", body)[0] + 8
    at, units = 8, []
    while at < end:
        at += -at % 8
        texts = []
        for _ in range(7):
            text, at = _read(body, at)
            texts.append(text)
        at += -at % 4 + 4
        for _ in range(2):
            _, at = _read(body, at)
        units.append(Unit(*texts[:5]))
    return units


def parse_header(head: bytes, fields: bytes) -> tuple[int, int, str, str]:
    """Type, serial replied to, signature and error name of a message. Only the field types that the bus sends."""
    reply, signature, error, at = 0, "", "", 0
    while at < len(fields):
        at += -at % 8
        code, kind = fields[at], chr(fields[at + 2])
        at += 4
        if kind in "so":
            text, at = _read(fields, at)
            if code == 4:
                error = text
        elif kind == "g":
            length = fields[at]
            if code == 8:
                signature = fields[at + 1 : at + 1 + length].decode()
            at += length + 2
        elif kind == "u":
            at += -at % 4
            if code == 5:
                reply = struct.unpack_from("<I", fields, at)[0]
            at += 4
        else:
            raise _unreachable(f"it sent a header field of type {kind!r}")
    return head[1], reply, signature, error


def _answer(stream: BinaryIO) -> tuple[str, bytes]:
    line = stream.readline(4096)
    if not line.startswith(b"OK "):
        raise _unreachable("it refuses to let this user in")
    while True:
        head = _exactly(stream.read(16), 16)
        if head[:1] != b"l":
            raise _unreachable("it speaks another byte order")
        length, _, size = struct.unpack_from("<III", head, 4)
        if length + size > _LIMIT:
            raise _unreachable("its answer is too long")
        fields = _exactly(stream.read(size + (-size % 8)), size + (-size % 8))[:size]
        body = _exactly(stream.read(length), length)
        kind, reply, signature, error = parse_header(head, fields)
        if reply != 2:  # the answer to Hello, and the NameAcquired signal
            continue
        if kind == 3:
            raise _refused(error, _read(body, 0)[0] if signature.startswith("s") else error)
        return signature, body


def _exactly(data: bytes | None, length: int) -> bytes:
    if data is None or len(data) != length:
        raise _unreachable("it hung up")
    return data


def _string(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def _read(data: bytes, at: int) -> tuple[str, int]:
    at += -at % 4
    length = struct.unpack_from("<I", data, at)[0]
    return data[at + 4 : at + 4 + length].decode(errors="replace"), at + 5 + length


def _address() -> str:
    """The socket of the system bus; the variable is for a bus at another place, as in a test."""
    for part in os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", "").split(";"):
        if part.startswith("unix:path="):
            return part.removeprefix("unix:path=").split(",")[0]
    return BUS


def _unreachable(why: str) -> VoltError:
    from volt_common.errors import Unreachable

    hint = "Is systemd running here, and the system bus? `systemctl status dbus.socket`"
    return Unreachable(daemon="systemd", message=f"the system bus: {why}", hint=hint)


def _refused(name: str, text: str) -> VoltError:
    from volt_common.errors import Denied, Unreachable

    if name.endswith((".AccessDenied", ".InteractiveAuthorizationRequired")):
        return Denied(text)
    return Unreachable(daemon="systemd", message=text or name)
