"""File changes that a power cut one instruction later does not undo.

The order is always the same: write the bytes under another name, fsync the file, rename, fsync the directory
(https://lwn.net/Articles/457667/). A reader sees the old file or the new one, whole.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

StrPath = str | Path

# Loaded with the module: under Landlock a later look for the C library may find nothing.
_libc = ctypes.CDLL(None, use_errno=True)


def write_file(path: StrPath, data: bytes, mode: int = 0o644, *, dir_fd: int | None = None) -> None:
    """Make or replace `path` with `data`, with exactly these permission bits whatever the umask.

    A symlink at `path` is replaced, not followed. With `dir_fd` a relative path starts there. After an error the
    old file is as it was and nothing is left behind. Raises OSError.
    """
    parent, name = _split(path)
    with _directory(parent, dir_fd) as directory:
        temporary = f".{name[:200]}.{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=directory)
        try:
            try:
                _write_all(fd, data)
                os.fchmod(fd, mode)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise
        os.fsync(directory)


def make_directory(path: StrPath, mode: int = 0o755, *, dir_fd: int | None = None) -> None:
    """Make one directory with exactly these permission bits. Raises FileExistsError, OSError."""
    parent, name = _split(path)
    with _directory(parent, dir_fd) as directory:
        os.mkdir(name, 0o700, dir_fd=directory)
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.fchmod(made, mode)
            os.fsync(made)
        finally:
            os.close(made)
        os.fsync(directory)


def remove(path: StrPath, *, dir_fd: int | None = None) -> None:
    """Remove a file, a symlink or an empty directory. Raises FileNotFoundError, OSError."""
    parent, name = _split(path)
    with _directory(parent, dir_fd) as directory:
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            os.rmdir(name, dir_fd=directory)
        os.fsync(directory)


def rename(old: StrPath, new: StrPath) -> None:
    """Rename within one file system, replacing `new`, and make both directories durable. Raises OSError."""
    os.rename(old, new)
    for parent in {_split(old)[0], _split(new)[0]}:
        sync_directory(parent)


def sync_directory(path: StrPath) -> None:
    """Make the names in a directory durable. Raises OSError."""
    with _directory(str(path), None) as directory:
        os.fsync(directory)


def syncfs(fd: int) -> None:
    """Make everything written to the file system of `fd` durable: syncfs(2), which os.sync() is not, since it
    waits for every file system of the host. Raises OSError, also for an earlier write-back that failed."""
    if _libc.syncfs(ctypes.c_int(fd)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"syncfs: {os.strerror(number)}")


def _split(path: StrPath) -> tuple[str, str]:
    parent, name = os.path.split(str(path))
    if name in ("", ".", ".."):
        raise OSError(errno.EINVAL, "a path that names no file", str(path))
    return parent or ".", name


@contextlib.contextmanager
def _directory(path: str, dir_fd: int | None) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
