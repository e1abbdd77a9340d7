"""Views: EROFS images of trees under views/, made when asked for, kept as a cache, each made once.

Beside `TREE.FORM` lies `TREE.FORM.json` with the image's size and SHA-256, which the launchers check on their
copy, and what is asked of the tree's root. It is written after the image: an image without it is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from volt_casd import faults
from volt_casd.erofs import write_image
from volt_common import durable
from volt_common.api.cas import Form
from volt_common.errors import NotFound
from volt_common.failpoint import point

if TYPE_CHECKING:
    from volt_casd.store import Store


class Root(msgspec.Struct, frozen=True):
    """The tree's own directory, which an overlay takes from elsewhere."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int


class Image(msgspec.Struct, frozen=True):
    """What is known of a view's image."""

    size: int
    sha256: str
    root: Root


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Image).decode


class Views:
    """The directory of views."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.path = os.path.join(store.path, "views")
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        self._locks: dict[str, tuple[threading.Lock, int]] = {}
        self._guard = threading.Lock()

    def make(self, digest: bytes, form: Form) -> Image:
        """The view of a tree, made unless it is there. Raises NotFound, Invalid, Corrupt, Exhausted."""
        name = f"{digest.hex()}.{form.value}"
        with self._alone(name):
            known = self.known(name)
            if known is None:
                known = self._write(name, digest, form)
            return known

    def open(self, digest: bytes, form: Form) -> int:
        """A read-only descriptor of a view's image, made if need be. Raises as `make`."""
        self.make(digest, form)
        try:
            return os.open(os.path.join(self.path, f"{digest.hex()}.{form.value}"), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(kind="view", name=digest.hex()) from None
        except OSError as error:
            raise faults.of_os(error, "opening a view") from error

    def known(self, name: str) -> Image | None:
        """What lies beside an image that is there with its size."""
        path = os.path.join(self.path, name)
        try:
            with open(path + ".json", "rb") as file:
                image = _decode(file.read(4096))
            return image if os.stat(path).st_size == image.size else None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def names(self) -> list[str]:
        """Of all images, `TREE.FORM`."""
        return sorted(n for n in os.listdir(self.path) if not n.startswith(".") and not n.endswith(".json"))

    def drop(self, name: str) -> None:
        """Remove an image; it is made again when asked for."""
        with self._alone(name):
            for path in (name + ".json", name):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.path, path))

    def _write(self, name: str, digest: bytes, form: Form) -> Image:
        entries = self._store.entries(digest)
        self._store.require_whole(entries)
        staged = os.path.join(self._store.staging, f"view.{secrets.token_hex(8)}")
        path = os.path.join(self.path, name)
        try:
            fd = os.open(staged, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o400)
            try:
                write_image(fd, entries, form, self._store.objects.open)
                point("view.before-sync")
                os.fsync(fd)
                top = entries[0]
                image = Image(os.fstat(fd).st_size, _sha256(fd), Root(top.mode, top.uid, top.gid, top.mtime_ns))
            finally:
                os.close(fd)
            point("view.before-rename")
            os.rename(staged, path)
            point("view.renamed")
            durable.write_file(path + ".json", _encode(image) + b"\n", 0o400)
            point("view.done")
        except OSError as error:
            raise faults.of_os(error, f"writing the view {name}") from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(staged)
        return image

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """One at a time for each image."""
        with self._guard:
            lock, users = self._locks.get(name, (threading.Lock(), 0))
            self._locks[name] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._locks.pop(name)
                if users > 1:
                    self._locks[name] = lock, users - 1


def _sha256(fd: int) -> str:
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    at = 0
    while count := os.preadv(fd, [buffer], at):
        hasher.update(buffer[:count])
        at += count
    return hasher.hexdigest()
