"""A batch: what one ingest writes, made durable by one syncfs(2) or undone as a whole."""

from __future__ import annotations

import errno
import os
import secrets
from types import TracebackType
from typing import Final, Self

from blake3 import blake3

from volt_casd import faults
from volt_casd.objects import PENDING, Objects, Pending, Stored
from volt_common.durable import syncfs
from volt_common.failpoint import point

SMALL: Final = 1 << 20  # up to here an object is one buffer and one write
_UNCACHED: Final = 16 << 20  # from here its pages are not kept: it would push out what is in use
_RWF_DONTCACHE: Final = 0x80  # Linux 6.14
_ZEROS: Final = bytes(1 << 20)


class Batch:
    """Used by one thread at a time; leaving the `with` block without `commit` undoes it."""

    def __init__(self, root: str, staging: str) -> None:
        self._staging = staging
        self._held: list[tuple[Objects, Pending]] = []
        self.new_objects = 0
        self.new_bytes = 0
        # Opened before the first write: syncfs reports the failed write-backs since then, and to each
        # descriptor once, so that batches can't take each other's errors away.
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.abort()

    def put(self, objects: Objects, data: bytes | memoryview) -> Stored:
        """Store bytes. Raises Exhausted, VoltError."""
        digest = blake3(data).digest()
        try:
            return self._took(objects, digest, len(data), objects.put(digest, data))
        except OSError as error:
            raise faults.of_os(error, "writing an object") from error

    def incoming(self, objects: Objects, size: int = 0) -> Incoming:
        """An object whose bytes come piece by piece; `size`, if known, tells how large it becomes."""
        return Incoming(self, objects, os.path.join(self._staging, secrets.token_hex(12)), size)

    def place(self, objects: Objects, digest: bytes, size: int, temporary: str) -> Stored:
        """Store the staged file `temporary`. Raises OSError."""
        return self._took(objects, digest, size, objects.place(digest, size, temporary))

    def _took(self, objects: Objects, digest: bytes, size: int, put: tuple[Pending | None, bool]) -> Stored:
        pending, new = put
        if pending is not None:
            self._held.append((objects, pending))
        if new and objects.kind == "objects":
            self.new_objects += 1
            self.new_bytes += size
        return Stored(digest, size, new)

    def commit(self) -> None:
        """Make all of it durable, or nothing. Raises Exhausted, VoltError."""
        if self._held:
            try:
                point("batch.before-sync")
                syncfs(self._fd)
                point("batch.after-sync")
                for objects, pending in self._held:
                    objects.settle(pending)
                point("batch.settled")
            except OSError as error:
                self._undo(damaged=True)
                raise faults.of_os(error, "making objects durable") from error
            self._held = []
        self.abort()

    def abort(self) -> None:
        """Remove what this batch alone has written, unless it is committed."""
        self._undo(damaged=False)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _undo(self, damaged: bool) -> None:
        held, self._held = self._held, []
        for objects, pending in held:
            objects.release(pending, damaged=damaged)


class Incoming:
    """An object on its way in: a buffer at first, a file in the staging directory once it is large."""

    def __init__(self, batch: Batch, objects: Objects, path: str, size: int) -> None:
        self._batch = batch
        self._objects = objects
        self._path = path
        self._buffer = bytearray()
        self._hasher = blake3(max_threads=blake3.AUTO if size > SMALL and (os.cpu_count() or 1) > 2 else 1)
        self._fd = -1
        self._expected = size
        self._may_uncache = True
        self.size = 0
        if size > SMALL:
            self._spill()

    def write(self, data: bytes | memoryview) -> None:
        """Raises Exhausted, VoltError."""
        self.size += len(data)
        if self._fd < 0:
            self._buffer += data
            if len(self._buffer) > SMALL:
                self._spill()
            return
        self._hasher.update(data)
        self._write(data, self.size - len(data))

    def hole(self, count: int) -> None:
        """`count` zero bytes that take no room. Raises Exhausted, VoltError."""
        if self._fd < 0:
            if count < 4096:
                self.write(_ZEROS[:count])
                return
            self._spill()
        self.size += count
        while count > 0:
            self._hasher.update(memoryview(_ZEROS)[: min(count, len(_ZEROS))])
            count -= len(_ZEROS)

    def digest(self) -> bytes:
        """Of what came so far, once it is in a file."""
        return self._hasher.digest()

    def finish(self) -> Stored:
        """Store it. Raises Exhausted, VoltError."""
        if self._fd < 0:
            return self._batch.put(self._objects, memoryview(self._buffer))
        try:
            os.ftruncate(self._fd, self.size)
            point("object.staged")
            return self._batch.place(self._objects, self._hasher.digest(), self.size, self._path)
        except OSError as error:
            raise faults.of_os(error, "writing an object") from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Drop it; nothing after `finish`."""
        self._buffer = bytearray()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            os.unlink(self._path)

    def _spill(self) -> None:
        """Go on in a file."""
        try:
            self._fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, PENDING)
        except OSError as error:
            raise faults.of_os(error, "writing an object") from error
        held, self._buffer = self._buffer, bytearray()
        self._hasher.update(held)
        self._write(held, 0)

    def _write(self, data: bytes | bytearray | memoryview, at: int) -> None:
        view = memoryview(data)
        while view:
            flags = _RWF_DONTCACHE if self._may_uncache and max(self._expected, at) > _UNCACHED else 0
            try:
                done = os.pwritev(self._fd, [view], at, flags)
            except OSError as error:
                if flags and error.errno == errno.EOPNOTSUPP:  # an older kernel, or a file system without it
                    self._may_uncache = False
                    continue
                raise faults.of_os(error, "writing an object") from error
            at += done
            view = view[done:]
