"""Trees: the manifest of a directory, canonical to the byte, so that equal directories share one name.

A tree's bytes are an object like any other. They are the line `volt tree 1`, then a msgpack array of one
array per entry, sorted by path (as bytes, the root first). Nothing in it depends on the order of a walk, on
a clock, or on numbers of the file system it came from: hard-link groups are numbered by their first path.
"""

from __future__ import annotations

import datetime
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Final

import msgspec

from volt_common.errors import Corrupt, Invalid

MAGIC: Final = b"volt tree 1\n"
_TYPE: Final = 0o170000  # as a mask, since stat.S_IFMT() overflows on a number that is no mode
MAX_BYTES: Final = 128 << 20  # of an encoded tree: some million entries
MAX_PATH: Final = 4095
MAX_PART: Final = 255
TYPES: Final = frozenset((stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO))
MAX_ID: Final = 0xFFFFFFFE


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One path. `size` is what lstat says: bytes of a file, length of a link's target, else 0."""

    path: bytes  # relative, no leading slash; b"" for the root
    mode: int  # st_mode, with the type
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    digest: bytes = b""  # 32 bytes, of a file that is not empty
    target: bytes = b""
    major: int = 0
    minor: int = 0
    link: int = 0  # hard-link group, numbered from 1; 0: no other name
    xattrs: tuple[tuple[bytes, bytes], ...] = ()  # sorted by name

    @property
    def is_file(self) -> bool:
        return self.mode & _TYPE == stat.S_IFREG

    @property
    def is_directory(self) -> bool:
        return self.mode & _TYPE == stat.S_IFDIR

    @property
    def is_symlink(self) -> bool:
        return self.mode & _TYPE == stat.S_IFLNK

    @property
    def is_device(self) -> bool:
        return self.mode & _TYPE in (stat.S_IFCHR, stat.S_IFBLK)


class SimpleTree(msgspec.Struct, frozen=True):
    """The published form of QEMU profiles: paths and their objects' digests, nothing else."""

    name: str
    created_at: str | float
    objects: dict[str, str]


_path_of = attrgetter("path")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Entry])
_simple = msgspec.json.Decoder(SimpleTree)


def show(path: bytes) -> str:
    """A path as a person reads it."""
    return path.decode("utf-8", "backslashreplace") or "."


def encode(entries: Iterable[Entry]) -> bytes:
    """The tree's bytes, whatever the order and link numbers of `entries`. Raises Invalid."""
    ordered = _number_links(sorted(entries, key=_path_of))
    check(ordered)
    data = MAGIC + _encoder.encode(ordered)
    if len(data) > MAX_BYTES:
        raise Invalid(f"a tree of {len(ordered)} paths is too large", hint="split it into several trees")
    return data


def decode(data: bytes | memoryview, name: str = "") -> list[Entry]:
    """The entries in order. Raises Corrupt for bytes that `encode` would not have made."""
    try:
        if bytes(data[: len(MAGIC)]) != MAGIC:
            raise Invalid("it does not begin as a tree does")
        entries = _decoder.decode(memoryview(data)[len(MAGIC) :])
        check(entries)
        _check_numbers(entries)
        if _encoder.encode(entries) != memoryview(data)[len(MAGIC) :]:  # msgpack has several forms of a number
            raise Invalid("it is not in canonical form")
    except (msgspec.MsgspecError, RecursionError, Invalid) as error:
        raise Corrupt(str(error), what="tree", name=name) from None
    return entries


def find(entries: Sequence[Entry], path: bytes) -> Entry | None:
    """The entry at `path`."""
    at = bisect_left(entries, path, key=_path_of)
    return entries[at] if at < len(entries) and entries[at].path == path else None


def below(entries: Sequence[Entry], path: bytes) -> Iterator[Entry]:
    """Everything under the directory `path`, at any depth, without itself."""
    if not path:
        yield from entries[1:]
        return
    prefix = path + b"/"
    at = bisect_left(entries, prefix, key=_path_of)
    while at < len(entries) and entries[at].path.startswith(prefix):
        yield entries[at]
        at += 1


def children(entries: Sequence[Entry], path: bytes) -> Iterator[Entry]:
    """What the directory `path` holds itself; jumps over what lies deeper."""
    prefix = path + b"/" if path else b""
    at = bisect_left(entries, prefix, key=_path_of) if prefix else 1
    while at < len(entries) and entries[at].path.startswith(prefix):
        slash = entries[at].path.find(b"/", len(prefix))
        if slash < 0:
            yield entries[at]
            at += 1
        else:  # "0" is the byte after "/"
            at = bisect_left(entries, entries[at].path[:slash] + b"0", lo=at, key=_path_of)


def digests(entries: Iterable[Entry]) -> dict[bytes, int]:
    """The objects a tree needs, with their sizes."""
    return {entry.digest: entry.size for entry in entries if entry.digest}


def from_simple(data: bytes, size_of: Callable[[bytes], int]) -> list[Entry]:
    """The entries of a tree in its simple JSON form. `size_of` gives an object's size or raises NotFound.

    Files are 0644, directories 0755, all of root, with the tree's creation time. Raises Invalid.
    """
    try:
        simple = _simple.decode(data)
        mtime_ns = _time_of(simple.created_at)
        files = {path.encode(): bytes.fromhex(digest) for path, digest in simple.objects.items()}
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise Invalid(f"this is no tree in simple form: {error}") from None
    out = {b"": Entry(b"", stat.S_IFDIR | 0o755, 0, 0, mtime_ns)}
    for path, digest in files.items():
        at = -1
        while (at := path.find(b"/", at + 1)) >= 0:
            out.setdefault(path[:at], Entry(path[:at], stat.S_IFDIR | 0o755, 0, 0, mtime_ns))
        size = size_of(digest)
        out[path] = Entry(path, stat.S_IFREG | 0o644, 0, 0, mtime_ns, size, digest if size else b"")
    ordered = sorted(out.values(), key=_path_of)
    check(ordered)
    return ordered


def _time_of(created: str | float) -> int:
    if isinstance(created, str):
        moment = datetime.datetime.fromisoformat(created)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return int(moment.timestamp()) * 1_000_000_000
    return int(created) * 1_000_000_000


def _number_links(ordered: list[Entry]) -> list[Entry]:
    """Number hard-link groups by their first path. A group whose other names lie outside is none."""
    members: dict[int, int] = {}
    for entry in ordered:
        if entry.link:
            members[entry.link] = members.get(entry.link, 0) + 1
    if not members:
        return ordered
    numbers: dict[int, int] = {}
    for at, entry in enumerate(ordered):
        if entry.link:
            number = numbers.setdefault(entry.link, len(numbers) + 1) if members[entry.link] > 1 else 0
            if number != entry.link:
                ordered[at] = msgspec.structs.replace(entry, link=number)
    return ordered


def _check_numbers(entries: Iterable[Entry]) -> None:
    """Link groups are numbered 1, 2, … by their first path, and have two members or more."""
    counts: list[int] = []
    for entry in entries:
        if entry.link > len(counts) + 1:
            raise Invalid(f"{show(entry.path)}: hard-link groups are not numbered by their first path")
        if entry.link == len(counts) + 1:
            counts.append(0)
        if entry.link:
            counts[entry.link - 1] += 1
    if 1 in counts:
        raise Invalid("a hard-link group has one name only")


def check(ordered: Sequence[Entry]) -> None:
    """Raises Invalid, naming the path, unless these entries, sorted by path, make a directory."""
    if not ordered or ordered[0].path or not ordered[0].is_directory:
        raise Invalid("a tree needs its root directory")
    directories = {b""}
    groups: dict[int, Entry] = {}
    previous: bytes | None = None
    for entry in ordered:
        path = entry.path
        if previous is not None:
            if path <= previous:
                problem = "is there twice" if path == previous else "is out of order"
                raise Invalid(f"{show(path)} {problem}")
            parent, _, name = path.rpartition(b"/")
            if (
                name in (b"", b".", b"..")
                or path[0] == 0x2F
                or len(name) > MAX_PART
                or len(path) > MAX_PATH
                or b"\0" in path
            ):
                raise Invalid(f"{show(path)}: not a path that a tree can hold")
            if parent not in directories:
                raise Invalid(f"{show(path)}: its parent is not a directory of the tree")
        previous = path
        kind = entry.mode & _TYPE
        if kind == stat.S_IFDIR:
            directories.add(path)
        if problem := _problem(entry, kind):
            raise Invalid(f"{show(path)}: {problem}")
        if entry.link:
            first = groups.setdefault(entry.link, entry)
            if first is not entry and not _one_inode(first, entry):
                raise Invalid(f"{show(path)}: differs from {show(first.path)}, which is the same file")


def _problem(entry: Entry, kind: int) -> str:
    """What is wrong with one entry by itself."""
    if kind not in TYPES or not 0 <= entry.mode <= 0o177777:
        return f"mode {entry.mode:o} is of no type that a tree can hold"
    if not (0 <= entry.uid <= MAX_ID and 0 <= entry.gid <= MAX_ID):
        return f"owner {entry.uid}:{entry.gid} is out of range"
    if not -(1 << 63) <= entry.mtime_ns < 1 << 63:
        return "its time is out of range"
    if kind == stat.S_IFREG:
        if not 0 <= entry.size < 1 << 63 or len(entry.digest) != (32 if entry.size else 0):
            return "size and digest do not fit"
    elif entry.digest or entry.size != len(entry.target):
        return "only files have contents"
    if kind == stat.S_IFLNK:
        if not entry.target or b"\0" in entry.target or len(entry.target) > MAX_PATH:
            return "a link needs a target"
    elif entry.target:
        return "only links have a target"
    if entry.major or entry.minor:
        if not entry.is_device:
            return "only devices have numbers"
        if not (0 <= entry.major <= 0xFFF and 0 <= entry.minor <= 0xFFFFF):
            return "its device number is out of range"
    if entry.link and (entry.link < 0 or kind == stat.S_IFDIR):
        return "directories have one name"
    return _xattr_problem(entry) if entry.xattrs else ""


def _xattr_problem(entry: Entry) -> str:
    last = b""
    for name, value in entry.xattrs:
        if name <= last or len(name) > 255 or b"\0" in name or len(value) > 65535:
            return "its extended attributes are out of order or out of bounds"
        last = name
    return ""


def _one_inode(a: Entry, b: Entry) -> bool:
    return msgspec.structs.replace(b, path=a.path) == a
