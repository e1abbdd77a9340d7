"""Trees from what callers bring: a directory they walk, a tar stream, OCI layers. One batch, one syncfs each.

The order, which a crash at any point must find right: objects and manifest written, the store synced, their
modes changed, and only then the ref, itself synced.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from volt_casd import tree
from volt_casd.cancel import Cancel
from volt_casd.decompress import open_stream
from volt_casd.ingest import Reader
from volt_casd.layers import read_layers
from volt_casd.tar import read_tree
from volt_common.api.cas import Built, Compression, Node, Taken
from volt_common.errors import Exhausted, Invalid
from volt_common.failpoint import point

if TYPE_CHECKING:
    from volt_casd.store import Store

Progress = Callable[[int, int], None]
"""`(files, bytes)` so far."""

MAX_SKIPPED: Final = 20
_MEMORY: Final = 512 << 20  # of one build, for names, targets and xattrs
_ENTRY: Final = 512  # that an entry takes beside these


class Builder:
    """One tree in the making. `close` it: without `finish` nothing stays. Not for two threads at once."""

    def __init__(self, store: Store, ref: str | None = None, cancel: Cancel | None = None) -> None:
        self._store = store
        self._ref = ref
        self._cancel = cancel or Cancel()
        self._entries: dict[bytes, tree.Entry] = {}
        self._links: dict[int, tree.Entry] = {}  # by the caller's number
        self._skipped: list[str] = []
        self._room = _MEMORY
        self._quarantined = store.objects.quarantined
        self._batch = store.batch()
        self._reader = Reader(self._batch, store.objects, self._cancel)

    def close(self) -> None:
        """Undo what is not committed."""
        self._batch.abort()

    def take(self, nodes: Sequence[Node], fds: Sequence[int]) -> Taken:
        """Some of a directory's paths, in any order but that a hard link's first name comes first; `fds`
        belong to the nodes with `fd`, in order, and stay the caller's. Raises Invalid, Changed, Denied,
        Exhausted."""
        if sum(1 for node in nodes if node.fd) != len(fds):
            raise Invalid(f"{len(fds)} descriptors came with nodes that announce others")
        given = iter(fds)
        files = size = 0
        for node in nodes:
            fd = next(given) if node.fd else None
            if node.path in self._entries:
                raise Invalid(f"{tree.show(node.path)} is there twice")
            if stat.S_ISSOCK(node.mode):
                self._skip(f"{tree.show(node.path)}: a socket")
                continue
            entry = self._entry(node, fd)
            self._entries[node.path] = entry
            if fd is not None:
                files += 1
                size += entry.size
        return Taken(files, size)

    def finish(self) -> Built:
        """Make the tree, durably. Raises Invalid, Conflict, NotFound (an object found bad meanwhile), Exhausted."""
        return self._commit(list(self._entries.values()), self._skipped)

    def tar(self, fd: int, compression: Compression, progress: Progress | None = None) -> Built:
        """The tree of a tar stream. Raises Invalid, Exhausted, Interrupted."""
        stream = open_stream(fd, compression, cancel=self._cancel.fd)
        return self._commit(*read_tree(stream, self._store_file, self._progress(progress)))

    def layers(self, fds: Sequence[int], progress: Progress | None = None) -> Built:
        """The tree of OCI layers, lowest first. Raises Invalid, Exhausted, Interrupted."""
        streams = (open_stream(fd, cancel=self._cancel.fd) for fd in fds)
        return self._commit(*read_layers(streams, self._store_file, self._progress(progress)))

    def _entry(self, node: Node, fd: int | None) -> tree.Entry:
        """The entry of a node, with its bytes stored."""
        self._room -= _ENTRY + len(node.path) + len(node.target) + sum(len(n) + len(v) for n, v in node.xattrs)
        if self._room < 0:
            raise Exhausted(f"names and attributes need over {_MEMORY >> 20} MiB", resource="memory")
        size, digest = 0, b""
        if stat.S_ISREG(node.mode):
            if fd is not None:
                stored = self._reader.store_file(fd, tree.show(node.path), keep_empty=False)
                size, digest = stored.size, stored.digest
            elif (first := self._links.get(node.link)) is not None:
                size, digest = first.size, first.digest
            else:
                raise Invalid(f"{tree.show(node.path)} came without a descriptor")
        elif fd is not None:
            raise Invalid(f"{tree.show(node.path)} is no regular file, and came with a descriptor")
        elif stat.S_ISLNK(node.mode):
            size = len(node.target)
        device = stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode)
        entry = tree.Entry(
            node.path,
            node.mode,
            node.uid,
            node.gid,
            node.mtime_ns,
            size,
            digest,
            node.target,
            node.major if device else 0,
            node.minor if device else 0,
            node.link,
            tuple(sorted(node.xattrs)) if node.xattrs else (),
        )
        if node.link:
            self._links.setdefault(node.link, entry)
        return entry

    def _store_file(self, chunks: Iterator[memoryview], size: int, extents: Sequence[tuple[int, int]] | None) -> bytes:
        """One file of a tar stream, with its holes."""
        if extents is None and size <= 1 << 20:
            return self._batch.put(self._store.objects, next(chunks)).digest
        incoming = self._batch.incoming(self._store.objects, size)
        try:
            if extents is None:
                for chunk in chunks:
                    incoming.write(chunk)
            else:
                _with_holes(incoming.write, self._hole(incoming.hole), chunks, size, extents)
            return incoming.finish().digest
        finally:
            incoming.discard()

    def _hole(self, hole: Callable[[int], None]) -> Callable[[int], None]:
        def step(count: int) -> None:
            while count > 0:
                self._cancel.check()
                hole(min(count, 256 << 20))
                count -= 256 << 20

        return step

    def _progress(self, progress: Progress | None) -> Progress:
        def report(files: int, size: int) -> None:
            self._cancel.check()
            if progress is not None:
                progress(files, size)

        return report

    def _commit(self, entries: list[tree.Entry], skipped: list[str]) -> Built:
        self._cancel.check()
        point("build.before-tree")
        manifest = self._batch.put(self._store.trees, tree.encode(entries))
        self._batch.commit()
        if self._store.objects.quarantined != self._quarantined:
            self._store.require_whole(entries)  # a verification may have taken what this build found there
        point("build.committed")
        files = [entry for entry in entries if entry.is_file]
        size = sum(entry.size for entry in files)
        if self._ref is not None:
            self._store.refs.set(self._ref, "tree", manifest.digest.hex(), size)
        point("build.done")
        return Built(
            manifest.digest.hex(),
            len(entries),
            len(files),
            size,
            self._batch.new_objects,
            self._batch.new_bytes,
            skipped,
        )

    def _skip(self, note: str) -> None:
        if len(self._skipped) < MAX_SKIPPED:
            self._skipped.append(note)


def _with_holes(
    write: Callable[[memoryview], None],
    hole: Callable[[int], None],
    chunks: Iterator[memoryview],
    size: int,
    extents: Sequence[tuple[int, int]],
) -> None:
    """`chunks` are the extents' bytes one after the other, cut anywhere."""
    at = 0
    chunk = memoryview(b"")
    for offset, length in extents:
        hole(offset - at)
        at = offset + length
        while length:
            if not chunk:
                chunk = next(chunks)
            piece = chunk[:length]
            write(piece)
            chunk = chunk[len(piece) :]
            length -= len(piece)
    hole(size - at)


def build_directory(store: Store, top: str | os.PathLike[str], ref: str | None = None) -> Built:
    """The tree of a directory that this process may read."""
    from volt_casd.walk import batches

    builder = Builder(store, ref)
    try:
        for nodes, fds in batches(os.fspath(top)):
            builder.take(nodes, fds)
        return builder.finish()
    finally:
        builder.close()
