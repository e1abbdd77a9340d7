"""EROFS images: one image per tree, whatever the order or place of what it is made of, and refusals by name."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from unit.casd import erofs_support as support
from unit.casd import erofs_trees as trees
from unit.casd.erofs_support import ROOT, Store, directory, file, image, special, symlink

from volt_casd.erofs import write_image
from volt_casd.tree import Entry
from volt_common.api.cas import Form
from volt_common.errors import Corrupt, Invalid, NotFound

BOTH = pytest.mark.parametrize("form", list(Form))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "objects").mkdir()
    return Store(tmp_path / "objects")


def fsck(path: Path) -> tuple[bool, str]:
    """Whether erofs-utils finds the image sound, and what it says."""
    if not shutil.which("fsck.erofs"):
        pytest.skip("fsck.erofs is missing: install erofs-utils")
    run = subprocess.run(["fsck.erofs", "-d3", str(path)], capture_output=True, text=True)
    says = run.stdout + run.stderr
    # Version 1.5 exits with 0 when the superblock's checksum is wrong.
    return run.returncode == 0 and "No errors found" in says, says


@BOTH
@pytest.mark.parametrize("tree", [trees.everything, trees.alignments, trees.exact_directories])
def test_fsck_finds_nothing(tmp_path: Path, store: Store, form: Form, tree: Callable[[Store], list[Entry]]) -> None:
    path = image(tmp_path / "image", tree(store), form, store)
    sound, says = fsck(path)
    assert sound, says


@pytest.mark.parametrize("at", [pytest.param(2000, id="superblock"), pytest.param(4096 + 32, id="root inode")])
def test_fsck_would_find_something(tmp_path: Path, store: Store, at: int) -> None:
    path = image(tmp_path / "image", [ROOT], Form.FULL, store)
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 0xFF
    path.write_bytes(damaged)
    assert not fsck(path)[0]


@BOTH
def test_the_same_entries_in_any_order_make_the_same_bytes(tmp_path: Path, store: Store, form: Form) -> None:
    entries = trees.everything(store)
    first = image(tmp_path / "1", entries, form, store).read_bytes()
    for seed in range(3):
        random.Random(seed).shuffle(entries)
        (tmp_path / "2").write_bytes(b"old" * 5_000_000)  # what the file held must not shine through
        assert image(tmp_path / "2", entries, form, store).read_bytes() == first


@pytest.mark.parametrize("size", [200_000, 40 << 20])
def test_holes_of_an_object_change_no_byte_and_take_no_space(tmp_path: Path, size: int) -> None:
    """The same object once with holes, as it was ingested, and once without, as a copy may leave it."""
    images = []
    for name in ("holes", "dense"):
        store = Store(tmp_path / name)
        digest = store.put_sparse("object", size, {size // 2: b"data", size - 1: b"z"})
        if name == "dense":
            store.path(digest).write_bytes(store.path(digest).read_bytes())
        entry = Entry(b"f", stat.S_IFREG | 0o644, 0, 0, 0, size, digest)
        images.append(image(tmp_path / f"{name}.image", [ROOT, entry], Form.FULL, store))
    holes, dense = images
    assert holes.read_bytes() == dense.read_bytes()
    assert holes.stat().st_blocks * 512 < 100_000


def test_ten_gibibytes_of_holes_take_a_small_image(tmp_path: Path, store: Store) -> None:
    path = image(tmp_path / "image", trees.sparse(store), Form.FULL, store)
    assert path.stat().st_size < 16 << 20
    assert path.stat().st_blocks * 512 < 2 << 20


def test_equal_objects_are_stored_once(tmp_path: Path, store: Store) -> None:
    data = os.urandom(1 << 20)
    copies = [file(store, b"f%d" % i, data) for i in range(5)]
    assert image(tmp_path / "image", [ROOT, *copies], Form.FULL, store).stat().st_size < 1.1 * len(data)


def test_the_smallest_image_is_two_blocks(tmp_path: Path, store: Store) -> None:
    assert image(tmp_path / "image", [ROOT], Form.FULL, store).stat().st_size == 8192


def test_different_trees_have_different_uuids(tmp_path: Path, store: Store) -> None:
    """Overlayfs tells its layers apart by it."""
    uuids = set()
    for data in (b"1" * 5000, b"2" * 5000):  # of one size and time, beside the metadata in the full form
        for form in Form:
            path = image(tmp_path / "image", [ROOT, file(store, b"f", data)], form, store)
            uuids.add(path.read_bytes()[1024 + 48 : 1024 + 64])
    assert len(uuids) == 4
    assert bytes(16) not in uuids


def test_the_redirect_form_opens_no_object(tmp_path: Path, store: Store) -> None:
    entries = trees.everything(store)
    shutil.rmtree(store.root)
    image(tmp_path / "image", entries, Form.REDIRECT, store)


def test_a_hundred_thousand_files_in_one_directory(tmp_path: Path, store: Store) -> None:
    path = image(tmp_path / "image", trees.wide(store, 100_000), Form.REDIRECT, store)
    assert fsck(path)[0]


FILE = Entry(b"f", stat.S_IFREG | 0o644, 0, 0, 0, 5, bytes(32))


def changed(**fields: object) -> list[Entry]:
    return [ROOT, msgspec.structs.replace(FILE, **fields)]


@BOTH
@pytest.mark.parametrize(
    ("entries", "says"),
    [
        pytest.param([], "a tree's first entry is its root", id="no entries"),
        pytest.param([FILE], "a tree's first entry is its root", id="no root"),
        pytest.param(
            [msgspec.structs.replace(FILE, path=b"")], "a tree's first entry is its root", id="a file as the root"
        ),
        pytest.param([ROOT, ROOT], ".: the path is there twice", id="two roots"),
        pytest.param([ROOT, FILE, FILE], "f: the path is there twice", id="a path twice"),
        pytest.param(changed(path=b"a/b"), "a/b: it lies in no directory", id="no parent"),
        pytest.param([*changed(), directory(b"f/d")], "f/d: it lies in no directory", id="a file as a parent"),
        pytest.param(changed(path=b"/f"), "/f: no image can hold such a name", id="absolute"),
        pytest.param(changed(path=b"f/"), "f/: no image", id="slash last"),
        pytest.param(changed(path=b".."), "..: ", id="dot dot"),
        pytest.param(changed(path=b"."), ".: ", id="dot"),
        pytest.param(changed(path=b"\xff\0"), "\\xff\0: ", id="a NUL"),
        pytest.param(changed(path=b"n" * 256), "n" * 256 + ": no image", id="a long name"),
        pytest.param(changed(mode=0o644), "f: mode 0o644", id="no type"),
        pytest.param(changed(mode=0o170644), "f: mode 0o170644", id="an unknown type"),
        pytest.param(changed(mode=1 << 16 | FILE.mode), "f: ", id="a mode of 17 bits"),
        pytest.param(changed(uid=1 << 32), "f: ", id="a uid of 33 bits"),
        pytest.param(changed(gid=-1), "f: ", id="a negative gid"),
        pytest.param(changed(mtime_ns=10**9 << 63), "f: ", id="a time of 65 bits"),
        pytest.param(changed(size=-1), "f: no file has -1 bytes", id="a negative size"),
        pytest.param(changed(size=1 << 63), "f: no file has", id="a size of 64 bits"),
        pytest.param(changed(digest=b"short"), "f: a digest of 5 bytes", id="a short digest"),
        pytest.param(changed(digest=b""), "f: a digest of 0 bytes", id="no digest"),
        pytest.param(changed(size=0), "f: a digest of 32 bytes", id="an empty file with a digest"),
        pytest.param([ROOT, symlink(b"l", b"")], "l: no image can hold a symbolic link", id="an empty target"),
        pytest.param([ROOT, symlink(b"l", b"t" * 4096)], "l: no image can hold", id="a target of 4096"),
        pytest.param([ROOT, symlink(b"l", b"t\0u")], "l: no image can hold", id="a target with NUL"),
        pytest.param([ROOT, symlink(b"l", b"t", size=2)], "l: no image can hold", id="a target of another size"),
        pytest.param([ROOT, special(b"d", stat.S_IFBLK, 4096)], "d: device number 4096:0", id="a large major"),
        pytest.param([ROOT, special(b"d", stat.S_IFCHR, 1, 1 << 20)], "d: device number", id="a large minor"),
        pytest.param([ROOT, directory(b"d", link=1)], "d: a directory", id="a hard link to a directory"),
        pytest.param(
            [*changed(link=1), msgspec.structs.replace(FILE, path=b"g", link=1, uid=1)],
            "g: it is a hard link to f, but not described alike",
            id="a link group that disagrees",
        ),
        pytest.param(changed(xattrs=((b"system.nfs4_acl", b""),)), "f: an image cannot hold", id="an nfs4 acl"),
        pytest.param(changed(xattrs=((b"user.", b""),)), "f: the xattr", id="an xattr without a name"),
        pytest.param(changed(xattrs=((b"user.a", bytes(65536)),)), "f: the xattr", id="a long xattr"),
        pytest.param(changed(xattrs=((b"user." + b"n" * 256, b""),)), "f: the xattr", id="a long xattr name"),
        pytest.param(
            changed(xattrs=tuple((b"user.%d" % i, bytes(65000)) for i in range(5))),
            "f: its xattrs take",
            id="many xattrs",
        ),
    ],
)
def test_refuses_by_path_what_an_image_cannot_hold(
    tmp_path: Path, store: Store, form: Form, entries: list[Entry], says: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        image(tmp_path / "image", entries, form, store)
    assert str(refusal.value).startswith(says)


def test_the_redirect_form_refuses_what_overlayfs_takes_for_a_whiteout(tmp_path: Path, store: Store) -> None:
    entries = [ROOT, directory(b"d"), special(b"d/gone", stat.S_IFCHR, 0, 0)]
    with pytest.raises(Invalid, match="d/gone: character device 0:0 is a whiteout"):
        image(tmp_path / "image", entries, Form.REDIRECT, store)
    assert fsck(image(tmp_path / "image", entries, Form.FULL, store))[0]


@pytest.mark.parametrize("size", [5, 3000, 5000, 200_000, 17 << 20])
@pytest.mark.parametrize("difference", [-1, 1])
def test_an_object_of_another_size_is_corrupt(tmp_path: Path, store: Store, size: int, difference: int) -> None:
    entry = file(store, b"f", b"x" * size)
    with store.path(entry.digest).open("r+b") as out:
        out.truncate(size + difference)
    with pytest.raises(Corrupt) as damage:
        image(tmp_path / "image", [ROOT, entry], Form.FULL, store)
    assert entry.digest.hex() in str(damage.value)
    assert str(size) in str(damage.value)


def test_one_object_cannot_have_two_sizes(tmp_path: Path, store: Store) -> None:
    entry = file(store, b"f", b"x" * 5000)
    other = msgspec.structs.replace(entry, path=b"g", size=6000)
    with pytest.raises(Invalid, match="g: another file with the same digest has 5000 bytes"):
        image(tmp_path / "image", [ROOT, entry, other], Form.FULL, store)


def test_what_opening_an_object_raises_is_passed_on(tmp_path: Path) -> None:
    def absent(digest: bytes) -> int:
        raise NotFound(kind="object", name=digest.hex())

    with (tmp_path / "image").open("wb") as out, pytest.raises(NotFound):
        write_image(out.fileno(), [ROOT, FILE], Form.FULL, absent)


def test_no_descriptor_is_left_open(tmp_path: Path, store: Store) -> None:
    entries = trees.everything(store)
    entries.append(file(store, b"zz", b"short" * 50_000))
    before = os.listdir("/proc/self/fd")
    image(tmp_path / "image", entries, Form.FULL, store)
    os.truncate(store.path(entries[-1].digest), 1)
    with pytest.raises(Corrupt):
        image(tmp_path / "image", entries, Form.FULL, store)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("size", [200_000, 20 << 20])
def test_a_full_disk_is_a_typed_error(store: Store, size: int) -> None:
    entries = [ROOT, file(store, b"f", b"x" * size)]
    said = support.on_a_full_disk(entries, Form.FULL, store, 65536)
    assert said.startswith("Exhausted: not enough disk space: writing an image: ")


def test_an_image_may_be_written_to_memory(store: Store, tmp_path: Path) -> None:
    entries = trees.everything(store)
    out = os.memfd_create("image")
    try:
        size = write_image(out, entries, Form.FULL, store.open)
        written = os.pread(out, size, 0)
    finally:
        os.close(out)
    assert written == image(tmp_path / "image", entries, Form.FULL, store).read_bytes()
