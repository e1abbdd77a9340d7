"""Objects: bytes named by their BLAKE3-256, in 256 directories, each stored once however many bring it at once.

The mode of an object tells what is known of it. It is created under its final name as 0400: it may be short,
and a crash may have left it so. After a syncfs(2) of the store that covers it, it becomes 0444: durable.

Who writes an object first claims its name in memory; others that bring the same bytes wait for the write to
end, and then hold the object too. It goes only when its last holder gives up: nobody's tree can lose what
another's failure undoes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from typing import Final, NamedTuple

from blake3 import blake3

from volt_casd import faults
from volt_common.errors import Corrupt, NotFound
from volt_common.failpoint import point

PENDING: Final = 0o400
DURABLE: Final = 0o444
_CHUNK: Final = 1 << 20
_CREATE: Final = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Stored(NamedTuple):
    """What a write into the store came to. `new`: no object of this name was there."""

    digest: bytes
    size: int
    new: bool


class Pending:
    """An object being written (no holder yet), or written and not known durable."""

    __slots__ = ("damaged", "digest", "holders", "over", "written")

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.holders = 0
        self.written = False
        self.damaged = False
        self.over = False  # durable, or gone


def path_of(digest: bytes) -> str:
    """An object's path below its directory: `ab/ab12…`."""
    name = digest.hex()
    return f"{name[:2]}/{name}"


class Objects:
    """One directory of objects. `put`, `place`, `settle` and `release` are called by a Batch."""

    def __init__(self, root: str, kind: str) -> None:
        self.kind = kind  # "objects" or "trees"
        self.path = os.path.join(root, kind)
        self._quarantine = os.path.join(root, "quarantine")
        if not os.path.isdir(os.path.join(self.path, "ff")):
            for name in ("", *(f"{index:02x}" for index in range(256))):
                os.makedirs(os.path.join(self.path, name), mode=0o700, exist_ok=True)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._pending: dict[bytes, Pending] = {}
        self._changed = threading.Condition(threading.Lock())
        self._waiting = 0
        self._leftover = False  # something could not be removed
        self.quarantined = 0  # changes with every object that goes to quarantine

    @property
    def decided(self) -> bool:
        """Whether every object there is known durable."""
        with self._changed:
            return not self._pending and not self._leftover

    def close(self) -> None:
        os.close(self.fd)

    # -- reading

    def size(self, digest: bytes) -> int | None:
        """Bytes of a durable object; None if it is not there, or not known to be whole."""
        try:
            status = os.stat(path_of(digest), dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return status.st_size if stat.S_IMODE(status.st_mode) == DURABLE else None

    def exists(self, digest: bytes) -> bool:
        """Whether a file of this name is there, whatever is known of it."""
        return os.path.lexists(os.path.join(self.path, path_of(digest)))

    def open(self, digest: bytes) -> int:
        """A read-only descriptor of a durable object. Raises NotFound."""
        try:
            fd = os.open(path_of(digest), _READ, dir_fd=self.fd)
        except FileNotFoundError:
            raise NotFound(kind=self.kind[:-1], name=digest.hex()) from None
        except OSError as error:
            raise faults.of_os(error, f"opening {digest.hex()}") from error
        if stat.S_IMODE(os.fstat(fd).st_mode) != DURABLE:
            os.close(fd)
            if self.recheck(digest):
                return self.open(digest)
            raise NotFound(kind=self.kind[:-1], name=digest.hex(), hint="it is being stored right now")
        return fd

    def read(self, digest: bytes, limit: int) -> bytes:
        """All its bytes, checked against its name. Raises NotFound, Corrupt."""
        fd = self.open(digest)
        try:
            if os.fstat(fd).st_size > limit:
                raise Corrupt(f"larger than {limit} bytes", what=self.kind[:-1], name=digest.hex())
            with open(fd, "rb", closefd=False) as file:
                data = file.read()
        finally:
            os.close(fd)
        if blake3(data).digest() != digest:
            raise Corrupt("its bytes do not match its name", what=self.kind[:-1], name=digest.hex())
        return data

    def names(self) -> Iterator[tuple[bytes, os.stat_result]]:
        """Every object with its stat, in order of its name's first byte."""
        for index in range(256):
            with os.scandir(os.path.join(self.path, f"{index:02x}")) as found:
                for item in found:
                    with contextlib.suppress(FileNotFoundError, ValueError):
                        yield bytes.fromhex(item.name), item.stat(follow_symlinks=False)

    # -- writing

    def put(self, digest: bytes, data: bytes | memoryview) -> tuple[Pending | None, bool]:
        """Store `data`, whose digest is `digest`: what the caller now holds (None: it is durable), and whether
        it is new. Raises OSError."""
        mine, pending = self._claim(digest)
        if not mine:
            return pending, False
        try:
            path = path_of(digest)
            while True:
                try:
                    fd = os.open(path, _CREATE, PENDING, dir_fd=self.fd)
                    break
                except FileExistsError:
                    if self._usable(digest, len(data)):
                        self._end(pending)
                        return None, False
            try:
                point("object.created")
                write_all(fd, data)
                point("object.written")
            except BaseException:
                os.unlink(path, dir_fd=self.fd)
                raise
            finally:
                os.close(fd)
        except BaseException:
            self._end(pending)
            raise
        self._written(pending)
        return pending, True

    def place(self, digest: bytes, size: int, temporary: str) -> tuple[Pending | None, bool]:
        """Store the finished file `temporary`, of mode 0400, as `put` does. It keeps its old name too."""
        mine, pending = self._claim(digest)
        if not mine:
            return pending, False
        try:
            while True:
                try:  # unlike a rename, a link never replaces
                    os.link(temporary, path_of(digest), dst_dir_fd=self.fd, follow_symlinks=False)
                    break
                except FileExistsError:
                    if self._usable(digest, size):
                        self._end(pending)
                        return None, False
        except BaseException:
            self._end(pending)
            raise
        self._written(pending)
        point("object.placed")
        return pending, True

    def settle(self, pending: Pending) -> None:
        """A syncfs has covered this object: it is durable, whoever else holds it. Raises OSError."""
        with self._changed:
            if pending.damaged:
                raise OSError(errno.EIO, "an object could not be written back")
            if pending.over:
                return  # another holder was first
        os.chmod(path_of(pending.digest), DURABLE, dir_fd=self.fd)
        point("object.settled")
        self._end(pending)

    def release(self, pending: Pending, *, damaged: bool = False) -> None:
        """Give an object up without having made it durable; the last holder removes it.

        `damaged`: its bytes may not have reached the disk, so no other holder may settle it either.
        """
        with self._changed:
            if pending.over:
                return
            pending.damaged |= damaged
            pending.holders -= 1
            if pending.holders:
                return
            pending.written = False  # who comes now waits for the name to be free
        try:
            os.unlink(path_of(pending.digest), dir_fd=self.fd)
        except OSError:  # it stays 0400, and is checked before it is used
            self._leftover = True
        self._end(pending)

    def recheck(self, digest: bytes) -> bool:
        """Hash an object of mode 0400 that nobody alive wrote: make it durable, or drop it. True if it is good."""
        with self._changed:
            if digest in self._pending:
                return False  # a batch has it, and will settle or remove it
            pending = self._pending[digest] = Pending(digest)
        try:
            return self._usable(digest, None)
        except OSError as error:
            raise faults.of_os(error, f"checking {digest.hex()}") from error
        finally:
            self._end(pending)

    def quarantine(self, digest: bytes) -> None:
        """Move a bad object out of the way, where nothing finds it but a person."""
        os.makedirs(self._quarantine, mode=0o700, exist_ok=True)
        self.quarantined += 1  # before and after: who looked in between may have seen either
        with contextlib.suppress(FileNotFoundError):
            os.rename(path_of(digest), f"{self._quarantine}/{self.kind}.{digest.hex()}", src_dir_fd=self.fd)
        self.quarantined += 1

    def _usable(self, digest: bytes, size: int | None) -> bool:
        """With the name claimed: whether what is there may be used. If not, it is there no longer."""
        path = path_of(digest)
        try:
            status = os.stat(path, dir_fd=self.fd, follow_symlinks=False)
            if stat.S_IMODE(status.st_mode) == DURABLE:
                if size is None or status.st_size == size:
                    return True
                self.quarantine(digest)
                return False
            fd = os.open(path, _READ, dir_fd=self.fd)
        except FileNotFoundError:
            return False
        try:
            if hash_file(fd) != digest:
                os.unlink(path, dir_fd=self.fd)
                return False
            os.fsync(fd)
            with _directory(os.path.join(self.path, path[:2])) as directory:
                os.fsync(directory)
            os.fchmod(fd, DURABLE)
            return True
        finally:
            os.close(fd)

    # -- claims

    def _claim(self, digest: bytes) -> tuple[bool, Pending]:
        """(True, …): the name is the caller's to write. (False, …): it is written, and the caller holds it too."""
        with self._changed:
            while (pending := self._pending.get(digest)) is not None:
                if pending.written:
                    pending.holders += 1
                    return False, pending
                self._waiting += 1
                self._changed.wait()
                self._waiting -= 1
            pending = self._pending[digest] = Pending(digest)
            return True, pending

    def _written(self, pending: Pending) -> None:
        with self._changed:
            pending.written, pending.holders = True, 1
            if self._waiting:
                self._changed.notify_all()

    def _end(self, pending: Pending) -> None:
        with self._changed:
            pending.over = True
            if self._pending.get(pending.digest) is pending:
                del self._pending[pending.digest]
            if self._waiting:
                self._changed.notify_all()


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write everything. Raises OSError."""
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])


def hash_file(fd: int) -> bytes:
    """BLAKE3 of a whole file, in bounded memory."""
    hasher = blake3()
    buffer = memoryview(bytearray(min(_CHUNK, max(1, os.fstat(fd).st_size))))
    at = 0
    while count := os.preadv(fd, [buffer], at):
        hasher.update(buffer[:count])
        at += count
    return hasher.digest()


@contextlib.contextmanager
def _directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
