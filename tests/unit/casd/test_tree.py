"""Trees: canonical bytes, refusals by name, lookups, and the simple JSON form."""

from __future__ import annotations

import json
import random
import stat

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from volt_casd import tree
from volt_casd.tree import Entry
from volt_common.errors import Corrupt, Invalid, NotFound

D = stat.S_IFDIR | 0o755
F = stat.S_IFREG | 0o644
L = stat.S_IFLNK | 0o777
ROOT = Entry(b"", D, 0, 0, 0)
X = bytes(range(32))


def directory(path: bytes) -> Entry:
    return Entry(path, D, 0, 0, 0)


def file(path: bytes, size: int = 3, link: int = 0, mtime_ns: int = 0) -> Entry:
    return Entry(path, F, 0, 0, mtime_ns, size, X if size else b"", link=link)


SAMPLE = [
    ROOT,
    directory(b"a"),
    file(b"a-b"),
    file(b"a/x", link=7),
    file(b"a/y", 0),
    directory(b"a/z"),
    file(b"a/z/deep", link=7),
    Entry(b"dev", stat.S_IFCHR | 0o600, 0, 0, -1, major=5, minor=1),
    Entry(b"l\xff", L, 0, 0, 0, 4, target=b"a/\xfe?"),
    Entry(b"pipe", stat.S_IFIFO | 0o600, 1, 2, 3, xattrs=((b"user.a", b""), (b"user.b", b"\0"))),
]


def test_the_order_of_a_walk_and_the_numbers_of_links_change_nothing() -> None:
    shuffled = [msgspec.structs.replace(e, link=99 if e.link else 0) for e in SAMPLE]
    random.Random(1).shuffle(shuffled)
    assert tree.encode(shuffled) == tree.encode(SAMPLE)


def test_what_is_decoded_is_what_was_encoded() -> None:
    entries = tree.decode(tree.encode(SAMPLE))
    assert [e.path for e in entries] == sorted(e.path for e in SAMPLE)
    assert [e.link for e in entries if e.link] == [1, 1]
    assert tree.encode(entries) == tree.encode(SAMPLE)


def test_a_hard_link_whose_other_names_lie_outside_is_a_plain_file() -> None:
    assert tree.decode(tree.encode([ROOT, file(b"f", link=3)]))[1].link == 0


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([], "root"),
        ([file(b"f")], "root"),
        ([ROOT, file(b"f"), file(b"f")], "f is there twice"),
        ([ROOT, file(b"a/f")], "parent"),
        ([ROOT, file(b"a"), file(b"a/f")], "parent"),
        ([ROOT, Entry(b"a", L, 0, 0, 0, 1, target=b"/"), file(b"a/f")], "parent"),
        ([ROOT, file(b"..")], "not a path"),
        ([ROOT, directory(b"a"), file(b"a/..")], "not a path"),
        ([ROOT, file(b"/etc")], "not a path"),
        ([ROOT, file(b"a\0b")], "not a path"),
        ([ROOT, file(b"x" * 256)], "not a path"),
        ([ROOT, Entry(b"s", stat.S_IFSOCK | 0o600, 0, 0, 0)], "no type"),
        ([ROOT, Entry(b"f", F, 0, 0, 0, 5)], "digest"),
        ([ROOT, Entry(b"f", F, 0, 0, 0, 0, X)], "digest"),
        ([ROOT, Entry(b"f", F, -1, 0, 0)], "owner"),
        ([ROOT, Entry(b"f", F, 0, 0, 1 << 63)], "time"),
        ([ROOT, Entry(b"l", L, 0, 0, 0)], "target"),
        ([ROOT, Entry(b"f", F, 0, 0, 0, major=1)], "devices"),
        ([ROOT, Entry(b"f", F, 0, 0, 0, xattrs=((b"b", b""), (b"a", b"")))], "attributes"),
        ([ROOT, file(b"a", link=1), file(b"b", link=1, mtime_ns=5)], "same file"),
        ([ROOT, Entry(b"a", D, 0, 0, 0, link=1), Entry(b"b", D, 0, 0, 0, link=1)], "one name"),
    ],
)
def test_what_is_no_directory_is_refused_by_name(entries: list[Entry], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        tree.encode(entries)


def test_bytes_that_encode_would_not_have_made_are_corrupt() -> None:
    good = tree.encode(SAMPLE)
    raw = msgspec.msgpack.Encoder().encode
    backwards = tree.MAGIC + raw([ROOT, file(b"b"), file(b"a")])
    gap = tree.MAGIC + raw([ROOT, file(b"a", link=2), file(b"b", link=2)])
    single = tree.MAGIC + raw([ROOT, file(b"a", link=1)])
    for bad in (b"", good[:-1], good[1:], good + b"\0", b"x" + good, backwards, gap, single):
        with pytest.raises(Corrupt):
            tree.decode(bad)


@pytest.mark.parametrize("mode", [-1, -(1 << 62), 1 << 40, 0])
def test_a_mode_that_is_none_is_damage(mode: int) -> None:
    for entries in ([replace(ROOT, mode=mode)], [ROOT, replace(file(b"a"), mode=mode)]):
        with pytest.raises(Corrupt):
            tree.decode(tree.MAGIC + b"".join(map(msgspec.msgpack.encode, entries)))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_no_changed_byte_is_taken_for_another_canonical_tree_or_crashes(at: int, value: int) -> None:
    data = bytearray(tree.encode(SAMPLE))
    data[at % len(data)] = value
    try:
        entries = tree.decode(bytes(data))
    except Corrupt:
        return
    assert tree.encode(entries) == bytes(data)


def test_lookups_find_what_a_walk_over_all_finds() -> None:
    entries = tree.decode(tree.encode(SAMPLE))
    for entry in entries:
        assert tree.find(entries, entry.path) == entry
        inside = [
            e for e in entries if e.path != entry.path and (not entry.path or e.path.startswith(entry.path + b"/"))
        ]
        depth = entry.path.count(b"/") + 1 if entry.path else 0
        assert list(tree.below(entries, entry.path)) == inside
        assert list(tree.children(entries, entry.path)) == [e for e in inside if e.path.count(b"/") == depth]
    assert tree.find(entries, b"a/") is None


def test_the_simple_form_becomes_a_tree_with_its_directories() -> None:
    empty = b"\1" * 32
    text = {
        "name": "q",
        "created_at": "2025-01-02T03:04:05Z",
        "objects": {"bin/q": X.hex(), "bin/e": empty.hex()},
        "more": 1,
    }
    entries = tree.from_simple(json.dumps(text).encode(), lambda digest: 0 if digest == empty else 9)
    assert [(e.path, e.size, e.digest) for e in entries] == [
        (b"", 0, b""),
        (b"bin", 0, b""),
        (b"bin/e", 0, b""),
        (b"bin/q", 9, X),
    ]
    assert {e.mtime_ns for e in entries} == {1735787045 * 10**9}
    tree.encode(entries)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b'{"name":"q","created_at":"yesterday","objects":{}}',
        b'{"name":"q","created_at":0,"objects":{"a":"zz"}}',
        b'{"name":"q","created_at":0,"objects":{"../a":"00"}}',
        b'{"name":"q","created_at":0,"objects":{"a/../../b":"%s"}}' % X.hex().encode(),
    ],
)
def test_a_bad_simple_form_is_refused(text: bytes) -> None:
    with pytest.raises(Invalid):
        tree.from_simple(text, lambda digest: 1)


def test_a_simple_form_whose_object_is_missing_is_not_found() -> None:
    def missing(digest: bytes) -> int:
        raise NotFound(kind="object", name=digest.hex())

    with pytest.raises(NotFound):
        tree.from_simple(b'{"name":"q","created_at":0,"objects":{"a":"%s"}}' % X.hex().encode(), missing)
