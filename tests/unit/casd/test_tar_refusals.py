"""An archive that escapes, lies or is cut short is refused, and the refusal names what was wrong."""

from __future__ import annotations

import os
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.casd.archives import (
    END,
    Kept,
    block,
    directory,
    file,
    hardlink,
    padded,
    pax,
    refusal,
    stream,
    symlink,
)

from volt_casd import tree
from volt_casd.layers import read_layers
from volt_casd.tar import Limits, read_tree
from volt_common.errors import Exhausted, Invalid

NUL = b"\0"


def refused(data: bytes, limits: Limits | None = None) -> str:
    return refusal(lambda: read_tree(stream(data), Kept(), limits=limits))


def longname(name: bytes, kind: bytes = b"L") -> bytes:
    return block(b"././@LongLink", kind, len(name)) + padded(name)


def base256(value: int, width: int) -> bytes:
    field = bytearray(value.to_bytes(width, "big", signed=True))
    field[0] |= 0x80
    return bytes(field)


def sparse_pax(size: int, *records: tuple[bytes, bytes]) -> bytes:
    return pax((b"GNU.sparse.size", b"%d" % size), *records)


SPARSE_1 = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"1000"))


def old_sparse(extents: list[tuple[int, int]], real: int, data: bytes, *, more: int = 0) -> bytes:
    made = bytearray(block(b"s", b"S", len(data), magic=b"ustar  \0"))
    for at, (offset, length) in enumerate(extents):
        made[386 + 24 * at : 410 + 24 * at] = b"%011o\0%011o\0" % (offset, length)
    made[482] = more
    made[483:495] = b"%011o\0" % real
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made) + padded(data)


ESCAPES = [
    (file(b"../f"), "the name ../f has a component `..`"),
    (file(b"a/../../f"), "the name a/../../f has a component `..`"),
    (directory(b".."), "the name .. has a component `..`"),
    (file(b"/etc/passwd"), "the name /etc/passwd is absolute"),
    (file(b"//f"), "the name //f is absolute"),
    (pax((b"path", b"/etc/passwd")) + file(b"f"), "the name /etc/passwd is absolute"),
    (pax((b"path", b"x/../y")) + file(b"f"), "the name x/../y has a component `..`"),
    (pax((b"GNU.sparse.name", b"../y")) + file(b"f"), "no number"),
    (longname(b"../y\0") + file(b"f"), "the name ../y has a component `..`"),
    (block(b"f", prefix=b"/abs"), "the name /abs/f is absolute"),
    (hardlink(b"f", b"/etc/shadow"), "the name /etc/shadow is absolute"),
    (hardlink(b"f", b"../shadow"), "the name ../shadow has a component `..`"),
    (symlink(b"d", b"/etc") + file(b"d/passwd"), "written through the symlink d"),
    (symlink(b"d", b"..") + directory(b"d/e"), "written through the symlink d"),
    (symlink(b"d", b"..") + symlink(b"d/e", b"x"), "written through the symlink d"),
    (symlink(b"d", b"..") + file(b"f") + hardlink(b"d/e", b"f"), "written through the symlink d"),
    (directory(b"a") + symlink(b"a/d", b"x") + file(b"a/d/e/f"), "written through the symlink a/d"),
    (directory(b"d") + symlink(b"d", b"/etc") + file(b"d/x"), "written through the symlink d"),
    (file(b"f") + file(b"f/x"), "written through the file f"),
    (block(b"p", b"6") + file(b"p/x"), "written through the file p"),
    (file(b"d/x") + symlink(b"d", b"/etc"), "d is a directory first, and then something else"),
    (symlink(b".", b"/"), "the root is a directory first"),
    (file(b"./", b"x"), "./ is a directory with 1 bytes"),
    (hardlink(b"a", b"b") + file(b"b"), "a is a hard link to b, which is not in the archive before it"),
    (symlink(b"d", b"e") + file(b"e/f") + hardlink(b"a", b"d/f"), "a is a hard link to d/f, which is not"),
    (directory(b"d") + hardlink(b"a", b"d"), "a is a hard link to the directory d"),
    (hardlink(b"a", b"a"), "a is a hard link to a, which is not"),
    (hardlink(b"a", b"."), "hard link to the directory"),
    (hardlink(b"a", b""), "no name"),
]

NAMES = [
    (block(b""), "a member has no name"),
    (pax((b"path", b"a\0b")) + file(b"f"), "the name a\\x00b holds a NUL"),
    (pax((b"linkpath", b"a\0b")) + symlink(b"f", b"x"), "the symlink f has a target that is empty, too long, or"),
    (symlink(b"f", b""), "the symlink f has a target that is empty"),
    (longname(b"t" * 4096, b"K") + symlink(b"f", b"x"), "the symlink f has a target that is empty, too long"),
    (pax((b"path", b"n" * 256)) + file(b"f"), "a component has over 255 bytes"),
    (pax((b"path", b"n/" * 2047 + b"nn")) + file(b"f"), "is too long: 4096 bytes, at most 4095"),
    (longname(b"n" * 9000) + file(b"f"), "a name is too long: 9000 bytes"),
    (longname(b"a") + longname(b"b") + file(b"f"), "two long names belong to one member"),
    (longname(b"a", b"K") + longname(b"b", b"K") + file(b"f"), "two long link targets belong to one member"),
]

LIES = [
    (block(b"f", size=3000) + bytes(512), "cut short in f"),
    (block(b"f", size=base256(1 << 62, 12)), "f: size 4611686018427387904 is out of range"),
    (block(b"f", size=base256(-512, 12)), "f: size -512 is out of range"),
    (pax((b"size", b"4611686018427387904")) + block(b"f"), "f: size 4611686018427387904 is out of range"),
    (pax((b"size", b"-1")) + block(b"f"), "size is -1"),
    (pax((b"size", b"1_0")) + block(b"f"), "size is 1_0"),
    (pax((b"size", b"9" * 5000)) + block(b"f"), "size is 999"),
    (pax((b"size", b"5000")) + file(b"f", b"x") + END, "cut short in f"),
    (block(b"f", checksum=0), "no header with a right checksum at byte 0"),
    (file(b"a", b"x") + block(b"b", checksum=1), "no header with a right checksum at byte 1024"),
    (os.urandom(512).replace(NUL, b"1"), "checksum"),
    (block(b"f", size=b"0x00000001a\0"), "f has a field that is no number"),
    (block(b"f", size=b"-0000000001\0"), "f has a field that is no number"),
    (block(b"f", mode=b"0o000644"), "f has a field that is no number"),
    (block(b"f", uid=b"00009999"), "f has a field that is no number"),
    (block(b"f", uid=base256(1 << 32, 8)), "f: owner 4294967296 is out of range"),
    (block(b"f", uid=base256(-1, 8)), "f: owner -1 is out of range"),
    (block(b"f", gid=base256((1 << 32) - 1, 8)), "f: group 4294967295 is out of range"),
    (block(b"f", mode=base256(-1, 8)), "f: mode -1 is out of range"),
    (block(b"f", mtime=base256(1 << 40, 12)), "f: its time is out of range"),
    (pax((b"uid", b"4294967295")) + block(b"f"), "f: owner 4294967295 is out of range"),
    (pax((b"mtime", b"99999999999")) + block(b"f"), "f: its time is out of range"),
    (pax((b"mtime", b"nan")) + block(b"f"), "mtime is nan"),
    (pax((b"mtime", b"1e9")) + block(b"f"), "mtime is 1e9"),
    (block(b"d", b"3", major=4096), "d: device number 4096 is out of range"),
    (block(b"d", b"4", minor=1 << 20), "d: device number 1048576 is out of range"),
    (pax((b"SCHILY.devmajor", b"4096")) + block(b"d", b"3"), "d: device number 4096 is out of range"),
    (block(b"f", b"8"), "f is of the unknown type 8"),
    (block(b"f", b"\xff"), "f is of the unknown type"),
    (block(b"f", b"M", 9), "f is a part of a file that another volume begins"),
]

PAX = [
    (block(b"x", b"x", (1 << 20) + 1), "an extended header is too long: 1048577 bytes"),
    (block(b"x", b"x", base256(-1, 12)), "an extended header is too long: -1 bytes"),
    (block(b"x", b"x", 9000) + bytes(600), "cut short in x"),
    (pax((b"path", b"f")) + pax((b"path", b"g")) + block(b"f"), "two extended headers belong to one member"),
    (pax((b"path", b"f")), "ends after an extended header"),
    (longname(b"f"), "ends after an extended header"),
    (pax((b"path", b"f"), kind=b"g") + block(b"f"), "a global extended header sets path"),
    (pax((b"size", b"1"), kind=b"g") + block(b"f"), "a global extended header sets size"),
    (pax((b"GNU.sparse.size", b"1"), kind=b"g") + block(b"f"), "a global extended header sets GNU.sparse.size"),
    (b"".join(pax((b"k%d" % n, b"v" * 600_000), kind=b"g") for n in range(2)), "the global extended headers are over"),
    (pax((b"SCHILY.xattr.user." + b"n" * 251, b"")) + block(b"f"), "an extended attribute cannot be named user.nnn"),
    (pax((b"SCHILY.xattr.user.", b"")) + block(b"f"), "an extended attribute cannot be named user."),
    (pax((b"SCHILY.xattr.user.a\0b", b"")) + block(b"f"), "an extended attribute cannot be named user.a"),
    (pax((b"SCHILY.xattr.user.a", bytes(65536))) + block(b"f"), "the extended attribute user.a has 65536 bytes"),
    (pax((b"LIBARCHIVE.xattr.user.a", b"?!")) + block(b"f"), "LIBARCHIVE.xattr.user.a is not base64"),
    (pax((b"LIBARCHIVE.xattr.user.a", b"A")) + block(b"f"), "LIBARCHIVE.xattr.user.a is not base64"),
    *[
        (block(b"x", b"x", len(text)) + padded(text) + block(b"f"), "an extended header is damaged: no record")
        for text in (
            b"junk",
            b"5 a=b\n",
            b"7 a=b\n",
            b"6 a=bc",
            b"4 ab\n",
            b"-6 a=b\n",
            b" a=b\n",
            b"0 a=b\n",
            b"1 a=b\n",
            b"+6 a=b\n",
            b"6_ a=b\n",
            b"99999999999 a=b\n",
            b"6 a=b\n" + b"6 a=b",
            bytes(20),
        )
    ],
]

HOLES = [
    (sparse_pax(100, (b"GNU.sparse.map", b"0,3,2,3")) + file(b"s", b"abcdef"), "extents overlap or leave the file"),
    (sparse_pax(100, (b"GNU.sparse.map", b"99,2")) + file(b"s", b"ab"), "extents overlap or leave the file"),
    (sparse_pax(100, (b"GNU.sparse.map", b"0,2")) + file(b"s", b"abc"), "it tells of 2 bytes, 3 are there"),
    (sparse_pax(100, (b"GNU.sparse.map", b"0,3")) + file(b"s", b"ab"), "it tells of 3 bytes, 2 are there"),
    (sparse_pax(100, (b"GNU.sparse.map", b"0,3,4")) + file(b"s", b"abc"), "an offset without a length"),
    (sparse_pax(100, (b"GNU.sparse.map", b"0,-3")) + file(b"s", b"abc"), "-3 is no number"),
    (sparse_pax(100, (b"GNU.sparse.map", b"0," + b"1" * 30)) + file(b"s"), "is no number"),
    (sparse_pax(100, (b"GNU.sparse.numbytes", b"3")) + file(b"s", b"abc"), "do not alternate"),
    (sparse_pax(100, *[(b"GNU.sparse.offset", b"0")] * 2) + file(b"s", b"abc"), "do not alternate"),
    (sparse_pax(1 << 50, (b"GNU.sparse.map", b"0,1")) + file(b"s", b"a"), "s: size 1125899906842624 is out of range"),
    (pax((b"GNU.sparse.map", b"0,1")) + file(b"s", b"a"), "is no number"),
    (pax((b"GNU.sparse.major", b"2"), *SPARSE_1[1:]) + file(b"s", b"a"), "s is sparse in an unknown form"),
    (pax(*SPARSE_1) + file(b"s", b"a"), "it is longer than the member"),
    (pax(*SPARSE_1) + file(b"s", padded(b"x\n")), "x is no number"),
    (pax(*SPARSE_1) + file(b"s", padded(b"99999999\n")), "has over 1048576 extents"),
    (pax(*SPARSE_1) + file(b"s", padded(b"2\n0\n1\n")), "it is longer than the member"),
    (pax(*SPARSE_1) + file(b"s", b"1\n" + b"0" * 2046), "a line without an end"),
    (pax(*SPARSE_1) + file(b"s", padded(b"1\n0\n5\n") + b"abc"), "it tells of 5 bytes, 3 are there"),
    (pax(*SPARSE_1) + block(b"s", size=1024), "cut short in the sparse map of s"),
    (old_sparse([(0, 3), (2, 3)], 100, b"abcdef"), "extents overlap or leave the file"),
    (old_sparse([(0, 3)], 2, b"abc"), "extents overlap or leave the file"),
    (old_sparse([(0, 3)], 9, b"abcd"), "it tells of 3 bytes, 4 are there"),
    (old_sparse([(0, 3)], 100, b"", more=1)[:512], "cut short in the sparse map of s"),
]


@pytest.mark.parametrize(("data", "says"), ESCAPES)
def test_an_archive_that_escapes_is_refused(data: bytes, says: str) -> None:
    assert says in refused(data + END)


@pytest.mark.parametrize(("data", "says"), NAMES)
def test_a_name_that_no_file_system_holds_is_refused(data: bytes, says: str) -> None:
    assert says in refused(data + END)


@pytest.mark.parametrize(("data", "says"), LIES)
def test_a_header_that_lies_is_refused(data: bytes, says: str) -> None:
    assert says in refused(data + (b"" if "cut short" in says else END))


@pytest.mark.parametrize(("data", "says"), PAX)
def test_a_damaged_extended_header_is_refused(data: bytes, says: str) -> None:
    assert says in refused(data + (b"" if "cut short" in says else END))


@pytest.mark.parametrize(("data", "says"), HOLES)
def test_a_sparse_map_that_lies_is_refused(data: bytes, says: str) -> None:
    assert says in refused(data + (b"" if "cut short" in says else END))


WHOLE = (
    directory(b"d")
    + file(b"d/f", b"x" * 700)
    + pax((b"path", b"d/g"), (b"mtime", b"1.5"))
    + file(b"g", b"y" * 1300)
    + longname(b"l" * 150 + b"\0")
    + symlink(b"l", b"t")
)


def test_an_archive_cut_anywhere_is_refused() -> None:
    read_tree(stream(WHOLE + END), Kept())
    for cut in range(0, len(WHOLE) + 1, 64):
        assert refused(WHOLE[:cut])
    for cut in (1, 511):
        assert "cut short" in refused(WHOLE + END[:cut])
    assert refused(b"") == "the archive is empty"


def test_bytes_after_the_end_are_refused() -> None:
    assert "after its end" in refused(WHOLE + END + bytes(5 << 20) + b"x")
    assert "after its end" in refused(WHOLE + bytes(512) + WHOLE + END)


def test_metadata_without_end_is_refused_before_memory_is_full() -> None:
    limits = Limits(metadata_bytes=1 << 20)
    many = b"".join(block(b"%d" % at) for at in range(3000)) + END
    heavy = b"".join(pax((b"SCHILY.xattr.user.a", bytes(60_000))) + block(b"%d" % at) for at in range(20)) + END
    deep = b"".join(pax((b"path", b"%d/" % at + b"a/" * 1000)) + block(b"x") for at in range(30)) + END
    for data in (many, heavy, deep):
        with pytest.raises(Exhausted, match="names and attributes"):
            read_tree(stream(data), Kept(), limits=limits)


def test_holes_without_end_are_refused_before_they_are_hashed() -> None:
    stored: list[int] = []

    def store(chunks: object, size: int, extents: object) -> bytes:
        stored.append(size)
        return bytes(32)

    tebibyte = pax(*SPARSE_1[:2], (b"GNU.sparse.realsize", b"%d" % (1 << 40))) + file(b"s", padded(b"0\n"))
    assert "larger than 4398046511104 bytes in all" in refusal(lambda: read_tree(stream(tebibyte * 5 + END), store))
    assert stored == [1 << 40] * 4


def test_what_is_shown_of_a_name_is_one_printable_line() -> None:
    said = refused(file(b"/\x1b[31m\n\xff" + b"x" * 90) + END)
    assert said.isprintable()
    assert said.startswith("the name /\\x1b[31m\\n\\\\xff")
    assert len(refused(pax((b"path", b"/" + b"y" * 5000)) + file(b"x") + END)) < 300


SEEDS = [
    WHOLE + END,
    *(data + END for group in (ESCAPES, NAMES, LIES, PAX, HOLES) for data, _ in group if len(data) < 20_000),
    old_sparse([(0, 3), (10, 3)], 100, b"abcdef") + END,
    pax(*SPARSE_1) + file(b"s", padded(b"2\n0\n3\n50\n3\n") + b"abcdef") + END,
    sparse_pax(100, (b"GNU.sparse.map", b"0,3,7,3")) + file(b"s", b"abcdef") + END,
    file(b"a") + hardlink(b"b", b"a") + file(b".wh.x") + file(b"d/.wh..wh..opq") + END,
]


def rechecked(data: bytearray) -> bytes:
    """With right checksums in every block that begins like a header, so that changes get past them."""
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 40_000),
        st.sampled_from(
            [
                b"\0",
                b"/",
                b"..",
                b"7",
                b"9",
                b"\xff",
                b"\x80",
                b"=",
                b"\n",
                b" ",
                b"S",
                b"x",
                b"g",
                b"L",
                b"1",
                b"2",
                b"5",
            ]
        )
        | st.binary(min_size=1, max_size=12),
    ),
    max_size=6,
)


def cheap_store(chunks: object, size: int, extents: object) -> bytes:
    for _ in chunks:  # type: ignore[attr-defined]
        pass
    return bytes(32)


@given(st.sampled_from(SEEDS), st.sampled_from(SEEDS), CHANGES, st.booleans(), st.booleans())
@settings(max_examples=1500, deadline=None, database=None)
def test_changed_archives_make_a_right_tree_or_a_typed_error(
    one: bytes, two: bytes, changes: list[tuple[int, bytes]], join: bool, layered: bool
) -> None:
    data = bytearray(one[:-1024] + two if join else one)
    for at, new in changes:
        at %= len(data)
        data[at : at + len(new)] = new
    changed = rechecked(data)
    try:
        if layered:
            entries, _ = read_layers([stream(WHOLE + END), stream(changed)], cheap_store)
        else:
            entries, _ = read_tree(stream(changed), cheap_store)
    except (Invalid, Exhausted) as error:
        message = error.message
    else:
        assert tree.decode(tree.encode(entries)) == entries
        message = ""
    assert message.isprintable()


@given(st.binary(max_size=4096))
@settings(max_examples=200, deadline=None, database=None)
def test_random_bytes_are_refused(data: bytes) -> None:
    if data.strip(NUL):
        assert refused(data)


def test_hostile_archives_cost_little_memory() -> None:
    """Nor time that grows with the square: that would be minutes."""
    hostile = [
        b"".join(file(b"a/" * 40 + b"%d" % at) for at in range(3000)),
        b"".join(directory(b"d") + file(b"d") for _ in range(3000)),
        b"".join(pax((b"comment", b"c" * 900), kind=b"g") for _ in range(3000)) + file(b"f"),
        pax(*[(b"k%d" % at, b"v") for at in range(60_000)]) + file(b"f"),
        pax(*SPARSE_1[:2], (b"GNU.sparse.realsize", b"100000000"))
        + file(b"s", padded(b"100000\n" + b"".join(b"%d\n0\n" % at for at in range(100_000)))),
    ]
    for data in hostile:
        tracemalloc.start()
        read_tree(stream(data + END), cheap_store)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 60 << 20
