"""Plain, gzip and zstd byte streams from a descriptor, read strictly forward, with their limits.

The descriptor may be a pipe, blocking or not; it is never sought, and never read past what is asked for by
more than one buffer. A stream that is cut short, damaged, or larger than its limits raises Invalid.
"""

from __future__ import annotations

import os
import select
import zlib
from typing import Final, Protocol

import zstandard

from volt_casd import zstd_frames
from volt_common.api.cas import Compression
from volt_common.errors import Interrupted, Invalid

WINDOW_LIMIT: Final = 128 << 20  # of zstd, in bytes: what `zstd --long=27` needs
RATIO_LIMIT: Final = 1000  # deflate cannot do better than 1032; real data stays far below
RATIO_GRACE: Final = 64 << 20  # bytes out that are free of the ratio: a few zeros compress without end
_INPUT: Final = 128 << 10  # compressed bytes read at a time
_PEEK: Final = 16
_GZIP_MAGIC: Final = b"\x1f\x8b"
_FOREIGN: Final = (
    (b"\xfd7zXZ\0", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x1f\x9d", "compress"),
    (b"\x89LZO\0", "lzop"),
)


class _Source(Protocol):
    def readinto(self, buffer: memoryview) -> int: ...


class Stream:
    """Bytes in order. `bytes_in` were read from the descriptor, `bytes_out` were handed on."""

    def __init__(self, descriptor: _Descriptor, source: _Source, max_bytes: int | None, ratio: int | None) -> None:
        self._descriptor = descriptor
        self._source = source
        self._max_bytes = max_bytes
        self._ratio = ratio  # None: not compressed
        self.bytes_out = 0

    @property
    def bytes_in(self) -> int:
        return self._descriptor.bytes_in

    def readinto(self, buffer: memoryview) -> int:
        """Bytes written to the front of `buffer`, which is not empty; 0 at the end.

        Raises Invalid (damaged, cut short, over a limit) and Interrupted.
        """
        got = self._source.readinto(buffer)
        self.bytes_out += got
        if self._max_bytes is not None and self.bytes_out > self._max_bytes:
            raise Invalid(f"the stream is larger than the {self._max_bytes} bytes allowed")
        if self._ratio is not None and self.bytes_out > RATIO_GRACE + self._ratio * self.bytes_in:
            raise Invalid(
                f"compression bomb: {self.bytes_in} bytes became {self.bytes_out}, over {self._ratio} times as many"
            )
        return got

    def read(self, n: int) -> bytes:
        """Exactly `n` bytes, fewer only at the end."""
        buffer = bytearray(n)
        view = memoryview(buffer)
        have = 0
        while have < n:
            got = self.readinto(view[have:])
            if not got:
                break
            have += got
        return bytes(view[:have])


def open_stream(
    fd: int,
    compression: Compression = Compression.AUTO,
    *,
    max_bytes: int | None = None,
    ratio: int = RATIO_LIMIT,
    cancel: int | None = None,
) -> Stream:
    """The bytes that `fd` (which stays the caller's) reads, decompressed.

    `max_bytes` bounds what comes out. A compressed stream is refused as a bomb once
    `out > 64 MiB + ratio × in`. `cancel` is a descriptor (an eventfd, a socket) that becomes readable when
    a read that waits for a pipe has to end: it then raises Interrupted.
    """
    descriptor = _Descriptor(fd, cancel)
    if compression is Compression.AUTO:
        compression = _detect(descriptor.peek(_PEEK))
    if compression is Compression.GZIP:
        return Stream(descriptor, _Gzip(descriptor), max_bytes, ratio)
    if compression is Compression.ZSTD:
        return Stream(descriptor, _Zstd(descriptor), max_bytes, ratio)
    return Stream(descriptor, descriptor, max_bytes, None)


def _detect(first: bytes) -> Compression:
    if first.startswith(_GZIP_MAGIC):
        return Compression.GZIP
    if zstd_frames.is_zstd(first):
        return Compression.ZSTD
    foreign = next((name for magic, name in _FOREIGN if first.startswith(magic)), None)
    if first.startswith(b"BZh") and first[4:10] == b"1AY&SY":
        foreign = "bzip2"
    if foreign:
        raise Invalid(f"streams compressed with {foreign} are not read", hint="use gzip, zstd or none")
    return Compression.NONE


class _Descriptor:
    """The bytes of a descriptor, counted; the first few can be looked at ahead."""

    def __init__(self, fd: int, cancel: int | None) -> None:
        self._fd = fd
        self._cancel = cancel
        self._peeked = b""
        self.bytes_in = 0

    def peek(self, n: int) -> bytes:
        buffer = memoryview(bytearray(n))
        have = 0
        while have < n:  # a pipe gives what it has
            got = self._readv(buffer[have:])
            if not got:
                break
            have += got
        self._peeked = bytes(buffer[:have])
        return self._peeked

    def readinto(self, buffer: memoryview) -> int:
        if self._peeked:
            some, self._peeked = self._peeked[: len(buffer)], self._peeked[len(buffer) :]
            buffer[: len(some)] = some
            return len(some)
        return self._readv(buffer)

    def read(self, n: int) -> bytes:
        if self._peeked:
            some, self._peeked = self._peeked[:n], self._peeked[n:]
            return some
        buffer = bytearray(n)
        return bytes(memoryview(buffer)[: self._readv(memoryview(buffer))])

    def _readv(self, buffer: memoryview) -> int:
        while True:
            if self._cancel is not None:
                self._wait()
            try:
                got = os.readv(self._fd, [buffer])
            except BlockingIOError:  # O_NONBLOCK belongs to the open file, which the caller shares
                self._wait()
                continue
            except OSError as error:
                raise Invalid(f"the stream cannot be read: {error.strerror}") from error
            self.bytes_in += got
            return got

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if self._cancel is not None:
            poll.register(self._cancel, select.POLLIN)
        if any(fd == self._cancel for fd, _ in poll.poll()):
            raise Interrupted(signal="the end of the request")


class _Gzip:
    """RFC 1952: members one after the other, then perhaps zeros, as tapes pad and gzip(1) accepts."""

    def __init__(self, descriptor: _Descriptor) -> None:
        self._descriptor = descriptor
        self._member: zlib._Decompress | None = zlib.decompressobj(wbits=31)
        self._input = b""
        self._padding = False

    def readinto(self, buffer: memoryview) -> int:
        while True:
            if not self._input:
                self._input = self._descriptor.read(_INPUT)
                if not self._input:
                    if self._member is not None:
                        raise Invalid("the gzip stream is cut short")
                    return 0
            if self._member is None and not self._next_member():
                continue
            assert self._member is not None
            try:
                out = self._member.decompress(self._input, len(buffer))
            except zlib.error as error:
                raise Invalid(f"the gzip stream is damaged: {error}") from error
            if self._member.eof:
                self._input, self._member = self._member.unused_data, None
            else:
                self._input = self._member.unconsumed_tail
            if out:
                buffer[: len(out)] = out
                return len(out)

    def _next_member(self) -> bool:
        """Whether another member begins in the input, of which padding is taken away."""
        if self._padding or self._input[0] == 0:
            self._padding = True
            self._input = self._input.lstrip(b"\0")
            if self._input:
                raise Invalid("the gzip stream is damaged: bytes follow its padding")
            return False
        if self._input[0] != _GZIP_MAGIC[0]:
            raise Invalid("the gzip stream is damaged: what follows a member is no member")
        self._member = zlib.decompressobj(wbits=31)
        return True


class _Zstd:
    """RFC 8878: frames one after the other. `zstandard` reads through this object's `read`."""

    def __init__(self, descriptor: _Descriptor) -> None:
        self._descriptor = descriptor
        self._frames = zstd_frames.Frames(WINDOW_LIMIT)
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT)
        self._reader = decompressor.stream_reader(self, read_size=_INPUT, read_across_frames=True)  # type: ignore[arg-type]  # it needs read() alone

    def read(self, n: int = _INPUT) -> bytes:
        data = self._descriptor.read(n)
        self._frames.feed(data)
        return data

    def readinto(self, buffer: memoryview) -> int:
        try:
            got = self._reader.readinto(buffer)
        except zstandard.ZstdError as error:
            raise Invalid(f"the zstd stream is damaged: {error}") from error
        # An empty input has no frame at all, which counts as cut short: zstd(1) too always writes one.
        if not got and not (self._frames.whole and self._descriptor.bytes_in):
            raise Invalid("the zstd stream is cut short")
        return got
