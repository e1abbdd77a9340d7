"""A directory as casd takes it: names, metadata and open descriptors, walked with the caller's own rights.

Nothing is followed: every name is opened beneath the descriptor of its directory, so that what is renamed or
linked meanwhile leads nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
from collections.abc import Iterator
from typing import NamedTuple

from volt_common.api.cas import Node
from volt_common.errors import Changed, Denied, Invalid

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MAX_PATH = 4095


class Found(NamedTuple):
    """A path of the directory; `fd` is -1, or the receiver's to close."""

    node: Node
    fd: int
    size: int


class Walk:
    """Iterate for `Found`, parents before children, names in the order of their bytes. `skipped` has what a
    tree can't hold: sockets."""

    def __init__(self, path: str | bytes, *, one_file_system: bool = False) -> None:
        self.path = path
        self.skipped: list[bytes] = []
        self._one = one_file_system
        self._links: dict[tuple[int, int], int] = {}

    def __iter__(self) -> Iterator[Found]:
        _raise_limit()
        top = os.open(self.path, _OPEN | os.O_DIRECTORY)
        levels: list[tuple[int, bytes, list[tuple[bytes, bool]]]] = []
        try:
            status = os.fstat(top)
            device = status.st_dev
            levels.append((top, b"", _names(top)))
            yield Found(_node(b"", status, xattrs=_xattrs(top)), -1, 0)
            while levels:
                parent, prefix, names = levels[-1]
                if not names:
                    os.close(parent)
                    levels.pop()
                    continue
                name, regular = names.pop()
                path = prefix + name
                if len(path) > _MAX_PATH:
                    raise Invalid(f"{os.fsdecode(path[:60])}…: the path has more than {_MAX_PATH} bytes")
                try:
                    if regular:
                        yield self._file(parent, name, path)
                        continue
                    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        fd = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=parent)
                        status = os.fstat(fd)
                        inside = not self._one or status.st_dev == device
                        levels.append((fd, path + b"/", _names(fd) if inside else []))
                        yield Found(_node(path, status, xattrs=_xattrs(fd)), -1, 0)
                    elif stat.S_ISREG(status.st_mode):
                        yield self._file(parent, name, path)
                    elif stat.S_ISSOCK(status.st_mode):
                        self.skipped.append(path)
                    else:
                        yield self._special(parent, name, path, status)
                except OSError as error:
                    raise _told(error, path) from None
        finally:
            for fd, _, _ in levels:
                os.close(fd)

    def _file(self, parent: int, name: bytes, path: bytes) -> Found:
        fd = _open_file(parent, name)
        try:
            status = os.fstat(fd)  # of what was opened, whatever the name means by now
            if not stat.S_ISREG(status.st_mode):
                raise Changed(name=os.fsdecode(path))
            group, first = self._group(status)
            node = _node(path, status, xattrs=_xattrs(fd), fd=first, link=group)
        except BaseException:
            os.close(fd)
            raise
        if not first:
            os.close(fd)
            return Found(node, -1, 0)
        return Found(node, fd, status.st_size)

    def _special(self, parent: int, name: bytes, path: bytes, status: os.stat_result) -> Found:
        target = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(status.st_mode) else b""
        group, _ = self._group(status)
        # There is no lgetxattrat: the directory's descriptor in /proc stands for its path.
        xattrs = _xattrs(b"/proc/self/fd/%d/%s" % (parent, name))
        return Found(_node(path, status, xattrs=xattrs, target=target, link=group), -1, 0)

    def _group(self, status: os.stat_result) -> tuple[int, bool]:
        """The number of its hard links' group (0: alone), and whether this is the first name of it."""
        if status.st_nlink < 2:
            return 0, True
        key = (status.st_dev, status.st_ino)
        first = key not in self._links
        return self._links.setdefault(key, len(self._links) + 1), first


def _open_file(parent: int, name: bytes) -> int:
    """Without touching its access time, which only its owner may ask for."""
    try:
        return os.open(name, _OPEN | os.O_NOATIME, dir_fd=parent)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
    return os.open(name, _OPEN, dir_fd=parent)


def _names(directory: int) -> list[tuple[bytes, bool]]:
    """Each with whether it is a regular file, which spares most of them a stat. Last first, since they are
    taken from the end."""
    with os.scandir(directory) as entries:
        return sorted(((os.fsencode(e.name), e.is_file(follow_symlinks=False)) for e in entries), reverse=True)


def _xattrs(place: int | bytes) -> list[tuple[bytes, bytes]]:
    """Sorted by name. A file system without any has none."""
    try:
        names = os.listxattr(place, follow_symlinks=isinstance(place, int))
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return []
        raise
    found = []
    for name in sorted(os.fsencode(name) for name in names):
        with _absent():
            found.append((name, os.getxattr(place, name, follow_symlinks=isinstance(place, int))))
    return found


def _absent() -> contextlib.AbstractContextManager[None]:
    """An attribute that went away between being listed and read, or that lists without being readable."""
    return _Absent()


class _Absent(contextlib.AbstractContextManager[None]):
    def __exit__(self, kind: object, error: object, at: object) -> bool:
        return isinstance(error, OSError) and error.errno in (errno.ENODATA, errno.ENOTSUP)


def _node(
    path: bytes,
    status: os.stat_result,
    *,
    xattrs: list[tuple[bytes, bytes]],
    fd: bool = False,
    target: bytes = b"",
    link: int = 0,
) -> Node:
    device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return Node(
        path=path,
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        fd=fd,
        target=target,
        major=os.major(status.st_rdev) if device else 0,
        minor=os.minor(status.st_rdev) if device else 0,
        link=link,
        xattrs=xattrs,
    )


def _told(error: OSError, path: bytes) -> Exception:
    shown = os.fsdecode(path)
    if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ESTALE):
        return Changed(name=shown, hint="Import it again when nothing writes there.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Denied(f"{shown} can't be read", hint="Only what you may read yourself can be stored: try as root.")
    return OSError(error.errno, error.strerror, shown)


def _raise_limit() -> None:
    """A deep tree has a descriptor open per level, beside those of the batches."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
