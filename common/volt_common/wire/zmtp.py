"""The client's side of ZMTP 3.0 with the NULL mechanism, sans-I/O: a DEALER without libzmq.

The command speaks it over a plain socket: that spares loading libzmq and a thread for one round trip, and
the end of a connection is seen at once, which resending after a daemon's restart rests on.
Source: rfc.zeromq.org/spec/23.
"""

from __future__ import annotations

from typing import Final

from volt_common.errors import Malformed
from volt_common.wire.message import MAX_MESSAGE

_MORE: Final = 1
_LONG: Final = 2
_COMMAND: Final = 4
_GREETING_BYTES: Final = 64
GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value


_READY_BODY: Final = b"\x05READY" + _property(b"Socket-Type", b"DEALER") + _property(b"Identity", b"")
HELLO: Final = GREETING + bytes([_COMMAND, len(_READY_BODY)]) + _READY_BODY
"""What a client sends first, at once. Messages wait for the server's READY: libzmq takes a message that comes
before it has sent its own READY for a broken handshake, and ends the connection."""


def frame(data: bytes, more: bool = False) -> bytes:
    flag = _MORE if more else 0
    if len(data) < 256:
        return bytes([flag, len(data)]) + data
    return bytes([flag | _LONG]) + len(data).to_bytes(8, "big") + data


def message(parts: tuple[bytes, ...]) -> bytes:
    """One message of several frames."""
    return b"".join(frame(part, index < len(parts) - 1) for index, part in enumerate(parts))


class Receiver:
    """Bytes in, messages out. Raises Malformed for what is no ZMTP 3 or is too large."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._greeted = False
        self._parts: list[bytes] = []
        self.ready = False

    def feed(self, data: bytes) -> list[list[bytes]]:
        self._buffer += data
        buffer = self._buffer
        at = 0
        if not self._greeted:
            if len(buffer) < _GREETING_BYTES:
                return []
            if buffer[0] != 0xFF or buffer[9] != 0x7F or buffer[10] < 3:
                raise Malformed("the other side does not speak ZMTP 3")
            self._greeted = True
            at = _GREETING_BYTES
        out: list[list[bytes]] = []
        while len(buffer) - at >= 2:
            flags = buffer[at]
            if flags & _LONG:
                if len(buffer) - at < 9:
                    break
                size, start = int.from_bytes(buffer[at + 1 : at + 9], "big"), at + 9
            else:
                size, start = buffer[at + 1], at + 2
            if size > 2 * MAX_MESSAGE:
                raise Malformed(f"a frame of {size} bytes")
            if len(buffer) - start < size:
                break
            body = bytes(buffer[start : start + size])
            at = start + size
            if flags & _COMMAND:
                self._command(body)
                continue
            self._parts.append(body)
            if not flags & _MORE:
                out.append(self._parts)
                self._parts = []
            elif len(self._parts) > 8:
                raise Malformed("too many frames in one message")
        del buffer[:at]
        return out

    def _command(self, body: bytes) -> None:
        if body.startswith(b"\x05READY"):
            self.ready = True
        elif body.startswith(b"\x05ERROR"):
            raise Malformed(f"the connection was refused: {body[7:].decode('utf-8', 'replace')}")
