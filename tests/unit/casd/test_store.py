"""The store: put, open, refs on what is whole, one process at a time, clean and unclean ends."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from blake3 import blake3
from unit.casd.casd_support import ROOT, build, fill, node, object_path, opened, put

from volt_casd import tree
from volt_casd.builder import build_directory
from volt_casd.cancel import Cancel
from volt_casd.store import Store
from volt_common.errors import Conflict, Corrupt, Denied, Interrupted, Invalid, NotFound


def test_putting_a_file_stores_all_of_it_whatever_its_offset(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 3_000_000)
    with opened(path) as fd:
        os.lseek(fd, 1000, os.SEEK_SET)
        stored = store.put(fd, "blobs/f")
        assert stored == (blake3(b"x" * 3_000_000).digest(), 3_000_000, True)
        assert store.put(fd).new is False
    assert store.refs.get("blobs/f").digest == stored.digest.hex()
    assert store.refs.get("blobs/f").size == 3_000_000


def test_putting_a_pipe_reads_to_its_end(store: Store) -> None:
    assert put(store, b"abc", "b") == blake3(b"abc").digest()
    empty = put(store, b"")
    assert store.objects.size(empty) == 0


def test_putting_a_file_with_holes_stores_them_as_holes(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "f"
    with open(path, "wb") as file:
        file.truncate(256 << 20)
        file.seek(100 << 20)
        file.write(b"in the middle")
    with opened(path) as fd:
        stored = store.put(fd)
    kept = object_path(store, stored.digest).stat()
    assert kept.st_size == 256 << 20
    assert kept.st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_PATH])
def test_a_descriptor_that_proves_no_right_to_read_is_denied(store: Store, tmp_path: Path, flags: int) -> None:
    (tmp_path / "f").write_bytes(b"secret")
    with opened(tmp_path / "f", flags) as fd, pytest.raises(Denied):
        store.put(fd)


def test_the_writing_end_of_a_pipe_is_denied(store: Store) -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(Denied):
            store.put(writing)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("path", ["/dev/zero", "/"])
def test_what_has_no_end_or_no_bytes_is_invalid(store: Store, path: str) -> None:
    with opened(path) as fd, pytest.raises(Invalid):
        store.put(fd)


def test_a_pipe_that_nobody_writes_to_can_be_cancelled(store: Store) -> None:
    reading, writing = os.pipe()
    cancel = Cancel()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            store.put(reading, None, cancel)
        except Interrupted as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    cancel.set()
    thread.join(10)
    os.close(reading)
    os.close(writing)
    assert len(failed) == 1


def test_what_was_opened_can_only_be_read(store: Store) -> None:
    fd = store.open(put(store, b"hello"))
    try:
        assert os.pread(fd, 10, 1) == b"ello"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"x")
    finally:
        os.close(fd)


def test_what_is_not_there_is_not_found(store: Store) -> None:
    digest = bytes(32)
    for call in (
        lambda: store.open(digest),
        lambda: store.entries(digest),
        lambda: store.set_ref("x", "blob", digest),
        lambda: store.set_ref("x", "tree", digest),
        lambda: store.ls("x"),
        lambda: store.ls(digest.hex()),
        lambda: store.cat("x", b"f"),
    ):
        with pytest.raises(NotFound):
            call()
    assert list(store.refs.under()) == []


def test_a_ref_cannot_name_a_tree_that_is_none(store: Store) -> None:
    digest = put(store, b"volt tree 1\nnot really")
    with pytest.raises(Corrupt):
        store.set_ref("x", "tree", digest)


def test_a_ref_cannot_name_a_tree_with_an_object_missing(store: Store) -> None:
    entries = [tree.Entry(b"", 0o40755, 0, 0, 0), tree.Entry(b"f", 0o100644, 0, 0, 0, 3, bytes(32))]
    digest = put(store, tree.encode(entries))
    with pytest.raises(NotFound):
        store.set_ref("x", "tree", digest)


def test_a_ref_cannot_name_a_tree_that_lies_about_a_size(store: Store) -> None:
    entries = [tree.Entry(b"", 0o40755, 0, 0, 0), tree.Entry(b"f", 0o100644, 0, 0, 0, 3, put(store, b"four"))]
    with pytest.raises(Corrupt):
        store.set_ref("x", "tree", put(store, tree.encode(entries)))


def test_a_manifest_that_comes_as_a_blob_can_be_named_as_a_tree(store: Store) -> None:
    entries = [tree.Entry(b"", 0o40755, 0, 0, 0), tree.Entry(b"f", 0o100644, 0, 0, 0, 4, put(store, b"four"))]
    digest = put(store, tree.encode(entries))
    assert store.set_ref("x", "tree", digest).size == 4
    assert store.ls("x") == [entries[1]]


def test_ls_and_cat_by_digest_and_by_ref(store: Store, tmp_path: Path) -> None:
    built = build_directory(store, fill(tmp_path / "src", {"a/b/c": b"deep", "a/d": b"", "e": b"top"}), "t/1")
    for name in (built.tree, "t/1"):
        assert [e.path for e in store.ls(name)] == [b"a", b"e"]
        assert [e.path for e in store.ls(name, b"a/")] == [b"a/b", b"a/d"]
        assert [e.path for e in store.ls(name, b"a", recursive=True)] == [b"a/b", b"a/b/c", b"a/d"]
        assert [e.path for e in store.ls(name, b"e")] == [b"e"]
        for path, data in ((b"a/b/c", b"deep"), (b"a/d", b"")):
            fd = store.cat(name, path)
            assert os.read(fd, 10) == data
            os.close(fd)
        with pytest.raises(Invalid, match="not a file"):
            store.cat(name, b"a")
        for path in (b"nothing", b"e/x", b"../e"):
            with pytest.raises(NotFound):
                store.cat(name, path)
    put(store, b"blob", "b")
    with pytest.raises(Invalid, match="names a blob"):
        store.ls("b")


def test_cat_does_not_give_an_object_of_another_size(store: Store) -> None:
    digest = put(store, b"four")
    entries = [tree.Entry(b"", 0o40755, 0, 0, 0), tree.Entry(b"f", 0o100644, 0, 0, 0, 4, digest)]
    store.set_ref("x", "tree", put(store, tree.encode(entries)))
    path = object_path(store, digest)
    path.chmod(0o644)
    path.write_bytes(b"fo")
    path.chmod(0o444)
    with pytest.raises(Corrupt):
        store.cat("x", b"f")


def test_a_tree_whose_bytes_changed_is_corrupt(store: Store) -> None:
    built = build(store, [ROOT], [], "x")
    path = object_path(store, bytes.fromhex(built.tree), "trees")
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + b"\1")
    path.chmod(0o444)
    with pytest.raises(Corrupt):
        store.ls("x")


def test_a_store_is_open_in_one_place_at_a_time(tmp_path: Path) -> None:
    with Store(str(tmp_path / "cas")):
        with pytest.raises(Conflict, match="open in another"):
            Store(str(tmp_path / "cas"))
    Store(str(tmp_path / "cas")).close()


def test_the_mark_of_an_unclean_end_is_there_from_the_first_write_to_the_close(tmp_path: Path) -> None:
    mark = tmp_path / "cas" / "dirty"
    with Store(str(tmp_path / "cas")) as store:
        assert not mark.exists()
        assert store.clean
        put(store, b"x")
        assert mark.exists()
    assert not mark.exists()


def test_nothing_in_the_store_is_open_to_others(store: Store) -> None:
    build(store, [ROOT, node(b"d", 0o40777)], [], "a/b")
    assert os.stat(store.path).st_mode & 0o077 == 0


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / "docs" / "casd.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "store" / "refs" / "examples" / "default").is_file()
