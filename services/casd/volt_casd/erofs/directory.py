"""Directories: which entry lies in which, and their blocks of names.

A block is its dirents, then its names. The first dirent's name offset says how many dirents there are; a
name ends at the next one's offset, at the directory's size, or at a NUL in a block with space left.
"""

from __future__ import annotations

import stat
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, repeat
from struct import Struct
from typing import Final

from volt_casd.erofs.layout import BLOCK, invalid
from volt_casd.tree import Entry
from volt_common.errors import Invalid

_DIRENT: Final = "QHBB"  # nid, offset of the name, type, reserved
_DIRENT_SIZE: Final = 12
_NAME_MAX: Final = 255


class Directory:
    """A directory's names in their order on disk, and the index of the entry that each one means."""

    __slots__ = ("children", "index", "names", "parent", "starts", "subdirectories", "tail")

    def __init__(self, index: int, parent: Directory | None) -> None:
        self.index = index
        self.parent = parent or self  # the root is its own
        self.names: list[bytes] = []
        self.children: list[int] = []
        self.subdirectories = 0
        self.starts: list[int] = []
        """Which name begins each block; set by `seal`."""
        self.tail = 0
        """Bytes used of the last block; set by `seal`."""

    @property
    def size(self) -> int:
        """Bytes of the directory, with all blocks but the last one whole."""
        return (len(self.starts) - 1) * BLOCK + self.tail

    def seal(self) -> None:
        """Add `.` and `..`, and divide the names into blocks; all names are there, sorted."""
        # The two are sorted with the rest, so names such as `-x` come before them.
        for name, index in ((b".", self.index), (b"..", self.parent.index)):
            at = bisect_left(self.names, name)
            self.names.insert(at, name)
            self.children.insert(at, index)
        ends = list(accumulate(len(name) + _DIRENT_SIZE for name in self.names))
        first, base = 0, 0
        while first < len(ends):
            self.starts.append(first)
            first = bisect_right(ends, base + BLOCK, first)
            self.tail, base = ends[first - 1] - base, ends[first - 1]

    def blocks(self, nids: Sequence[int], types: Sequence[int]) -> list[bytes]:
        """The bytes of each block, the last one not padded; `nids` and `types` are those of all entries."""
        blocks = []
        for first, end in zip(self.starts, [*self.starts[1:], len(self.names)], strict=True):
            names, children = self.names[first:end], self.children[first:end]
            offsets = accumulate(map(len, names), initial=_DIRENT_SIZE * len(names))
            rows = zip([nids[i] for i in children], offsets, [types[i] for i in children], repeat(0), strict=False)
            dirents = Struct("<" + _DIRENT * len(names)).pack(*chain.from_iterable(rows))
            blocks.append((dirents + b"".join(names)).ljust(0 if end == len(self.names) else BLOCK, b"\0"))
        return blocks


def directories(entries: Sequence[Entry]) -> list[Directory]:
    """The directories of entries sorted by path, in that order. Sorting whole paths sorts the names inside
    each directory too, as they share what comes before.

    Raises Invalid for an entry without its directory, a path given twice, and a name that is none.
    """
    if not entries or entries[0].path or not entries[0].is_directory:
        raise Invalid("a tree's first entry is its root directory, with an empty path")
    root = Directory(0, None)
    known = {b"": root}
    inside, inside_path = root, b""
    before = b""
    for index, entry in enumerate(entries):
        if not index:
            continue
        path = entry.path
        parent, _, name = path.rpartition(b"/")
        if path == before:
            raise invalid(path, "the path is there twice")
        before = path
        if not name or len(name) > _NAME_MAX or name in (b".", b"..") or path[0] == 47 or b"\0" in name:
            raise invalid(path, "no image can hold such a name")
        if parent != inside_path:
            if parent not in known:
                raise invalid(path, "it lies in no directory of the tree")
            inside, inside_path = known[parent], parent
        inside.names.append(name)
        inside.children.append(index)
        if stat.S_ISDIR(entry.mode):
            known[path] = Directory(index, inside)
            inside.subdirectories += 1
    return list(known.values())
