"""Layers of an image become the one directory that its author saw."""

from __future__ import annotations

import pytest
from unit.casd.archives import (
    END,
    Kept,
    block,
    by_path,
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
from volt_casd.tar import Limits
from volt_casd.tree import Entry
from volt_common.errors import Exhausted

BASE = (
    directory(b"etc/", mode=0o750, mtime=5)
    + file(b"etc/passwd", b"root")
    + directory(b"etc/a")
    + file(b"etc/a/1", b"1")
    + file(b"etc/a-b", b"beside")
    + file(b"bin", b"bin")
    + symlink(b"lib", b"usr/lib")
)


def over(*layers: bytes) -> tuple[dict[bytes, Entry], Kept]:
    kept = Kept()
    entries, _ = read_layers([stream(layer + END) for layer in layers], kept)
    tree.encode(entries)
    return by_path(entries), kept


def paths(*layers: bytes) -> set[bytes]:
    return set(over(*layers)[0]) - {b""}


ALL = paths(BASE)


def test_one_layer_is_a_tar() -> None:
    assert paths(BASE) == {b"etc", b"etc/passwd", b"etc/a", b"etc/a/1", b"etc/a-b", b"bin", b"lib"}


def test_no_layer_is_an_empty_directory() -> None:
    assert list(over()[0]) == [b""]


def test_a_file_takes_the_place_of_a_file() -> None:
    entries, kept = over(BASE, file(b"etc/passwd", b"new", mode=0o600))
    assert kept.contents[entries[b"etc/passwd"].digest] == b"new"
    assert set(entries) == ALL | {b""}


def test_a_whiteout_hides_a_file() -> None:
    assert paths(BASE, file(b"etc/.wh.passwd")) == ALL - {b"etc/passwd"}


def test_a_whiteout_hides_a_directory_with_all_below_and_nothing_beside() -> None:
    assert paths(BASE, file(b"etc/.wh.a")) == ALL - {b"etc/a", b"etc/a/1"}


def test_a_whiteout_of_nothing_is_nothing() -> None:
    assert paths(BASE, file(b"etc/.wh.none") + file(b".wh.none")) == ALL


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_leaves_its_own_layer_alone_wherever_it_stands(first: bool) -> None:
    parts = [file(b"etc/.wh.a"), directory(b"etc/a") + file(b"etc/a/2", b"2")]
    assert paths(BASE, b"".join(parts if first else parts[::-1])) == ALL - {b"etc/a/1"} | {b"etc/a/2"}


@pytest.mark.parametrize("first", [True, False])
def test_an_opaque_directory_keeps_only_its_own_layer(first: bool) -> None:
    parts = [file(b"etc/.wh..wh..opq"), file(b"etc/new", b"n")]
    upper = directory(b"etc", mode=0o711) + b"".join(parts if first else parts[::-1])
    entries, _ = over(BASE, upper)
    assert set(entries) == {b"", b"etc", b"etc/new", b"bin", b"lib"}
    assert entries[b"etc"].mode & 0o7777 == 0o711


def test_an_opaque_root_hides_everything_below() -> None:
    assert paths(BASE, file(b".wh..wh..opq") + file(b"new")) == {b"new"}


def test_what_one_layer_hides_another_brings_back() -> None:
    assert paths(BASE, file(b"etc/.wh.a"), file(b"etc/a", b"file")) == ALL - {b"etc/a/1"}


def test_a_directorys_new_metadata_keep_its_children() -> None:
    entries, _ = over(BASE, directory(b"etc", mode=0o700, uid=7, mtime=9))
    assert set(entries) == ALL | {b""}
    assert (entries[b"etc"].mode & 0o7777, entries[b"etc"].uid, entries[b"etc"].mtime_ns) == (0o700, 7, 9 * 10**9)


def test_a_directory_that_a_layer_only_uses_keeps_its_metadata() -> None:
    entries, _ = over(BASE, file(b"etc/new", b"x") + file(b"etc/.wh.passwd"))
    assert (entries[b"etc"].mode & 0o7777, entries[b"etc"].mtime_ns) == (0o750, 5 * 10**9)


def test_a_file_takes_the_place_of_a_directory_with_all_below() -> None:
    assert paths(BASE, file(b"etc/a", b"file")) == ALL - {b"etc/a/1"}
    assert paths(BASE, symlink(b"etc", b"/")) == {b"etc", b"bin", b"lib"}


def test_a_directory_takes_the_place_of_a_file_or_symlink() -> None:
    entries, _ = over(BASE, directory(b"bin") + file(b"bin/sh", b"#!") + directory(b"lib") + file(b"lib/x"))
    assert entries[b"bin"].is_directory
    assert entries[b"lib"].is_directory
    assert {b"bin/sh", b"lib/x"} < set(entries)


def test_a_hard_link_may_name_a_file_of_a_layer_below() -> None:
    entries, _ = over(BASE, hardlink(b"again", b"etc/passwd"))
    assert entries[b"again"].link == entries[b"etc/passwd"].link == 1
    assert entries[b"again"].digest == entries[b"etc/passwd"].digest


def test_a_hard_link_to_what_its_layer_hides_is_the_file_by_another_name() -> None:
    entries, kept = over(BASE, hardlink(b"moved", b"etc/passwd") + file(b"etc/.wh.passwd"))
    assert b"etc/passwd" not in entries
    assert (kept.contents[entries[b"moved"].digest], entries[b"moved"].link) == (b"root", 0)


def test_replacing_one_name_leaves_the_other_names_of_the_file() -> None:
    entries, kept = over(file(b"a", b"1") + hardlink(b"b", b"a") + hardlink(b"c", b"a"), file(b"a", b"2"))
    assert (entries[b"a"].link, entries[b"b"].link, entries[b"c"].link) == (0, 1, 1)
    assert kept.contents[entries[b"b"].digest] == b"1"


def test_aufs_own_files_are_left_out() -> None:
    aufs = file(b".wh..wh.aufs") + directory(b".wh..wh.plnk") + file(b".wh..wh.plnk/12.34", b"x")
    assert paths(BASE, aufs) == ALL


def test_a_layer_may_lack_its_end_and_be_empty() -> None:
    kept = Kept()
    entries, _ = read_layers([stream(file(b"f", b"x")), stream(END)], kept)
    assert [entry.path for entry in entries] == [b"", b"f"]


def test_a_whiteout_may_have_a_long_name() -> None:
    name = b"n" * 200
    whiteout = pax((b"path", b"etc/.wh." + name)) + block(b"etc/.wh.n")
    assert paths(BASE + pax((b"path", b"etc/" + name)) + file(b"x"), whiteout) == ALL


@pytest.mark.parametrize(
    ("upper", "says"),
    [
        (file(b"lib/x"), "layer 2: a member is written through lib, a symlink of a layer below"),
        (file(b"bin/x/y"), "layer 2: a member is written through bin, a file of a layer below"),
        (file(b"lib/.wh.x"), "layer 2: a member is written through lib, a symlink of a layer below"),
        (file(b"etc/.wh."), "layer 2: the whiteout etc/.wh. names nothing"),
        (file(b"etc/.wh..."), "layer 2: the whiteout etc/.wh... names nothing"),
        (file(b".wh.etc/x"), "layer 2: .wh.etc/x lies below a whiteout"),
        (file(b"../.wh.x"), "layer 2: the name ../.wh.x has a component `..`"),
        (hardlink(b"x", b"none"), "layer 2: x is a hard link to none, which is not in the archive before it"),
        (hardlink(b"x", b"lib/y"), "layer 2: x is a hard link to lib/y, which is not in the archive before it"),
        (block(b"f", size=2000), "layer 2: the archive is cut short in f"),
        (padded(b"junk"), "layer 2: the archive is damaged: no header with a right checksum at byte 0"),
    ],
)
def test_a_layer_that_escapes_or_lies_is_refused_by_number_and_name(upper: bytes, says: str) -> None:
    assert refusal(lambda: over(BASE, upper)).startswith(says)


def test_limits_are_for_all_layers_together() -> None:
    layer = b"".join(file(b"%d" % at) for at in range(60)) + END
    limits = Limits(metadata_bytes=100 * 520)
    read_layers([stream(layer)], Kept(), limits=limits)
    with pytest.raises(Exhausted, match="memory"):
        read_layers([stream(layer), stream(layer)], Kept(), limits=limits)


def test_progress_goes_on_over_layers() -> None:
    told: list[tuple[int, int]] = []
    layer = b"".join(file(b"%d" % at, b"x") for at in range(300)) + END
    read_layers([stream(layer), stream(layer)], Kept(), lambda files, size: told.append((files, size)))
    assert told == [(256, 256), (556, 556)]


def test_hiding_one_inside_another_hides_once() -> None:
    deep = b"".join(file(b"a/" * depth + b"f") for depth in range(1, 40))
    hides = b"".join(file(b"a/" * depth + b".wh.a") for depth in range(39))
    assert paths(deep, hides) == {b"/".join([b"a"] * depth) for depth in range(1, 39)}  # that the whiteouts use
