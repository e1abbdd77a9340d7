"""The store: a directory of objects, trees, refs and views, and the order in which it is changed.

A plain library, for one process at a time, from any number of threads; the daemon puts it on a socket.

    dirty           there from before the first write until a clean close: objects of mode 0400 may be damaged
    lock            held by the process that has the store open
    objects/ab/…    bytes, named by BLAKE3            trees/ab/…      manifests (volt_casd.tree), likewise
    refs/…          durable names                     views/…         EROFS images, made again when missing
    tmp/            staging, emptied at open          quarantine/     what did not match its name
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
from collections import OrderedDict
from types import TracebackType
from typing import Final, Self

from volt_casd import faults, recover, tree
from volt_casd.batch import Batch
from volt_casd.ingest import Cancelled, Reader, never
from volt_casd.objects import Objects, Stored
from volt_casd.refs import Refs
from volt_casd.views import Views
from volt_common import durable
from volt_common.api.cas import Form, Ref, ViewReady
from volt_common.errors import Conflict, Corrupt, Invalid, NotFound
from volt_common.failpoint import point

_HEX: Final = re.compile(r"[0-9a-f]{64}\Z")
_SIZES_KEPT: Final = 4096
_TREES_KEPT: Final = 2  # decoded; a tree of 100,000 paths takes some 40 MiB


class Store:
    """An open store. Raises Conflict when another process has it open."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.staging = os.path.join(self.path, "tmp")
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            self._lock_fd = self._lock()
            for name in ("tmp", "quarantine"):
                os.makedirs(os.path.join(self.path, name), mode=0o700, exist_ok=True)
            self.objects = Objects(self.path, "objects")
            self.trees = Objects(self.path, "trees")
            self.refs = Refs(self.path)
            self.views = Views(self)
            self._dirty = os.path.join(self.path, "dirty")
            self.clean = not os.path.exists(self._dirty)
            recover.empty_staging(self)
            if not self.clean:
                self.refs.clear_leftovers()
        except OSError as error:
            raise faults.of_os(error, f"opening {path}") from error
        self._marked = not self.clean
        self._mark_lock = threading.Lock()
        self._decoded: OrderedDict[bytes, list[tree.Entry]] = OrderedDict()
        self._decoded_lock = threading.Lock()
        self._sizes: dict[bytes, tuple[int, int]] = {}  # by tree: how many were in quarantine then, and its bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _lock(self) -> int:
        fd = os.open(os.path.join(self.path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise Conflict(kind="store", name=self.path, state="open in another process") from None
        return fd

    def close(self) -> None:
        """Say that all is durable. No call may be under way."""
        if self._lock_fd < 0:
            return
        if self._marked and self.clean and self.objects.decided and self.trees.decided:
            with contextlib.suppress(OSError):  # then the next start checks what this one wrote
                durable.syncfs(self._lock_fd)  # the modes of objects, before the mark goes
                durable.remove(self._dirty)
        self.objects.close()
        self.trees.close()
        os.close(self._lock_fd)
        self._lock_fd = -1

    def recover(self, cancelled: Cancelled = never) -> recover.Recovered:
        """After an unclean stop: check what may be damaged. The store may be used meanwhile."""
        done = recover.recover(self, cancelled)
        self.clean = True
        return done

    # -- writing

    def batch(self) -> Batch:
        """Begin to write. Raises Exhausted, VoltError."""
        try:
            with self._mark_lock:
                if not self._marked:
                    durable.write_file(self._dirty, b"objects of mode 0400 may be damaged\n", 0o600)
                    self._marked = True
                    point("store.marked")
            return Batch(self.path, self.staging)
        except OSError as error:
            raise faults.of_os(error, "beginning to write") from error

    def put(self, fd: int, ref: str | None = None, cancelled: Cancelled = never) -> Stored:
        """Store a file, or a pipe to its end, durably; with `ref`, name it as a blob.
        Raises Denied, Invalid, Changed, Conflict, Exhausted."""
        with self.batch() as batch:
            stored = Reader(batch, self.objects, cancelled).store_stream(fd)
            batch.commit()
        if ref is not None:
            self.refs.set(ref, "blob", stored.digest.hex(), stored.size)
        return stored

    def set_ref(self, name: str, kind: str, digest: bytes, expect: str | None = None) -> Ref:
        """Name what is here, whole. Raises NotFound, Corrupt, Conflict, Exhausted."""
        if kind == "blob":
            size = self.objects.size(digest)
            if size is None:
                raise NotFound(kind="object", name=digest.hex())
        else:
            self._take_tree(digest)
            size = self._whole(digest)
        return self.refs.set(name, kind, digest.hex(), size, expect)

    def _take_tree(self, digest: bytes) -> None:
        """A manifest that came as a blob becomes a tree."""
        if self.trees.size(digest) is not None or self.objects.size(digest) is None:
            return
        data = self.objects.read(digest, tree.MAX_BYTES)
        tree.decode(data, digest.hex())
        with self.batch() as batch:
            batch.put(self.trees, data)
            batch.commit()

    def _whole(self, digest: bytes) -> int:
        """The bytes in the files of a tree of which every object is here. Looked at once: an object goes to quarantine
        or not at all. Raises NotFound, Corrupt."""
        quarantined = self.trees.quarantined + self.objects.quarantined
        known = self._sizes.get(digest)
        if known is not None and known[0] == quarantined:
            return known[1]
        entries = self.entries(digest)
        self.require_whole(entries)
        size = sum(entry.size for entry in entries if entry.is_file)
        if len(self._sizes) >= _SIZES_KEPT:
            self._sizes.clear()
        self._sizes[digest] = quarantined, size
        return size

    def require_whole(self, entries: list[tree.Entry]) -> None:
        """Raises NotFound or Corrupt unless every object of a tree is here with its size."""
        for digest, size in tree.digests(entries).items():
            have = self.objects.size(digest)
            if have is None:
                raise NotFound(kind="object", name=digest.hex())
            if have != size:
                raise Corrupt(f"{have} bytes, not {size}", what="object", name=digest.hex())

    # -- reading

    def resolve(self, name: str) -> bytes:
        """The tree that a digest or a ref names. Raises NotFound, Invalid."""
        if _HEX.match(name) and self.trees.size(bytes.fromhex(name)) is not None:
            return bytes.fromhex(name)
        ref = self.refs.get(name)
        if ref.kind != "tree":
            raise Invalid(f"ref {name} names a blob, not a tree")
        return bytes.fromhex(ref.digest)

    def entries(self, digest: bytes) -> list[tree.Entry]:
        """A tree's entries; they are shared, so don't change the list. Raises NotFound, Corrupt."""
        with self._decoded_lock:
            if (found := self._decoded.get(digest)) is not None:
                self._decoded.move_to_end(digest)
                return found
        entries = tree.decode(self.trees.read(digest, tree.MAX_BYTES), digest.hex())
        with self._decoded_lock:
            self._decoded[digest] = entries
            while len(self._decoded) > _TREES_KEPT:
                self._decoded.popitem(last=False)
        return entries

    def forget_tree(self, digest: bytes) -> None:
        """Its bytes are bad or gone."""
        with self._decoded_lock:
            self._decoded.pop(digest, None)

    def view(self, digest: bytes, form: Form) -> ViewReady:
        """Make the EROFS image of a tree unless it is there. Raises NotFound, Invalid, Exhausted."""
        image = self.views.make(digest, form)
        root = image.root
        return ViewReady(digest.hex(), form, image.size, image.sha256, root.mode, root.uid, root.gid, root.mtime_ns)

    def open(self, digest: bytes) -> int:
        """A read-only descriptor of an object, or of a tree's bytes. Raises NotFound."""
        if self.objects.size(digest) is None and self.trees.size(digest) is not None:
            return self.trees.open(digest)
        return self.objects.open(digest)

    def cat(self, name: str, path: bytes) -> int:
        """A read-only descriptor of a file of the tree `name`. Raises NotFound, Invalid, Corrupt."""
        entry = self.entry(self.resolve(name), path)
        if not entry.is_file:
            raise Invalid(f"{tree.show(path)} is not a file")
        if not entry.digest:
            return os.memfd_create("empty", os.MFD_CLOEXEC)
        fd = self.objects.open(entry.digest)
        if os.fstat(fd).st_size != entry.size:
            os.close(fd)
            raise Corrupt("its size is wrong", what="object", name=entry.digest.hex(), hint="run volt cas verify")
        return fd

    def entry(self, digest: bytes, path: bytes) -> tree.Entry:
        """Raises NotFound."""
        found = tree.find(self.entries(digest), path.strip(b"/"))
        if found is None:
            raise NotFound(kind="path", name=tree.show(path))
        return found

    def ls(self, name: str, path: bytes = b"", recursive: bool = False) -> list[tree.Entry]:
        """The entry at `path`; a directory's entries; everything below it. Raises NotFound."""
        digest = self.resolve(name)
        entry = self.entry(digest, path)
        if not entry.is_directory:
            return [entry]
        inside = tree.below if recursive else tree.children
        return list(inside(self.entries(digest), entry.path))
