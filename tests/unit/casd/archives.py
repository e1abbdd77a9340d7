"""Archives made byte by byte, and what the reader makes of them."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from blake3 import blake3

from volt_casd.tree import Entry
from volt_common.errors import Invalid

T = TypeVar("T")
END = bytes(1024)


def block(
    name: bytes = b"f",
    kind: bytes = b"0",
    size: int | bytes = 0,
    *,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    major: int | bytes = 0,
    minor: int | bytes = 0,
    prefix: bytes = b"",
    checksum: int | None = None,
) -> bytes:
    """One header; numbers as octal, or as the bytes given."""

    def field(value: int | bytes, width: int) -> bytes:
        return value if isinstance(value, bytes) else b"%0*o\0" % (width - 1, value)

    parts = [name.ljust(100, b"\0"), field(mode, 8), field(uid, 8), field(gid, 8), field(size, 12), field(mtime, 12)]
    rest = [kind, link.ljust(100, b"\0"), magic, bytes(64), field(major, 8), field(minor, 8), prefix.ljust(167, b"\0")]
    head, tail = b"".join(parts), b"".join(rest)
    total = sum(head) + sum(tail) + 256 if checksum is None else checksum
    made = head + b"%06o\0 " % total + tail
    assert len(made) == 512, len(made)
    return made


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def file(name: bytes, data: bytes = b"", **fields: int | bytes) -> bytes:
    return block(name, size=len(data), **fields) + padded(data)  # type: ignore[arg-type]


def directory(name: bytes, **fields: int | bytes) -> bytes:
    return block(name, b"5", **({"mode": 0o755} | fields))  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes) -> bytes:
    return block(name, b"2", link=target)


def hardlink(name: bytes, target: bytes) -> bytes:
    return block(name, b"1", link=target)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header."""
    text = b""
    for key, value in records:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + 1
        while len(b"%d" % length) + len(body) != length:
            length = len(b"%d" % length) + len(body)
        text += b"%d" % length + body
    return block(b"PaxHeaders/x", kind, len(text)) + padded(text)


def stream(data: bytes) -> io.BytesIO:
    """BytesIO reads as an archive's source does."""
    return io.BytesIO(data)


class Kept:
    """A store in memory: contents by digest, with the holes filled."""

    def __init__(self) -> None:
        self.contents: dict[bytes, bytes] = {}
        self.extents: list[tuple[tuple[int, int], ...] | None] = []

    def __call__(self, chunks: Iterator[memoryview], size: int, extents: tuple[tuple[int, int], ...] | None) -> bytes:
        data = b"".join(bytes(chunk) for chunk in chunks)
        if extents is not None:
            whole, at = bytearray(size), 0
            for offset, length in extents:
                whole[offset : offset + length] = data[at : at + length]
                at += length
            assert at == len(data)
            data = bytes(whole)
        assert len(data) == size
        self.extents.append(extents)
        digest = blake3(data).digest()
        self.contents[digest] = data
        return digest


def by_path(entries: list[Entry]) -> dict[bytes, Entry]:
    assert [entry.path for entry in entries] == sorted(entry.path for entry in entries)
    return {entry.path: entry for entry in entries}


def refusal(action: Callable[[], object]) -> str:
    """The message of the Invalid that `action` raises."""
    try:
        action()
    except Invalid as error:
        return error.message
    raise AssertionError("it was taken")


def through_pipe(data: bytes, use: Callable[[int], T]) -> T:
    """What `use` makes of a pipe that these bytes are written to, a few at a time."""
    reading, writing = os.pipe()

    def write() -> None:
        try:
            for at in range(0, len(data), 4093):
                os.write(writing, data[at : at + 4093])
        except BrokenPipeError:
            pass
        finally:
            os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return use(reading)
    finally:
        os.close(reading)
        writer.join()
