"""The output of an image: written forwards, with objects copied in and their holes left holes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from volt_casd import faults
from volt_casd.erofs.layout import BLOCK, BLOCK_BITS, BLOCKS_MAX, NULL_BLOCK
from volt_common.errors import Corrupt, Invalid

CHUNK_BITS: Final = 8
"""Of a chunk of a large file: 1 MiB, as a power of two of blocks."""

CHUNK: Final = BLOCK << CHUNK_BITS
CHUNKED_MIN: Final = 16 << 20
"""Files from this size on are stored by chunks, and a chunk of zeros takes no space in the image."""

_WHOLE_MAX: Final = 128 << 10  # objects up to this are read whole and joined with what surrounds them
_BUFFER: Final = 4 << 20
_PIECE: Final = 1 << 20
_ZEROS: Final = bytes(_PIECE)


class Writer:
    """Writes to a regular file from its second block on; the first one comes last, by `finish`."""

    def __init__(self, out: int, open_object: Callable[[bytes], int]) -> None:
        self._out = out
        self._open = open_object
        self._buffer: list[bytes] = []
        self._held = 0
        self.position = BLOCK
        """Where the next byte goes."""
        os.ftruncate(out, 0)  # what is skipped must read as zeros

    @property
    def block(self) -> int:
        """The block where the next byte goes; raises Invalid beyond what 32 bits address."""
        block = self.position >> BLOCK_BITS
        if block > BLOCKS_MAX:
            raise Invalid("the tree's files take more than the 16 TiB that an image can hold")
        return block

    def add(self, data: bytes) -> None:
        """Write bytes."""
        self._buffer.append(data)
        self._held += len(data)
        self.position += len(data)
        if self._held >= _BUFFER:
            self._flush()

    def pad(self) -> None:
        """Write zeros to the end of the block."""
        if self.position % BLOCK:
            self.add(bytes(-self.position % BLOCK))

    def finish(self, superblock: bytes) -> None:
        """Write what is held back, and the first block."""
        self._flush()
        self._write(superblock, 0)

    def contents(self, digest: bytes, size: int) -> bytes:
        """A small object's bytes; raises Corrupt when they are not `size`."""
        source = self._open(digest)
        try:
            data = _read(source, digest, size + 1)  # one more, to see an object that is too long
        finally:
            os.close(source)
        if len(data) != size:
            raise _wrong_size(digest, size, f"at least {len(data)}" if len(data) > size else str(len(data)))
        return data

    def store(self, digest: bytes, size: int) -> int:
        """Write an object whole, in blocks of its own; returns the first one's address."""
        first = self.block
        if size <= _WHOLE_MAX:
            self.add(self.contents(digest, size))
        else:
            self._flush()
            with self._object(digest, size) as source:
                for start, piece in _pieces(source, digest, 0, size):
                    self._write(piece, self.position + start)
            self.position += size
        self.pad()
        return first

    def store_chunks(self, digest: bytes, size: int) -> bytes:
        """Write an object without its chunks of zeros; returns the addresses of its chunks, as on disk.

        Which chunks are left out depends on their bytes alone: a hole is only a quicker way to see zeros,
        so the same entries give the same image wherever the objects lie.
        """
        addresses = []
        self._flush()
        with self._object(digest, size) as source:
            at = 0
            while at < size:
                data = next(_extents(source, at, size), (size, size))[0]
                hole = (size - at + CHUNK - 1) // CHUNK if data == size else (data - at) // CHUNK
                addresses.append(NULL_BLOCK * hole)
                at += hole * CHUNK
                if at < size:
                    addresses.append(self._store_chunk(source, digest, at, min(CHUNK, size - at)))
                    at += CHUNK
        return b"".join(addresses)

    def _store_chunk(self, source: int, digest: bytes, at: int, length: int) -> bytes:
        address = self.block.to_bytes(4, "little")
        empty = True
        for start, piece in _pieces(source, digest, at, at + length):
            if not _ZEROS.startswith(piece):
                self._write(piece, self.position + start - at)
                empty = False
        if empty:
            return NULL_BLOCK
        self.position += length + -length % BLOCK
        return address

    @contextmanager
    def _object(self, digest: bytes, size: int) -> Iterator[int]:
        source = self._open(digest)
        try:
            found = os.fstat(source).st_size
            if found != size:
                raise _wrong_size(digest, size, str(found))
            yield source
        finally:
            os.close(source)

    def _flush(self) -> None:
        data = b"".join(self._buffer)
        self._write(data, self.position - self._held)
        self._buffer, self._held = [], 0

    def _write(self, data: bytes, position: int) -> None:
        left = memoryview(data)
        while left:
            try:
                written = os.pwrite(self._out, left, position)
            except OSError as why:
                raise faults.of_os(why, "writing an image") from why
            left, position = left[written:], position + written


def _extents(source: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The ranges within start..stop that are no holes."""
    while start < stop:
        try:
            start = os.lseek(source, start, os.SEEK_DATA)
            end = min(os.lseek(source, start, os.SEEK_HOLE), stop)
        except OSError as why:
            if why.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        if start < stop:
            yield start, end
        start = end


def _pieces(source: int, digest: bytes, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """The bytes within start..stop that are in no hole, each piece with its offset."""
    for at, end in _extents(source, start, stop):
        for offset in range(at, end, _PIECE):
            length = min(_PIECE, end - offset)
            piece = _read(source, digest, length, offset)
            if len(piece) != length:
                raise _wrong_size(digest, stop, str(offset + len(piece)))
            yield offset, piece


def _read(source: int, digest: bytes, size: int, offset: int = 0) -> bytes:
    try:
        return os.pread(source, size, offset)
    except OSError as why:
        raise Corrupt(what="object", name=digest.hex(), message=f"it cannot be read: {why.strerror}") from why


def _wrong_size(digest: bytes, size: int, found: str) -> Corrupt:
    return Corrupt(what="object", name=digest.hex(), message=f"it has {found} bytes, and its tree says {size}")
