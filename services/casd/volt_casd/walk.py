"""A directory, walked with this process's rights, as the batches that a Builder takes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

from volt_common.api.cas import Node

_AT_ONCE: Final = 253
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def batches(top: str, at_once: int = _AT_ONCE) -> Iterator[tuple[list[Node], list[int]]]:
    """Nodes and the descriptors of their files, which are closed when the next batch is asked for.
    Raises OSError."""
    nodes: list[Node] = []
    fds: list[int] = []
    links: dict[tuple[int, int], int] = {}
    pending = [b""]
    base = os.fsencode(top)
    try:
        while pending:
            directory = pending.pop()
            here = os.path.join(base, directory)
            with os.scandir(here) as found:
                names = sorted(item.name for item in found)
            if not directory:
                nodes.append(_node(b"", here, os.stat(here), 0, False))
            for name in names:
                path = directory + b"/" + name if directory else name
                node = _take(path, os.path.join(here, name), fds, links)
                nodes.append(node)
                if stat.S_ISDIR(node.mode):
                    pending.append(path)
                if len(fds) == at_once or len(nodes) == 1000:
                    yield nodes, fds
                    _close(fds)
                    nodes = []
        yield nodes, fds
    finally:
        _close(fds)


def _take(path: bytes, full: bytes, fds: list[int], links: dict[tuple[int, int], int]) -> Node:
    status = os.lstat(full)
    link, first = 0, True
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        key = (status.st_dev, status.st_ino)
        first = key not in links
        link = links.setdefault(key, len(links) + 1)
    with_fd = stat.S_ISREG(status.st_mode) and first
    if with_fd:
        fds.append(os.open(full, _OPEN))
        status = os.fstat(fds[-1])
    return _node(path, full, status, link, with_fd)


def _node(path: bytes, full: bytes, status: os.stat_result, link: int, with_fd: bool) -> Node:
    mode = status.st_mode
    device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    return Node(
        path,
        mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        with_fd,
        os.readlink(full) if stat.S_ISLNK(mode) else b"",
        os.major(status.st_rdev) if device else 0,
        os.minor(status.st_rdev) if device else 0,
        link,
        [
            (os.fsencode(name), os.getxattr(full, name, follow_symlinks=False))
            for name in sorted(os.listxattr(full, follow_symlinks=False))
        ],
    )


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
