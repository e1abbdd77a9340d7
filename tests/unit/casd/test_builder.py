"""Builds: what a caller hands over becomes a tree with all its metadata, or nothing."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from unit.casd.casd_support import ROOT, build, fill, node, object_path, opened

from volt_casd.builder import Builder, build_directory
from volt_casd.cancel import Cancel
from volt_casd.store import Store
from volt_common.api.cas import Built, Compression
from volt_common.errors import Conflict, Denied, Interrupted, Invalid, NotFound

F = stat.S_IFREG | 0o644


def from_tar(store: Store, data: bytes, ref: str | None = None, compression: Compression = Compression.AUTO) -> Built:
    reading, writing = os.pipe()

    def feed() -> None:
        with open(writing, "wb") as file:
            try:
                file.write(data)
            except BrokenPipeError:
                pass

    thread = threading.Thread(target=feed)
    thread.start()
    builder = Builder(store, ref)
    try:
        return builder.tar(reading, compression)
    finally:
        builder.close()
        os.close(reading)
        thread.join()


def empty(store: Store) -> bool:
    """Nothing is stored, staged or named."""
    top = Path(store.path)
    return not any([*top.glob("objects/*/*"), *top.glob("trees/*/*"), *top.glob("refs/*"), *top.glob("tmp/*")])


def test_a_directory_keeps_everything(store: Store, tmp_path: Path) -> None:
    top = fill(tmp_path / "src", {"a": b"one", "d/b": b"two", "empty": b"", "big": b"x" * 3_000_000})
    os.link(top / "a", top / "d/same")
    os.symlink("../a", top / "d/link")
    os.mkfifo(top / "pipe")
    os.mknod(top / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (top / os.fsdecode(b"\xff\xfe")).write_bytes(b"odd")
    os.setxattr(top / "a", "user.x", b"\0\1")
    os.chown(top / "big", 70_000, 80_000)
    os.chmod(top / "big", 0o6751)
    os.utime(top / "big", ns=(0, -1_500_000_001))
    built = build_directory(store, top, "t")
    entries = {entry.path: entry for entry in store.entries(bytes.fromhex(built.tree))}
    for path, entry in entries.items():
        full = os.path.join(os.fsencode(top), path)
        status = os.lstat(full)
        assert (entry.mode, entry.uid, entry.gid, entry.mtime_ns) == (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
        )
        if entry.is_file:
            assert entry.size == status.st_size
            with open(full, "rb") as file:
                assert (store.objects.read(entry.digest, 1 << 22) if entry.digest else b"") == file.read()
    assert len(entries) == built.entries == 11
    assert entries[b"a"].link == entries[b"d/same"].link == 1
    assert entries[b"a"].xattrs == ((b"user.x", b"\0\1"),)
    assert entries[b"d/link"].target == b"../a"
    assert (entries[b"null"].major, entries[b"null"].minor) == (1, 3)
    assert entries[b"empty"].digest == b""
    assert (built.files, built.new_objects) == (6, 4)
    assert store.refs.get("t").size == built.bytes


def test_the_same_directory_has_the_same_name_and_stores_nothing_twice(store: Store, tmp_path: Path) -> None:
    top = fill(tmp_path / "src", {f"{n % 7}/{n}": b"%d" % n for n in range(600)})
    first = build_directory(store, top)
    again = build_directory(store, top)
    assert (again.tree, again.new_objects, again.new_bytes) == (first.tree, 0, 0)
    assert first.new_objects == 600


def test_a_tar_of_a_directory_makes_the_same_tree_as_walking_it(store: Store, tmp_path: Path) -> None:
    top = fill(tmp_path / "src", {"a": b"one", "d/b": b"two" * 1_000_000, "e": b""})
    os.link(top / "a", top / "z")
    os.symlink("a", top / "l")
    with open(top / "holes", "wb") as file:
        file.truncate(40 << 20)
        file.seek(20 << 20)
        file.write(b"x")
    walked = build_directory(store, top)
    command = ["tar", "-C", str(top), "--format=pax", "--sparse", "--xattrs", "-cf", "-", "."]
    archive = subprocess.run(command, capture_output=True, check=True).stdout
    assert from_tar(store, archive, "t").tree == walked.tree
    for tool, compression in (("gzip", Compression.GZIP), ("zstd", Compression.ZSTD)):
        packed = subprocess.run([tool, "-c"], input=archive, capture_output=True, check=True).stdout
        assert from_tar(store, packed).tree == walked.tree
        assert from_tar(store, packed, compression=compression).tree == walked.tree


def test_layers_become_one_tree(store: Store, tmp_path: Path) -> None:
    def layer(files: dict[str, bytes]) -> int:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        fd = os.memfd_create("layer")
        os.write(fd, buffer.getvalue())
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    fds = [layer({"a": b"1", "d/b": b"2"}), layer({".wh.a": b"", "d/c": b"3"})]
    builder = Builder(store, "image")
    built = builder.layers(fds)
    builder.close()
    for fd in fds:
        os.close(fd)
    assert [entry.path for entry in store.ls("image", recursive=True)] == [b"d", b"d/b", b"d/c"]
    assert store.refs.get("image").digest == built.tree


def test_a_socket_is_skipped_with_a_note(store: Store) -> None:
    built = build(store, [ROOT, node(b"s", stat.S_IFSOCK | 0o600)], [])
    assert built.entries == 1
    assert built.skipped == ["s: a socket"]


def test_nodes_and_descriptors_must_fit(store: Store, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with opened(tmp_path / "f") as fd, opened(tmp_path) as top:
        for nodes, fds in (
            ([ROOT, node(b"f", F, fd=True)], []),
            ([ROOT, node(b"f", F)], [fd]),
            ([ROOT, node(b"f", F)], []),
            ([ROOT, node(b"f", F, link=1)], []),
            ([ROOT, node(b"f", stat.S_IFLNK | 0o777, target=b"x", fd=True)], [fd]),
            ([ROOT, node(b"f", F, fd=True)], [top]),
            ([ROOT, node(b"f", F, fd=True), node(b"f", F, fd=True)], [fd, fd]),
            ([node(b"f", F, fd=True)], [fd]),
            ([ROOT, node(b"d/f", F, fd=True)], [fd]),
            ([ROOT, node(b"../f", F, fd=True)], [fd]),
            ([ROOT, node(b"l", stat.S_IFLNK | 0o777, target=b"x", link=1), node(b"m", F, link=1)], []),
        ):
            with pytest.raises(Invalid):
                build(store, nodes, fds, "x")
    assert empty(store)


def test_a_caller_stores_only_what_it_may_read(store: Store, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"secret")
    for flags in (os.O_WRONLY, os.O_PATH):
        with opened(tmp_path / "f", flags) as fd, pytest.raises(Denied):
            build(store, [ROOT, node(b"f", F, fd=True)], [fd])
    assert empty(store)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1024],
        lambda data: b"\xff" + data[1:],
        lambda data: b"no archive at all" * 100,
        lambda data: b"",
    ],
)
def test_a_stream_that_is_cut_short_or_lies_leaves_nothing(store: Store, spoil: Callable[[bytes], bytes]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a", "b", "c"):
            info = tarfile.TarInfo(name)
            info.size = 2_000_000
            archive.addfile(info, io.BytesIO(name.encode() * 2_000_000))
    data = buffer.getvalue().rstrip(b"\0")
    data += bytes(-len(data) % 512 + 1024)
    with pytest.raises(Invalid):
        from_tar(store, spoil(data), "x")
    assert empty(store)


def test_a_tar_that_escapes_leaves_nothing(store: Store) -> None:
    for name in ("../up", "/etc/passwd", "a/../../b"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            good = tarfile.TarInfo("good")
            good.size = 4
            archive.addfile(good, io.BytesIO(b"good"))
            archive.addfile(tarfile.TarInfo(name))
        with pytest.raises(Invalid):
            from_tar(store, buffer.getvalue(), "x")
    assert empty(store)


def test_a_build_that_is_cancelled_leaves_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    cancel = Cancel()
    builder = Builder(store, "x", cancel)
    with opened(tmp_path / "f") as fd:
        builder.take([ROOT, node(b"f", F, fd=True)], [fd])
        cancel.set()
        for call in (lambda: builder.take([node(b"g", F, fd=True)], [fd]), builder.finish):
            with pytest.raises(Interrupted):
                call()
    builder.close()
    assert empty(store)


def test_a_ref_that_cannot_be_set_is_told_and_the_tree_stays_whole(store: Store) -> None:
    store.refs.set("a/b", "blob", "0" * 64, 0)
    with pytest.raises(Conflict):
        build(store, [ROOT], [], "a")
    with pytest.raises(NotFound):
        store.refs.get("a")


def test_builds_at_once_of_the_same_content_store_it_once(store: Store, tmp_path: Path) -> None:
    top = fill(tmp_path / "src", {f"{n % 5}/{n}": b"%d" % n * 50 for n in range(400)})
    with ThreadPoolExecutor(6) as pool:
        built = list(pool.map(lambda n: build_directory(store, top, f"t/{n}"), range(6)))
    assert len({b.tree for b in built}) == 1
    assert sum(b.new_objects for b in built) == 400
    entries = store.entries(bytes.fromhex(built[0].tree))
    store.require_whole(entries)
    assert all(object_path(store, e.digest).stat().st_mode & 0o777 == 0o444 for e in entries if e.digest)
