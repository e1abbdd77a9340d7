"""A durable write is there whole or not at all, and leaves nothing behind."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys

import pytest

from volt_common import durable


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_file_is_written_with_its_mode_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        durable.write_file(tmp_path / "file", b"bytes", 0o664)
    finally:
        os.umask(before)
    assert (tmp_path / "file").read_bytes() == b"bytes"
    assert mode(tmp_path / "file") == 0o664


def test_a_file_is_replaced_and_who_has_it_open_keeps_the_old_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as old:
        durable.write_file(str(path), b"new")
        assert old.read() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_symlink_is_replaced_and_its_target_is_not_touched(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    durable.write_file(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"old"
    assert not (tmp_path / "link").is_symlink()


def test_a_relative_path_starts_at_dir_fd(tmp_path):
    (tmp_path / "sub").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY)
    durable.write_file("sub/file", b"x", dir_fd=fd)
    durable.make_directory("sub/dir", 0o750, dir_fd=fd)
    durable.remove("sub/dir", dir_fd=fd)
    os.close(fd)
    assert os.listdir(tmp_path / "sub") == ["file"]


def test_a_name_as_long_as_a_name_may_be(tmp_path):
    durable.write_file(tmp_path / ("n" * 255), b"x")
    assert os.listdir(tmp_path) == ["n" * 255]


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(OSError) as error:
            durable.write_file(path, bytes(5000))
        assert error.value.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_rename_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "dir").mkdir()
    with pytest.raises(OSError):
        durable.write_file(tmp_path / "dir", b"x")
    assert os.listdir(tmp_path) == ["dir"]


@pytest.mark.parametrize("path", ["/", "", "..", "a/.", "a/"])
def test_a_path_that_names_no_file_is_refused(path):
    for change in (lambda: durable.write_file(path, b""), lambda: durable.remove(path)):
        with pytest.raises(OSError):
            change()


def test_a_directory_is_made_with_its_mode_and_only_once(tmp_path):
    before = os.umask(0o077)
    try:
        durable.make_directory(tmp_path / "dir", 0o2755)
    finally:
        os.umask(before)
    assert mode(tmp_path / "dir") == 0o2755
    with pytest.raises(FileExistsError):
        durable.make_directory(tmp_path / "dir")


def test_files_links_and_empty_directories_are_removed(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dir").mkdir()
    for name in ("link", "file", "dir"):
        durable.remove(tmp_path / name)
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        durable.remove(tmp_path / "file")


def test_a_full_directory_is_not_removed(tmp_path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").touch()
    with pytest.raises(OSError):
        durable.remove(tmp_path / "dir")


def test_a_rename_moves_between_directories(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/file").write_bytes(b"x")
    durable.rename(tmp_path / "a/file", tmp_path / "b/other")
    assert (tmp_path / "b/other").read_bytes() == b"x"


def test_syncfs_takes_any_descriptor_and_says_which_error(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    durable.syncfs(fd)
    os.close(fd)
    with pytest.raises(OSError) as error:
        durable.syncfs(fd)
    assert error.value.errno == errno.EBADF


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("write_file('file', b'x')", ["write", "fchmod", "fsync FILE", "rename", "fsync DIR"]),
        ("make_directory('dir')", ["mkdir", "fchmod", "fsync FILE", "fsync DIR"]),
        ("remove('there')", ["unlink", "fsync DIR"]),
        ("rename('there', 'file')", ["rename", "fsync DIR"]),
    ],
)
def test_the_order_of_the_calls_is_the_one_that_survives_a_power_cut(tmp_path, change, wanted):
    """Watched from inside: the calls that durable makes of the kernel, in their order."""
    (tmp_path / "there").touch()
    code = f"""
import os, stat, sys
from volt_common import durable
seen = []
def watch(name):
    real = getattr(os, name)
    def call(*args, **kwargs):
        if name == "fsync":
            directory = stat.S_ISDIR(os.fstat(args[0]).st_mode) and os.path.samestat(os.fstat(args[0]), os.stat("."))
            seen.append("fsync DIR" if directory else "fsync FILE")
        else:
            seen.append(name)
        return real(*args, **kwargs)
    setattr(os, name, call)
for name in ("write", "fchmod", "fsync", "rename", "mkdir", "unlink"):
    watch(name)
durable.{change}
print(",".join(seen))
"""
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert done.stdout.decode().strip().split(",") == wanted
