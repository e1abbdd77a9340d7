"""Root's own files: written whole or not at all, and removed without ever leaving the directory."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from volt_ctr_launch import files, kernel
from volt_ctr_launch.errors import Refusal

Isolated = Callable[[Callable[[], None]], None]


def remove(directory: Path, name: str) -> None:
    holder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        files.remove_tree(holder, name)
    finally:
        os.close(holder)


def test_a_tree_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    for path in ("a/b/c", "a/d", "e"):
        (tmp_path / "tree" / path).mkdir(parents=True)
    (tmp_path / "tree/a/b/c/file").write_text("x")
    os.mkfifo(tmp_path / "tree/a/fifo")
    (tmp_path / "tree/a/.volt-remove-1").mkdir()
    remove(tmp_path, "tree")
    assert os.listdir(tmp_path) == []
    remove(tmp_path, "tree")  # again: nothing to do


def test_planted_links_are_removed_and_what_they_point_to_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "precious").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/link").symlink_to(outside)
    (tree / "link").symlink_to("/")
    (tree / "a/up").symlink_to("../..")
    os.link(outside / "precious", tree / "a/hard")
    remove(tmp_path, "tree")
    assert sorted(os.listdir(outside)) == ["deep", "precious"]
    (tmp_path / "root").symlink_to(outside)
    remove(tmp_path, "root")
    assert sorted(os.listdir(outside)) == ["deep", "precious"]


def test_depth_is_no_defence(tmp_path: Path) -> None:
    """Deeper than a path can be long, and than Python recurses."""
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    os.mkdir("tree", dir_fd=top)
    here = os.open("tree", os.O_RDONLY | os.O_DIRECTORY, dir_fd=top)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    os.close(top)
    remove(tmp_path, "tree")
    assert os.listdir(tmp_path) == []


def test_a_mount_inside_is_not_entered(tmp_path: Path, isolated: Isolated) -> None:
    (tmp_path / "tree/mounted").mkdir(parents=True)

    def inside() -> None:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount(None, "/", None, kernel.MS_PRIVATE | kernel.MS_REC)
        kernel.mount("tmpfs", f"{tmp_path}/tree/mounted", "tmpfs", 0)
        Path(tmp_path, "tree/mounted/precious").write_text("x")
        with pytest.raises(OSError, match="cross-device"):
            remove(tmp_path, "tree")
        assert Path(tmp_path, "tree/mounted/precious").exists()

    isolated(inside)


def test_a_written_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    files.write_json(path, {"a": 1})
    files.write_json(path, {"a": 2}, 0o600)
    assert files.read_own(path) == {"a": 2}
    assert os.stat(path).st_mode & 0o777 == 0o600
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(Path(path).read_text()) == {"a": 2}
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_torn_or_absent_file_reads_as_empty(tmp_path: Path) -> None:
    (tmp_path / "torn").write_text('{"a": ')
    (tmp_path / "list").write_text("[]")
    for name in ("torn", "list", "absent"):
        assert files.read_own(str(tmp_path / name)) == {}


def test_a_directory_of_somebody_else_is_not_taken_for_roots(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 1000, 1000)
    with pytest.raises(Refusal, match="not root's"):
        files.make_directory(str(tmp_path / "theirs"), 0o755)
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(OSError, match="link"):
        files.make_directory(str(tmp_path / "link"), 0o755)


def test_a_lock_is_held_by_one_and_freed_by_its_end(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    ready_r, ready_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        with files.locked(path):
            os.unlink(path)  # as delete does: who waits must not take the old file's lock for the new one's
            os.write(ready_w, b"x")
            signal.pause()
    os.read(ready_r, 1)
    with files.locked(path):
        assert os.path.exists(path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
