"""Descriptors into objects: what a caller handed over is read here, steadily and in bounded memory."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable
from typing import Final

from volt_casd import faults, lease
from volt_casd.batch import SMALL, Batch
from volt_casd.lease import Hold
from volt_casd.objects import Objects, Stored, hash_file
from volt_common.errors import Changed, Interrupted, Invalid, VoltError

_CHUNK: Final = 1 << 20
_ATTEMPTS: Final = 3
_POLL_MS: Final = 200
MAX_FILE: Final = 1 << 44  # 16 TiB: holes cost no room but must be hashed

Cancelled = Callable[[], bool]


def never() -> bool:
    """Of work that nobody can cancel."""
    return False


class Reader:
    """Reads files for one batch, with one buffer."""

    def __init__(self, batch: Batch, objects: Objects, cancelled: Cancelled = never) -> None:
        self._batch = batch
        self._objects = objects
        self._cancelled = cancelled
        self._small = memoryview(bytearray(SMALL + 1))

    def store_file(self, fd: int, name: str, *, keep_empty: bool = True) -> Stored:
        """Store a whole regular file, from its start. Without `keep_empty` an empty one has no object, and the
        digest b"". Raises Denied, Invalid, Changed, Exhausted."""
        lease.require_readable(fd)
        for _ in range(_ATTEMPTS):
            self._check()
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise Invalid(f"{name} is not a regular file")
            if before.st_size > MAX_FILE:
                raise Invalid(f"{name} has {before.st_size} bytes, more than a tree holds")
            hold = lease.take(fd)
            try:
                stored = self._attempt(fd, before, hold, name, keep_empty)
            finally:
                lease.drop(fd, hold)
            if stored is not None:
                return stored
        raise Changed(name=name, hint="stop what writes to it, or take a snapshot first")

    def store_stream(self, fd: int, name: str = "the stream") -> Stored:
        """Store what a pipe or socket gives until its end; a regular file as `store_file`."""
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return self.store_file(fd, name)
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise Invalid(f"{name} is neither a file nor a pipe")
        lease.require_readable(fd)
        read = stream_reader(fd, self._cancelled)
        incoming = self._batch.incoming(self._objects)
        try:
            while data := read(_CHUNK):
                incoming.write(data)
            return incoming.finish()
        finally:
            incoming.discard()

    def _attempt(self, fd: int, before: os.stat_result, hold: Hold, name: str, keep_empty: bool) -> Stored | None:
        """None: it changed."""
        try:
            sparse = before.st_size >= 8192 and before.st_blocks * 512 + 4096 <= before.st_size
            if before.st_size > SMALL or sparse:
                return self._large(fd, before, hold)
            count = os.preadv(fd, [self._small[: before.st_size + 1]], 0)  # one more byte would show growth
            if count != before.st_size:
                return None
            data = self._small[:count]
            if hold is Hold.WRITER:
                again = os.pread(fd, count + 1, 0)
                if again != data:
                    return None
        except OSError as error:
            raise _read_error(error, name) from error
        if not lease.kept(fd, hold, before):
            return None
        if not count and not keep_empty:
            return Stored(b"", 0, False)
        return self._batch.put(self._objects, data)

    def _large(self, fd: int, before: os.stat_result, hold: Hold) -> Stored | None:
        size, at = before.st_size, 0
        buffer = self._small[:_CHUNK]
        incoming = self._batch.incoming(self._objects, size)
        try:
            while at < size:
                start = _seek(fd, at, os.SEEK_DATA, size)
                while at < start:  # in steps, so that a cancel is heard
                    self._check()
                    step = min(start - at, 256 << 20)
                    incoming.hole(step)
                    at += step
                end = _seek(fd, at, os.SEEK_HOLE, size) if at < size else size
                while at < end:
                    self._check()
                    count = os.preadv(fd, [buffer[: min(_CHUNK, end - at)]], at)
                    if not count:
                        return None
                    incoming.write(buffer[:count])
                    at += count
            if hold is Hold.WRITER and hash_file(fd) != incoming.digest():
                return None
            return incoming.finish() if lease.kept(fd, hold, before) else None
        finally:
            incoming.discard()

    def _check(self) -> None:
        if self._cancelled():
            raise Interrupted(signal="its caller")


def stream_reader(fd: int, cancelled: Cancelled = never) -> Callable[[int], bytes]:
    """A `read(n)` of a pipe, socket or file that a cancel interrupts. Raises Interrupted, VoltError."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)

    def read(count: int) -> bytes:
        while True:
            if cancelled():
                raise Interrupted(signal="its caller")
            if not poll.poll(_POLL_MS):
                continue
            try:
                return os.read(fd, count)
            except BlockingIOError:
                continue
            except OSError as error:
                raise _read_error(error, "the stream") from error

    return read


def _seek(fd: int, at: int, how: int, size: int) -> int:
    """Where data or a hole begins; moves the descriptor's offset, which nobody uses."""
    try:
        return min(os.lseek(fd, at, how), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        if error.errno == errno.EINVAL:  # no such thing here: all data
            return at if how == os.SEEK_DATA else size
        raise


def _read_error(error: OSError, name: str) -> VoltError:
    if error.errno in (errno.EIO, errno.ESTALE, errno.EISDIR, errno.EINVAL):
        return Invalid(f"{name} can't be read: {error.strerror}")
    return faults.of_os(error, f"reading {name}")
