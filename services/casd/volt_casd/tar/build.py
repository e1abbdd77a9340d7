"""A tree from an archive: what the members mean, in the order they come.

As tar does, the later of two members of one name wins: a file takes the place of a file or link, a
directory's new metadata take the place of the old and its children stay. Unlike tar, nothing is resolved:
a member below a symlink or a file of the archive, a hard link to a name that is not in it yet, and
anything but a directory in the place of a directory that has children are refused, by name.
Directories that the archive uses and does not hold are 0755, root's, of time 0.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from volt_casd.tar.inodes import Inode, Names, Tally, entries, implied_directory
from volt_casd.tar.limits import Budget, Limits
from volt_casd.tar.names import PATH_MAX, clean, parent, shown
from volt_casd.tar.reader import Body, Member, members
from volt_casd.tar.sparse import Extents
from volt_casd.tar.window import Readable
from volt_casd.tree import Entry
from volt_common.errors import Invalid

StoreFile = Callable[[Iterator[memoryview], int, Extents | None], bytes]
"""Keep one file that is not empty, and give its 32-byte BLAKE3 digest: `(chunks, size, extents)`.

The chunks must be used before it returns. A file of up to 1 MiB comes as one chunk. With `extents`
((offset, length), …) the file has holes: the chunks are the extents' bytes alone, one after the other,
and `size` is the whole file's.
"""

Progress = Callable[[int, int], None]
"""`(files, bytes)` so far; what it raises ends the reading."""

PROGRESS_BYTES: Final = 4 << 20
PROGRESS_FILES: Final = 256

_NO_NAMES: Final[Mapping[bytes, Inode]] = {}


def read_tree(
    stream: Readable,
    store_file: StoreFile,
    on_progress: Progress | None = None,
    *,
    limits: Limits | None = None,
) -> tuple[list[Entry], list[str]]:
    """The canonical entries of the archive that `stream` reads, and up to 20 notes on what of it no tree
    can hold. Raises Invalid, Exhausted, and what `store_file` and `on_progress` raise."""
    budget = Budget(limits or Limits())
    builder = TreeBuilder(store_file, budget, Tally(), on_progress)
    for member, body in members(stream, budget.limits):
        builder.add(member, body)
    return entries(builder.names), builder.tally.skipped


class TreeBuilder:
    """Members in, names and inodes out. `below` is what hard links may name beside this archive's own."""

    def __init__(
        self,
        store_file: StoreFile,
        budget: Budget,
        tally: Tally,
        on_progress: Progress | None = None,
        below: Mapping[bytes, Inode] = _NO_NAMES,
    ) -> None:
        self.names: Names = {b"": implied_directory()}
        self.tally = tally
        self.files = 0
        self.bytes = 0
        self._store_file = store_file
        self._budget = budget
        self._on_progress = on_progress
        self._below = below
        self._reported = (0, 0)

    def add(self, member: Member, body: Body) -> None:
        """Raises Invalid, Exhausted."""
        if member.skip:
            self.tally.add(f"{shown(member.path)}: {member.skip}")
            return
        path = clean(member.path)
        for note in member.notes:
            self.tally.add(f"{shown(path)}: {note}")
        above = self.require_parents(path)
        inode = self._linked(path, member) if member.hardlink is not None else self._inode(path, member)
        self._place(path, inode, above)
        if stat.S_ISREG(member.mode):
            self._store(inode, member, body)

    def require_parents(self, path: bytes) -> Inode:
        """The directory above `path` (the root is above itself), made if need be, with those above it.
        Raises Invalid if one is no directory."""
        directory = parent(path)
        missing: list[bytes] = []
        while (above := self.names.get(directory)) is None:
            missing.append(directory)
            directory = parent(directory)
        if not above.is_directory:
            what = "symlink" if stat.S_ISLNK(above.mode) else "file"
            raise Invalid(f"a member is written through the {what} {shown(directory)}")
        for directory in reversed(missing):
            self._budget.metadata(len(directory))
            above.children += 1
            above = self.names[directory] = implied_directory()
        return above

    def charge(self, path: bytes) -> None:
        """For a path that is remembered elsewhere. Raises Exhausted."""
        self._budget.metadata(len(path))

    def _inode(self, path: bytes, member: Member) -> Inode:
        target = member.target
        if stat.S_ISLNK(member.mode) and (not target or b"\0" in target or len(target) > PATH_MAX):
            raise Invalid(f"the symlink {shown(path)} has a target that is empty, too long, or holds a NUL")
        cost = len(path) + len(target)
        if member.xattrs:
            cost += sum(len(name) + len(value) + 64 for name, value in member.xattrs)
        self._budget.metadata(cost)
        return Inode(
            member.mode,
            member.uid,
            member.gid,
            member.mtime_ns,
            len(target),
            b"",
            target,
            member.major,
            member.minor,
            member.xattrs,
        )

    def _linked(self, path: bytes, member: Member) -> Inode:
        """What a hard link names: an earlier member, or a path of the layers below, exactly."""
        target = clean(member.hardlink or b"")
        inode = self.names.get(target) or self._below.get(target)
        if inode is None:
            raise Invalid(f"{shown(path)} is a hard link to {shown(target)}, which is not in the archive before it")
        if inode.is_directory:
            raise Invalid(f"{shown(path)} is a hard link to the directory {shown(target)}")
        self._budget.metadata(len(path))
        inode.linked = True
        return inode

    def _place(self, path: bytes, inode: Inode, above: Inode) -> None:
        old = self.names.get(path)
        if old is None:
            above.children += 1
        elif old.is_directory:
            if inode.is_directory:
                inode.children = old.children
            elif old.children or not path:
                raise Invalid(f"{shown(path) or 'the root'} is a directory first, and then something else")
        self.names[path] = inode

    def _store(self, inode: Inode, member: Member, body: Body) -> None:
        size, before = member.size, self.bytes
        if size:
            self._budget.file(size)
            chunks = body.chunks()
            if size > PROGRESS_BYTES:
                chunks = self._counted(chunks)
            inode.size = size
            inode.digest = self._store_file(chunks, size, member.extents)
        self.files += 1
        self.bytes = before + size
        self._report()

    def _counted(self, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        """A large file tells of its progress, and can be stopped, on the way."""
        for chunk in chunks:
            yield chunk
            self.bytes += len(chunk)
            self._report()

    def _report(self) -> None:
        if self._on_progress is not None and (
            self.files - self._reported[0] >= PROGRESS_FILES or self.bytes - self._reported[1] >= PROGRESS_BYTES
        ):
            self._reported = (self.files, self.bytes)
            self._on_progress(self.files, self.bytes)
