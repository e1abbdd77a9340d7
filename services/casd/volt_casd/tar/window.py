"""The bytes of a stream, seen through one buffer that is filled again and again: no copy per member."""

from __future__ import annotations

from typing import Final, Protocol

SMALL: Final = 1 << 20  # bytes that the window can always show in one piece
CAPACITY: Final = 2 * SMALL


class Readable(Protocol):
    """What the archive comes from: writes to the front of the buffer, and says how much; 0 at the end."""

    def readinto(self, buffer: memoryview, /) -> int: ...


class Window:
    """`buffer[start:stop]` are the bytes read and not yet used. The next `have` moves them."""

    __slots__ = ("_stream", "buffer", "passed", "start", "stop", "view")

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.buffer = bytearray(CAPACITY)
        self.view = memoryview(self.buffer)
        self.start = 0
        self.stop = 0
        self.passed = 0  # bytes of the stream before buffer[0]

    @property
    def offset(self) -> int:
        """In the stream, of the next byte."""
        return self.passed + self.start

    def have(self, n: int) -> bool:
        """Make the next `n` bytes (at most SMALL) lie in one piece; False if the stream ends before them."""
        if self.stop - self.start >= n:
            return True
        rest = self.stop - self.start
        if self.start:
            self.view[:rest] = self.view[self.start : self.stop]  # memmove
            self.passed += self.start
            self.start, self.stop = 0, rest
        while self.stop < n:
            got = self._stream.readinto(self.view[self.stop :])
            if not got:
                return False
            self.stop += got
        return True

    def take(self, n: int) -> memoryview:
        """Up to `n` of the next bytes, at least one; empty at the end of the stream."""
        if self.start == self.stop and not self.have(1):
            return self.view[:0]
        some = self.view[self.start : min(self.start + n, self.stop)]
        self.start += len(some)
        return some
