"""Paths and the inodes they name, while an archive is read; then the canonical entries of the tree."""

from __future__ import annotations

import stat
from typing import Final

import msgspec

from volt_casd.tar.pax import XattrList
from volt_casd.tree import Entry

SKIPPED_MAX: Final = 20


class Inode(msgspec.Struct, gc=False):  # it refers to nothing that could refer to it
    """What one or more paths name."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    digest: bytes = b""
    target: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: XattrList = ()
    implied: bool = False  # a directory that the archive uses, and does not hold
    linked: bool = False  # by a hard link, so that it may have several names
    children: int = 0  # of a directory, in this archive

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


Names = dict[bytes, Inode]
"""By path; b"" is the root."""


class Tally:
    """What a tree cannot hold: the first few in words, for the person who asked for the tree."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def add(self, text: str) -> None:
        if len(self.skipped) < SKIPPED_MAX:
            self.skipped.append(text)


def implied_directory() -> Inode:
    return Inode(stat.S_IFDIR | 0o755, 0, 0, 0, implied=True)


def entries(names: Names) -> list[Entry]:
    """Sorted by path, the root first; hard-link groups numbered from 1 by their first path."""
    several: dict[int, int] = {}
    for inode in names.values():
        if inode.linked:
            several[id(inode)] = several.get(id(inode), 0) + 1
    numbers: dict[int, int] = {}
    found: list[Entry] = []
    for path in sorted(names):
        inode = names[path]
        link = 0
        if inode.linked and several[id(inode)] > 1:
            link = numbers.setdefault(id(inode), len(numbers) + 1)
        found.append(
            Entry(
                path,
                inode.mode,
                inode.uid,
                inode.gid,
                inode.mtime_ns,
                inode.size,
                inode.digest,
                inode.target,
                inode.major,
                inode.minor,
                link,
                inode.xattrs,
            )
        )
    return found
