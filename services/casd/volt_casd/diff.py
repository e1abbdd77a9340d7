"""What differs between two trees: one walk along both, which are sorted alike."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence

import msgspec

from volt_casd.tree import Entry


class Change(msgspec.Struct, frozen=True):
    """One path that is not the same in both. `what` names the differences of one that is in both."""

    path: bytes
    before: Entry | None
    after: Entry | None
    what: tuple[str, ...] = ()


def changes(old: Sequence[Entry], new: Sequence[Entry]) -> Iterator[Change]:
    """By path. Directories count as paths of their own: what was below one that is gone is told path by path."""
    links = _first_names(old), _first_names(new)
    a = b = 0
    while a < len(old) or b < len(new):
        if b == len(new) or (a < len(old) and old[a].path < new[b].path):
            yield Change(old[a].path, old[a], None)
            a += 1
        elif a == len(old) or new[b].path < old[a].path:
            yield Change(new[b].path, None, new[b])
            b += 1
        else:
            if what := _differences(old[a], new[b], links):
                yield Change(old[a].path, old[a], new[b], what)
            a, b = a + 1, b + 1


def _first_names(entries: Sequence[Entry]) -> dict[int, bytes]:
    """The first name of each hard-link group: the groups' numbers are each tree's own."""
    found: dict[int, bytes] = {}
    for entry in entries:
        if entry.link:
            found.setdefault(entry.link, entry.path)
    return found


def _differences(before: Entry, after: Entry, links: tuple[dict[int, bytes], dict[int, bytes]]) -> tuple[str, ...]:
    if stat.S_IFMT(before.mode) != stat.S_IFMT(after.mode):
        return ("type",)
    pairs = {
        "content": ((before.digest, before.size), (after.digest, after.size)),
        "target": (before.target, after.target),
        "device": ((before.major, before.minor), (after.major, after.minor)),
        "mode": (before.mode, after.mode),
        "owner": ((before.uid, before.gid), (after.uid, after.gid)),
        "time": (before.mtime_ns, after.mtime_ns),
        "xattrs": (before.xattrs, after.xattrs),
        "links": (links[0].get(before.link), links[1].get(after.link)),
    }
    if before.is_symlink:  # its size is its target's
        del pairs["content"]
    return tuple(name for name, (one, other) in pairs.items() if one != other)
