"""Trees, objects and real mounts for the tests of EROFS images.

Run as a program it is the child that mounts: it takes a private mount namespace, so nothing it mounts is
seen outside or outlives it, and compares what the kernel shows with the entries, path by path.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from blake3 import blake3

from volt_casd.erofs import write_image
from volt_casd.tree import Entry
from volt_common.api.cas import Form

SKIP = 77
LARGE = 64 << 20  # files from here on are compared where they have data
_libc = ctypes.CDLL(None, use_errno=True)
_MS_RDONLY, _MS_REC, _MS_PRIVATE, _CLONE_NEWNS = 1, 1 << 14, 1 << 18, 0x20000


@dataclass(frozen=True)
class Store:
    """Objects in a directory, as casd lays them out."""

    root: Path

    def path(self, digest: bytes) -> Path:
        name = digest.hex()
        return self.root / name[:2] / name

    def open(self, digest: bytes) -> int:
        return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)

    def put(self, data: bytes) -> bytes:
        digest = blake3(data).digest()
        self.path(digest).parent.mkdir(parents=True, exist_ok=True)
        self.path(digest).write_bytes(data)
        return digest

    def put_sparse(self, name: str, size: int, pieces: dict[int, bytes]) -> bytes:
        """A file of `size` with these bytes at these offsets and holes between. Its digest is made up of its
        name, since hashing the holes of a very large one takes long and nothing here hashes it again."""
        digest = blake3(name.encode()).digest()
        self.path(digest).parent.mkdir(parents=True, exist_ok=True)
        with self.path(digest).open("wb") as out:
            out.truncate(size)
            for offset, data in pieces.items():
                out.seek(offset)
                out.write(data)
        return digest


ROOT = Entry(b"", stat.S_IFDIR | 0o755, 0, 0, 0)


def directory(path: bytes, mode: int = 0o755, **fields: object) -> Entry:
    return _with(Entry(path, stat.S_IFDIR | mode, 0, 0, 1_600_000_000_000_000_001), fields)


def file(store: Store, path: bytes, data: bytes = b"", mode: int = 0o644, **fields: object) -> Entry:
    digest = store.put(data) if data else b""
    return _with(Entry(path, stat.S_IFREG | mode, 0, 0, 1_600_000_000_123_456_789, len(data), digest), fields)


def symlink(path: bytes, target: bytes, **fields: object) -> Entry:
    return _with(Entry(path, stat.S_IFLNK | 0o777, 0, 0, 1_500_000_000_999_999_999, len(target), b"", target), fields)


def special(path: bytes, kind: int, major: int = 0, minor: int = 0, **fields: object) -> Entry:
    return _with(Entry(path, kind | 0o600, 0, 0, 7, major=major, minor=minor), fields)


def _with(entry: Entry, fields: dict[str, object]) -> Entry:
    return msgspec.structs.replace(entry, **fields)


def image(path: Path, entries: Sequence[Entry], form: Form, store: Store) -> Path:
    """Write the image of a tree, and check that it is as long as it says."""
    out = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        size = write_image(out, entries, form, store.open)
        assert os.fstat(out).st_size == size
    finally:
        os.close(out)
    return path


def walk(top: Path, store: Store, limit: int) -> list[Entry]:
    """The entries of at most `limit` paths of a real directory, with their objects stored."""
    entries: list[Entry] = []
    groups: dict[tuple[int, int], list[int]] = {}

    def visit(path: bytes) -> None:
        if len(entries) >= limit:
            return
        real = os.path.join(os.fsencode(top), path) if path else os.fsencode(top)
        status = os.lstat(real)
        kind = stat.S_IFMT(status.st_mode)
        fields: dict[str, object] = {"xattrs": tuple(sorted(_xattrs(real).items()))}
        if kind == stat.S_IFREG and status.st_size:
            fields |= {"size": status.st_size, "digest": store.put(Path(os.fsdecode(real)).read_bytes())}
        elif kind == stat.S_IFLNK:
            target = os.readlink(real)
            fields |= {"size": len(target), "target": target}
        if kind != stat.S_IFDIR and status.st_nlink > 1:
            groups.setdefault((status.st_dev, status.st_ino), []).append(len(entries))
        base = Entry(path, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
        entries.append(_with(base, fields))
        if kind == stat.S_IFDIR:
            for name in sorted(os.listdir(real)):
                visit(path + b"/" + name if path else name)

    visit(b"")
    for number, members in enumerate(groups.values(), 1):
        for index in members:
            entries[index] = _with(entries[index], {"link": number})
    return entries


def differences(image: Path, form: Form, store: Store, *expected: Sequence[Entry]) -> list[list[str]]:
    """Mount an image and compare what the kernel shows with each of these lists of entries.

    Skips the test with the child's reason where this user or this kernel cannot mount it.
    """
    return json.loads(_child("compare", str(image), form.value, str(store.root), stdin=_encode(expected)))


def on_a_full_disk(entries: Sequence[Entry], form: Form, store: Store, size: int) -> str:
    """What error writing an image on a file system of `size` bytes raises, as `Class: message`."""
    return _child("exhaust", form.value, str(store.root), str(size), stdin=_encode([entries])).decode()


def _encode(lists: Sequence[Sequence[Entry]]) -> bytes:
    return msgspec.msgpack.encode([list(entries) for entries in lists])


def _child(*arguments: str, stdin: bytes) -> bytes:
    import pytest

    if os.geteuid():
        pytest.skip("mounting an image needs root")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    run = subprocess.run(
        [sys.executable, __file__, *arguments], input=stdin, capture_output=True, env=environment, timeout=100
    )
    if run.returncode == SKIP:
        pytest.skip(run.stderr.decode())
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout


# The child, from here on.


def _skip(reason: str) -> None:
    sys.stderr.write(reason)
    sys.exit(SKIP)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    raw = [None if text is None else text.encode() for text in (source, target, kind, data)]
    _check(_libc.mount(raw[0], raw[1], raw[2], ctypes.c_ulong(flags), raw[3]), f"mount {kind or ''} {data or ''}")


def _private_namespace() -> None:
    try:
        _check(_libc.unshare(_CLONE_NEWNS), "unshare")
        _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    except PermissionError as why:
        _skip(f"no private mount namespace here: {why}")
    _mount("tmpfs", "/mnt", "tmpfs")


def _mount_image(image: str, form: Form, objects: str) -> str:
    meta, merged = "/mnt/image", "/mnt/merged"
    os.mkdir(meta)
    os.mkdir(merged)
    try:
        _mount(image, meta, "erofs", _MS_RDONLY)
    except OSError as why:
        if why.errno == errno.ENODEV:
            _skip("this kernel has no EROFS")
        if why.errno != errno.ENOTBLK:
            raise
        loop = subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", image, meta], capture_output=True, text=True)
        if loop.returncode:
            _skip(f"this kernel mounts EROFS from no file, and there is no loop device: {loop.stderr.strip()}")
    if form is Form.FULL:
        return meta
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if release < (6, 7):
        _skip(f"overlayfs of Linux {os.uname().release} lacks data-only layers or escaped xattrs (6.7)")
    options = f"lowerdir={meta}::{objects},metacopy=on,redirect_dir=on"
    try:
        _mount("overlay", merged, "overlay", _MS_RDONLY, options)
    except OSError as why:
        if why.errno == errno.ENODEV:
            _skip("this kernel has no overlayfs")
        raise
    return merged


def _xattrs(path: bytes) -> dict[bytes, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names}


def _compare(top: bytes, entries: Sequence[Entry], store: Store) -> Iterator[str]:
    """Every difference between a mounted tree and its entries, as `path: what: found, expected`."""
    wanted = {entry.path: entry for entry in entries}
    names: dict[int, list[bytes]] = {}
    subdirectories: dict[bytes, int] = {}
    for entry in entries:
        if entry.link:
            names.setdefault(entry.link, []).append(entry.path)
        if entry.is_directory and entry.path:
            parent = entry.path.rpartition(b"/")[0]
            subdirectories[parent] = subdirectories.get(parent, 0) + 1
    inodes: dict[tuple[int, int], bytes] = {}
    merged = os.fsdecode(top).endswith("merged")
    found = dict(_paths(top))
    for path in sorted(wanted.keys() - found.keys()):
        yield f"{path!r}: missing"
    for path, kind in sorted(found.items()):
        entry = wanted.get(path)
        if entry is None:
            yield f"{path!r}: extra"
            continue
        real = top + b"/" + path if path else top
        status = os.lstat(real)
        if entry.is_directory:
            # Of a directory that it merges, overlayfs counts no subdirectories.
            links = status.st_nlink if merged else 2 + subdirectories.get(path, 0)
        else:
            group = names.get(entry.link, [path])
            links = len(group)
            first = inodes.setdefault((status.st_dev, status.st_ino), group[0])
            if first != group[0]:
                yield f"{path!r}: inode: that of {first!r}, {group[0]!r}"
        device = os.makedev(entry.major, entry.minor) if entry.is_device else 0
        for what, is_, should in (
            ("type", kind, stat.S_IFMT(entry.mode)),
            ("mode", oct(status.st_mode), oct(entry.mode)),
            ("uid", status.st_uid, entry.uid),
            ("gid", status.st_gid, entry.gid),
            ("mtime", status.st_mtime_ns, entry.mtime_ns),
            ("size", status.st_size, status.st_size if entry.is_directory else entry.size),
            ("device", status.st_rdev, device),
            ("links", status.st_nlink, links),
            ("xattrs", _xattrs(real), dict(entry.xattrs)),
            ("target", os.readlink(real) if stat.S_ISLNK(status.st_mode) else b"", entry.target),
        ):
            if is_ != should:
                yield f"{path!r}: {what}: {str(is_)[:200]}, {str(should)[:200]}"
        if entry.is_file and stat.S_ISREG(status.st_mode) and not _same_bytes(real, entry, store):
            yield f"{path!r}: bytes"


def _paths(top: bytes) -> Iterator[tuple[bytes, int]]:
    """Every path with the type that its directory says it has."""
    yield b"", stat.S_IFDIR
    stack = [b""]
    while stack:
        inside = stack.pop()
        with os.scandir(top + b"/" + inside if inside else top) as listing:
            for found in listing:
                path = inside + b"/" + found.name if inside else found.name
                if found.is_dir(follow_symlinks=False):
                    kind = stat.S_IFDIR
                    stack.append(path)
                elif found.is_symlink():
                    kind = stat.S_IFLNK
                elif found.is_file(follow_symlinks=False):
                    kind = stat.S_IFREG
                else:
                    kind = stat.S_IFMT(found.stat(follow_symlinks=False).st_mode)
                yield path, kind


def _same_bytes(real: bytes, entry: Entry, store: Store) -> bool:
    if not entry.size:
        return not entry.digest and not os.stat(real).st_size
    with open(real, "rb") as mounted:
        if entry.size < LARGE:
            return blake3(mounted.read()).digest() == entry.digest
        with store.path(entry.digest).open("rb") as source:
            descriptors = mounted.fileno(), source.fileno()
            ranges = [span for descriptor in descriptors for span in _data(descriptor, entry.size)]
            return all(_same_range(*descriptors, start, end) for start, end in ranges)


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    at = 0
    while at < size:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as why:
            if why.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(descriptor, at, os.SEEK_HOLE)
        yield at, end
        at = end


def _same_range(left: int, right: int, start: int, end: int) -> bool:
    step = 1 << 20
    pieces = ((min(step, end - at), at) for at in range(start, end, step))
    return all(os.pread(left, n, at) == os.pread(right, n, at) for n, at in pieces)


def _compare_main(image: str, form: str, objects: str) -> None:
    expected = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[list[Entry]])
    _private_namespace()
    top = _mount_image(image, Form(form), objects).encode()
    json.dump([list(_compare(top, entries, Store(Path(objects)))) for entries in expected], sys.stdout)


def _exhaust_main(form: str, objects: str, size: str) -> None:
    (entries,) = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[list[Entry]])
    _private_namespace()
    os.mkdir("/mnt/small")
    _mount("tmpfs", "/mnt/small", "tmpfs", 0, f"size={size}")
    try:
        image(Path("/mnt/small/image"), entries, Form(form), Store(Path(objects)))
    except Exception as error:
        sys.stdout.write(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"compare": _compare_main, "exhaust": _exhaust_main}
    commands[sys.argv[1]](*sys.argv[2:])
