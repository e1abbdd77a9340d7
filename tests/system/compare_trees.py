"""Every difference between two directories, one a line: `compare_trees.py A B`. Standard library only; runs as root.

Compared are the names, and of each path the type, mode, owner, time to the nanosecond, extended attributes, link
target, device number, hard-link group, size and bytes. The last line counts what was compared.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator

CHUNK = 1 << 20
TYPES = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket",
}  # fmt: skip


class Tree:
    """A directory's paths with what lstat says of them."""

    def __init__(self, top: bytes) -> None:
        self.top = top
        self.found = {b"": os.lstat(top)}
        groups: dict[tuple[int, int], list[bytes]] = {}
        waiting = [b""]
        while waiting:
            directory = waiting.pop()
            with os.scandir(self.path(directory)) as entries:
                names = [entry.name for entry in entries]
            for name in names:
                path = directory + b"/" + name
                status = self.found[path] = os.lstat(self.path(path))
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(path)
                elif status.st_nlink > 1:
                    groups.setdefault((status.st_dev, status.st_ino), []).append(path)
        self.links = {path: sorted(group) for group in groups.values() for path in group}

    def path(self, path: bytes) -> bytes:
        return self.top + path

    def facts(self, path: bytes) -> dict[str, object]:
        """All but a file's bytes, by a name for a person."""
        status = self.found[path]
        kind = TYPES[stat.S_IFMT(status.st_mode)]
        facts: dict[str, object] = {
            "type": kind,
            "mode": oct(stat.S_IMODE(status.st_mode)),
            "owner": (status.st_uid, status.st_gid),
            "time": status.st_mtime_ns,
            "attributes": attributes(self.path(path)),
        }
        if kind == "symlink":
            facts["target"] = os.readlink(self.path(path))
        if kind in ("character device", "block device"):
            facts["device"] = (os.major(status.st_rdev), os.minor(status.st_rdev))
        if kind == "file":
            facts["size"] = status.st_size
        if kind != "directory":
            facts["links"] = (status.st_nlink, self.links.get(path, [])[:4])
        return facts


def attributes(path: bytes) -> dict[str, bytes]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in sorted(os.listxattr(path, follow_symlinks=False))
    }


def pieces(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """The data with its places, in chunks on CHUNK's grid; chunks of zeros are left out, as holes are."""
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA) // CHUNK * CHUNK
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        data = os.pread(fd, CHUNK, at)
        if data.count(0) != len(data):
            yield at, data
        at += CHUNK


def same_bytes(a: bytes, b: bytes, size: int) -> bool:
    one, two = os.open(a, os.O_RDONLY), os.open(b, os.O_RDONLY)
    try:
        if size <= CHUNK:
            return os.read(one, CHUNK + 1) == os.read(two, CHUNK + 1)
        first, second = pieces(one, size), pieces(two, size)
        return all(x == y for x, y in zip_all(first, second))
    finally:
        os.close(one)
        os.close(two)


def zip_all(first: Iterator[object], second: Iterator[object]) -> Iterator[tuple[object, object]]:
    while True:
        x, y = next(first, None), next(second, None)
        if x is None and y is None:
            return
        yield x, y


def differences(a: bytes, b: bytes) -> Iterator[str]:
    one, two = Tree(a), Tree(b)
    for path in sorted(one.found.keys() | two.found.keys()):
        if path not in two.found or path not in one.found:
            yield f"{path!r}: only in {os.fsdecode(a if path in one.found else b)}"
            continue
        here, there = one.facts(path), two.facts(path)
        for what in here.keys() | there.keys():
            if here.get(what) != there.get(what):
                yield f"{path!r}: {what}: {here.get(what)!r} and {there.get(what)!r}"
        files = here["type"] == there["type"] == "file" and here["size"] == there["size"]
        if files and not same_bytes(one.path(path), two.path(path), one.found[path].st_size):
            yield f"{path!r}: bytes"
    yield f"{len(one.found)} paths compared"


if __name__ == "__main__":
    for line in differences(os.fsencode(sys.argv[1].rstrip("/")), os.fsencode(sys.argv[2].rstrip("/"))):
        print(line)
