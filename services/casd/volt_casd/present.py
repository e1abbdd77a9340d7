"""Entries of a tree as the contract shows them."""

from __future__ import annotations

import stat
from collections import Counter
from typing import TYPE_CHECKING, Final

from volt_casd import tree
from volt_casd.diff import changes
from volt_common.api import cas

if TYPE_CHECKING:
    from volt_casd.store import Store

_TYPES: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}


def ls(store: Store, name: str, path: bytes, recursive: bool) -> tuple[list[tree.Entry], Counter[int]]:
    """The entries that `cas.Ls` asks for, and how many names each hard-link group of the tree has.
    Raises NotFound."""
    entries = store.ls(name, path, recursive)
    if not any(entry.link for entry in entries):
        return entries, Counter()
    return entries, Counter(entry.link for entry in store.entries(store.resolve(name)) if entry.link)


def diff(store: Store, old: str, new: str) -> list[cas.Change]:
    """The changes that `cas.Diff` asks for. Raises NotFound."""
    before, after = (store.entries(store.resolve(name)) for name in (old, new))
    links = [Counter(entry.link for entry in entries if entry.link) for entries in (before, after)]
    return [
        cas.Change(
            path=change.path,
            before=None if change.before is None else entry(change.before, links[0]),
            after=None if change.after is None else entry(change.after, links[1]),
            what=list(change.what),
        )
        for change in changes(before, after)
    ]


def entry(found: tree.Entry, links: Counter[int]) -> cas.Entry:
    """One entry."""
    return cas.Entry(
        path=found.path,
        type=_TYPES[stat.S_IFMT(found.mode)],
        mode=stat.S_IMODE(found.mode),
        uid=found.uid,
        gid=found.gid,
        mtime_ns=found.mtime_ns,
        size=found.size,
        digest=found.digest.hex(),
        target=found.target,
        major=found.major,
        minor=found.minor,
        links=links[found.link] if found.link else 1,
        xattrs={name.decode("utf-8", "backslashreplace"): value for name, value in found.xattrs},
    )
