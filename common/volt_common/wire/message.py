"""Header and body of a message, and the packet that holds both on a descriptor socket.

A message is two parts, each plain msgpack. The header is an array `[version, id, deadline_ms, kind]`:
`id` is 16 random bytes, the caller's; `deadline_ms` is counted from arrival, 0 for none; replies carry
the id of their call and a deadline of 0. The body is a map. On a ZeroMQ socket header and body are two
frames; on a descriptor socket (SOCK_SEQPACKET) one packet holds the header's bytes and then the body's.
"""

from __future__ import annotations

import enum
import os
from typing import Final

import msgspec

from volt_common.errors import Internal, Malformed, VoltError

VERSION: Final = 1
MAX_MESSAGE: Final = 1 << 20  # bytes of one frame on a ZeroMQ socket
MAX_PACKET: Final = 128 << 10  # bytes of one packet on a descriptor socket
MAX_DESCRIPTORS: Final = 253  # SCM_MAX_FD of the kernel
MAX_DEADLINE_MS: Final = 7 * 24 * 3600 * 1000
ID_BYTES: Final = 16
MAX_HEADER: Final = 64


class Kind(enum.IntEnum):
    """What a message is. Calls go up, replies come down; a call ends with one DONE or ERROR."""

    CALL = 0
    CANCEL = 1  # stop the call of this id; its ERROR still comes
    MORE = 2  # a further packet of a call that takes several (descriptor sockets only)
    ITEM = 16
    PROGRESS = 17
    DONE = 18
    ERROR = 19


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: int
    id: bytes
    deadline_ms: int
    kind: int


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """How far a long call is: `done` of `total` (0: not known) units, and what it does now."""

    done: int
    total: int
    text: str


class Problem(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """The body of an ERROR reply: `volt_common.errors` has the tree."""

    code: str
    message: str
    hint: str = ""
    fields: dict[str, str | int] = {}


_encoder = msgspec.msgpack.Encoder()
_header = msgspec.msgpack.Decoder(Header)


def new_id() -> bytes:
    return os.urandom(ID_BYTES)


def encode(body: object) -> bytes:
    """A body: any msgspec struct."""
    return _encoder.encode(body)


def encode_header(kind: Kind, id: bytes, deadline_ms: int = 0) -> bytes:
    return _encoder.encode(Header(VERSION, id, deadline_ms, kind))


def decode_header(data: bytes | memoryview) -> Header:
    """Raises Malformed for anything but a header of this version."""
    if len(data) > MAX_HEADER:
        raise Malformed("the header is too long")
    try:
        header = _header.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(f"the header: {error}") from None
    if header.version != VERSION:
        raise Malformed(f"protocol version {header.version}, this side speaks {VERSION}")
    if len(header.id) != ID_BYTES:
        raise Malformed(f"an id has {ID_BYTES} bytes, not {len(header.id)}")
    if not 0 <= header.deadline_ms <= MAX_DEADLINE_MS:
        raise Malformed(f"a deadline lies between 0 and {MAX_DEADLINE_MS} ms")
    return header


def problem_of(error: VoltError) -> Problem:
    return Problem(error.code, error.message, error.hint, error.fields)


def internal(daemon: str, id: bytes) -> Problem:
    """What a caller learns of a fault of ours: no details, the request's id to look for in the log."""
    return problem_of(Internal(daemon=daemon, id=id.hex()))


def join_packet(header: bytes, body: bytes) -> bytes:
    """Header and body as one packet of a descriptor socket. Raises Malformed if it is too large."""
    if len(header) + len(body) > MAX_PACKET:
        raise Malformed(f"a packet has at most {MAX_PACKET} bytes")
    return header + body


def split_packet(packet: bytes) -> tuple[Header, memoryview]:
    """The header and the body's bytes. A header is short and its length is read off its own bytes."""
    end = _header_length(packet)
    return decode_header(packet[:end]), memoryview(packet)[end:]


def _header_length(packet: bytes) -> int:
    """The length of the msgpack array at the start: fixarray(4), uint, bin8(16), uint, uint."""
    try:
        if packet[0] != 0x94:
            raise Malformed("a packet starts with its header, an array of 4")
        at = 1 + _uint_length(packet[1])
        if packet[at] != 0xC4 or packet[at + 1] != ID_BYTES:
            raise Malformed(f"an id is a byte string of {ID_BYTES} bytes")
        at += 2 + ID_BYTES
        at += _uint_length(packet[at])
        return at + _uint_length(packet[at])
    except IndexError:
        raise Malformed("the packet ends inside its header") from None


def _uint_length(first: int) -> int:
    if first < 0x80:
        return 1
    try:
        return {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}[first]
    except KeyError:
        raise Malformed("the header holds something other than an unsigned number") from None
