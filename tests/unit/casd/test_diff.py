"""What differs between two trees is told, path by path, and nothing else."""

from __future__ import annotations

import stat

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from volt_casd import tree
from volt_casd.diff import changes
from volt_casd.tree import Entry

ROOT = Entry(b"", stat.S_IFDIR | 0o755, 0, 0, 0)
A, B = b"a" * 32, b"b" * 32


def file(path: bytes, digest: bytes = A, size: int = 1, link: int = 0, mode: int = 0o644) -> Entry:
    return Entry(path, stat.S_IFREG | mode, 0, 0, 5, size, digest, link=link)


def told(old: list[Entry], new: list[Entry]) -> dict[bytes, str]:
    """Through the trees' bytes, which number the link groups."""
    one, other = (tree.decode(tree.encode([ROOT, *entries])) for entries in (old, new))
    found = {}
    for change in changes(one, other):
        kind = "added" if change.before is None else "removed" if change.after is None else ",".join(change.what)
        found[change.path] = kind
    return found


def test_what_came_went_and_changed() -> None:
    old = [file(b"gone"), file(b"same"), file(b"text")]
    new = [file(b"new"), file(b"same"), file(b"text", B)]
    assert told(old, new) == {b"gone": "removed", b"new": "added", b"text": "content"}


def test_names_that_sort_between_a_directory_and_its_content() -> None:
    directory = Entry(b"a", stat.S_IFDIR | 0o755, 0, 0, 0)
    old = [directory, file(b"a-b"), file(b"a/x")]
    new = [directory, file(b"a/x"), file(b"a/y")]
    assert told(old, new) == {b"a-b": "removed", b"a/y": "added"}


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"mode": stat.S_IFREG | 0o755}, "mode"),
        ({"uid": 7}, "owner"),
        ({"gid": 7}, "owner"),
        ({"mtime_ns": 6}, "time"),
        ({"xattrs": ((b"user.a", b"b"),)}, "xattrs"),
        ({"digest": B, "size": 2}, "content"),
        ({"mode": stat.S_IFIFO | 0o644, "digest": b"", "size": 0}, "type"),
        ({"mode": stat.S_IFLNK | 0o777, "digest": b"", "size": 1, "target": b"x"}, "type"),
    ],
)
def test_each_difference_has_its_word(changed: dict[str, object], what: str) -> None:
    before = file(b"f")
    assert told([before], [msgspec.structs.replace(before, **changed)]) == {b"f": what}


def test_a_symlink_that_points_elsewhere() -> None:
    def link(target: bytes) -> Entry:
        return Entry(b"l", stat.S_IFLNK | 0o777, 0, 0, 0, len(target), target=target)

    assert told([link(b"a")], [link(b"bc")]) == {b"l": "target"}


def test_hard_links_are_the_same_whatever_their_group_is_called() -> None:
    pair = [file(b"m", link=1), file(b"n", link=1)]
    before = [file(b"a", link=2), file(b"b", link=2), *pair]
    assert told(before, pair) == {b"a": "removed", b"b": "removed"}
    assert told(pair, [file(b"m"), file(b"n")]) == {b"m": "links", b"n": "links"}


FILES = some.dictionaries(some.sampled_from([b"a", b"b", b"c", b"d", b"e"]), some.sampled_from([A, B]))


@settings(deadline=None)
@given(FILES, FILES)
def test_it_is_the_difference_of_two_tables(old: dict[bytes, bytes], new: dict[bytes, bytes]) -> None:
    wanted = dict.fromkeys(old.keys() - new.keys(), "removed")
    wanted |= dict.fromkeys(new.keys() - old.keys(), "added")
    wanted |= {path: "content" for path in old.keys() & new.keys() if old[path] != new[path]}
    one, other = ([file(path, digest) for path, digest in found.items()] for found in (old, new))
    assert told(one, other) == wanted
    assert told(one, one) == {}
