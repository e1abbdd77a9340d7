"""EROFS images as the kernel shows them: every path of a mounted view is what its tree says."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from unit.casd import erofs_trees as trees
from unit.casd.erofs_support import ROOT, Store, differences, directory, file, image, special, symlink, walk

from volt_casd.tree import Entry
from volt_common.api.cas import Form

BOTH = pytest.mark.parametrize("form", list(Form))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "objects").mkdir()
    return Store(tmp_path / "objects")


def shown_otherwise(tmp_path: Path, entries: list[Entry], form: Form, store: Store) -> list[str]:
    """The differences between an image as the kernel shows it and the entries that it was made of."""
    return differences(image(tmp_path / "image", entries, form, store), form, store, entries)[0]


@BOTH
@pytest.mark.parametrize("tree", [trees.everything, trees.alignments, trees.exact_directories, trees.sparse])
def test_a_mounted_image_is_its_tree(
    tmp_path: Path, store: Store, form: Form, tree: Callable[[Store], list[Entry]]
) -> None:
    assert shown_otherwise(tmp_path, tree(store), form, store) == []


def test_a_hundred_thousand_files_of_one_directory_are_all_there(tmp_path: Path, store: Store) -> None:
    assert shown_otherwise(tmp_path, trees.wide(store, 100_000), Form.REDIRECT, store) == []


@BOTH
@pytest.mark.parametrize("top", ["/usr/share/doc", "/etc"])
def test_a_real_directory_is_shown_as_it_was(tmp_path: Path, store: Store, form: Form, top: str) -> None:
    if not Path(top).is_dir():
        pytest.skip(f"this host has no {top}")
    entries = walk(Path(top), store, limit=1500)
    assert shown_otherwise(tmp_path, entries, form, store) == []


def test_the_full_form_shows_a_whiteout_as_the_device_it_is(tmp_path: Path, store: Store) -> None:
    entries = [ROOT, special(b"gone", stat.S_IFCHR, 0, 0)]
    assert shown_otherwise(tmp_path, entries, Form.FULL, store) == []


def test_without_its_overlay_a_redirecting_file_is_a_hole(tmp_path: Path, store: Store) -> None:
    """Never bytes from elsewhere in the image, whatever the file's size."""
    sizes = [1, 4095, 4096, 4097, 8192, 8193, 12000, 12288, 50_000, 65536, 65537, 200_000, 1 << 20, (1 << 20) + 1]
    plain = [file(store, b"p%d" % size, b"x" * size) for size in sizes]
    own = [file(store, b"x%d" % size, b"x" * size, xattrs=((b"user.a", b"1"),)) for size in sizes]
    path = image(tmp_path / "image", [ROOT, *plain, *own], Form.REDIRECT, store)
    zeros = [msgspec.structs.replace(entry, digest=store.put(bytes(entry.size))) for entry in plain + own]
    found = differences(path, Form.FULL, store, [ROOT, *zeros])[0]
    assert {line.split(": ")[1] for line in found} == {"xattrs"}  # those that redirect


def test_a_redirecting_file_may_be_larger_than_one_chunk(tmp_path: Path, store: Store) -> None:
    """A chunk is at most 8 TiB, and ext4 has files of nearly 16."""
    entries = [ROOT]
    for name, size in (("one", 1 << 43), ("two", (1 << 43) + 1)):
        digest = store.put_sparse(name, size, {0: b"first", size - 4: b"last"})
        entries.append(Entry(name.encode(), stat.S_IFREG | 0o644, 0, 0, 0, size, digest))
    assert shown_otherwise(tmp_path, entries, Form.REDIRECT, store) == []


SEEDS: dict[str, tuple[bytes, dict[str, object]]] = {
    "mode": (b"file", {"mode": stat.S_IFREG | 0o600}),
    "type": (b"fifo", {"mode": stat.S_IFREG | 0o600}),
    "uid": (b"file", {"uid": 1}),
    "gid": (b"dir", {"gid": 1}),
    "mtime": (b"file", {"mtime_ns": 1_600_000_000_123_456_788}),
    "size": (b"file", {"size": 8191}),
    "bytes": (b"file", {"digest": b"d" * 32}),
    "xattrs": (b"file", {"xattrs": ((b"user.a", b"2"),)}),
    "target": (b"symlink", {"target": b"elsewherE"}),
    "device": (b"null", {"minor": 4}),
    "links": (b"link-2", {"link": 0}),
    "inode": (b"other-2", {"link": 1}),
    "extra": (b"fifo", {"path": b"renamed"}),
    "missing": (b"fifo", {"path": b"renamed"}),
}


@BOTH
def test_the_comparison_would_see_each_kind_of_difference(tmp_path: Path, store: Store, form: Form) -> None:
    """Judges the judge: one difference is seeded at a time, and it must be reported by its name."""
    linked, other = file(store, b"link-1", b"linked", link=1), file(store, b"other-1", b"other", link=2)
    entries = [
        ROOT,
        directory(b"dir"),
        file(store, b"file", b"f" * 8192, xattrs=((b"user.a", b"1"),)),
        symlink(b"symlink", b"elsewhere"),
        special(b"null", stat.S_IFCHR, 1, 3),
        special(b"fifo", stat.S_IFIFO),
        linked,
        msgspec.structs.replace(linked, path=b"link-2"),
        other,
        msgspec.structs.replace(other, path=b"other-2"),
    ]
    seeded = [
        [msgspec.structs.replace(entry, **change) if entry.path == path else entry for entry in entries]
        for path, change in SEEDS.values()
    ]
    path = image(tmp_path / "image", entries, form, store)
    clean, *reports = differences(path, form, store, entries, *seeded)
    assert clean == []
    for what, report in zip(SEEDS, reports, strict=True):
        assert any(f": {what}" in line for line in report), (what, report)


@pytest.mark.parametrize("offset", [0, 70 << 20, (80 << 20) - 1])
def test_the_comparison_would_see_one_byte_of_a_large_file(tmp_path: Path, store: Store, offset: int) -> None:
    digest = store.put_sparse("large", 80 << 20, {0: b"a", 70 << 20: b"b", (80 << 20) - 1: b"c"})
    entries = [ROOT, Entry(b"large", stat.S_IFREG, 0, 0, 0, 80 << 20, digest)]
    path = image(tmp_path / "image", entries, Form.FULL, store)
    with store.path(digest).open("r+b") as out:
        out.seek(offset)
        out.write(b"!")
    assert differences(path, Form.FULL, store, entries) == [["b'large': bytes"]]
