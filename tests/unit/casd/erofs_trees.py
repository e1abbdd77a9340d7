"""Trees at the edges of the EROFS format, to be written as images and judged."""

from __future__ import annotations

import stat
import struct

import msgspec
from unit.casd.erofs_support import ROOT, Store, directory, file, special, symlink

from volt_casd.tree import Entry

SIZES = (0, 1, 2, 31, 32, 33, *range(2999, 3101), 4095, 4096, 4097, 8191, 8192, 8193, 131071, 131072, 131073, 1 << 20)
ACL = struct.pack(
    "<I" + "HHI" * 5, 2, 1, 6, 0xFFFFFFFF, 2, 4, 1000, 4, 4, 0xFFFFFFFF, 16, 4, 0xFFFFFFFF, 32, 0, 0xFFFFFFFF
)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def everything(store: Store) -> list[Entry]:
    """One tree with all that an entry can be, to be shown alike by both forms."""
    return [
        directory(b"", 0o1751, uid=7, gid=8, mtime_ns=-5, xattrs=((b"user.root", b"r"),)),
        *[file(store, b"size/%d" % size, _bytes(size)) for size in SIZES],
        directory(b"size"),
        *_names(store),
        *_times(store),
        *_links(store),
        *_xattrs(store),
        *[symlink(b"target-%d" % size, b"t" * size) for size in (1, 255, 2944, 3008, 3009, 4094, 4095)],
        special(b"null", stat.S_IFCHR, 1, 3),
        special(b"device", stat.S_IFCHR, 0xFFF, 0xFFFFF, uid=5),
        special(b"disk", stat.S_IFBLK, 8, 257),
        special(b"fifo", stat.S_IFIFO),
        *[file(store, b"mode-%o" % mode, b"m%o" % mode, mode) for mode in (0, 0o4755, 0o2755, 0o6711, 0o1644)],
        file(store, b"owned", b"owned", uid=0xFFFFFFFE, gid=70000),
        file(store, b"equal-1", _bytes(20000)),
        file(store, b"equal-2", _bytes(20000)),
    ]  # fmt: skip


def exact_directories(_store: Store) -> list[Entry]:
    """Directories whose names end just before, on and after a block, and where a tail stops to be inline."""
    entries = [ROOT]
    for used in (27, 40, 41, 2900, 3007, 3008, 3009, 4094, 4095, 4096, 4096 + 140, 8191, 8192, 12288, 12288 + 3008):
        path = b"exact-%d" % used
        entries.append(directory(path))
        entries += [special(path + b"/" + name, stat.S_IFIFO) for name in _names_that_fill(used)]
    return entries


def alignments(store: Store) -> list[Entry]:
    """Inodes, xattrs and tails of every length, so that each kind meets every distance from a block's end."""
    entries = [ROOT]
    entries += [
        file(store, b"x%03d" % i, b"s" * (i * 7 + 1), xattrs=((b"user.v", b"v" * (i * 5)),)) for i in range(400)
    ]
    entries += [symlink(b"l%03d" % i, b"t" * (i * 11 % 4095 + 1)) for i in range(400)]
    entries += [file(store, b"f%03d" % i, b"f" * (i + 1)) for i in range(300)]
    for i in range(60):
        entries.append(directory(b"d%02d" % i, xattrs=((b"user.d", b"x" * (i * 61)),) if i % 2 else ()))
        entries += [special(b"d%02d/%s%02d" % (i, b"n" * (17 * j % 200), j), stat.S_IFIFO) for j in range(i)]
    return entries


def wide(store: Store, count: int) -> list[Entry]:
    """Many files in one directory, of which some hold data."""
    some = file(store, b"", b"wide"), file(store, b"")
    paths = (b"wide/entry-%d" % i for i in range(count))
    return [ROOT, directory(b"wide"), *[_at(path, some[i % 100 > 0]) for i, path in enumerate(paths)]]


def sparse(store: Store) -> list[Entry]:
    """Files with holes, from under a chunk to 10 GiB, with data before and after 4 GiB."""
    big = {0: b"start", (5 << 30) + 12345: b"middle", (10 << 30) - 3: b"end"}
    shapes: dict[str, tuple[int, dict[int, bytes]]] = {
        "ten-gibibytes": (10 << 30, big),
        "no-data": (6 << 30, {}),
        "data-last": ((1 << 32) + 1, {1 << 32: b"x"}),
        "hole-last": ((80 << 20) + 1, {0: b"x" * 5000}),
        "hole-below-a-chunk": (300_000, {0: b"a", 200_000: b"b"}),
        "pieces-in-a-chunk": (80 << 20, {(70 << 20) + 8192 * i: b"p%d" % i for i in range(40)}),
    }
    entries = [ROOT]
    for name, (size, pieces) in shapes.items():
        digest = store.put_sparse(name, size, pieces)
        if size < 1 << 20:
            digest = store.put(store.path(digest).read_bytes())
        entries.append(Entry(name.encode(), stat.S_IFREG | 0o644, 0, 0, 0, size, digest))
    return entries


def _at(path: bytes, entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, path=path)


def _bytes(size: int) -> bytes:
    return (b"%08d" % size * (size // 8 + 1))[:size]


def _names(store: Store) -> list[Entry]:
    # `.` and `..` are sorted among these: control characters, `-` and `+` come before them.
    names = (
        b"-x", b"+", b"!", b"\x01", b"\n", b" ", b",", b"-", b"...", b"..a", b".a", b".-", b".\xff", b"0",
        b"\xff\xfe", b"\x80", "é".encode(), b"n" * 255, b"\xff" * 255,
    )  # fmt: skip
    # `a-b` and `a.b` sort between a directory and what lies in it.
    beside = (b"a-b", b"a/b", b"a.b", b"\xff\xff/deep/\xfe")
    return [
        *[directory(path) for path in (b"names", b"a", b"a0", b"\xff\xff", b"\xff\xff/deep")],
        *[file(store, b"names/" + name, b"name " + name) for name in names],
        *[file(store, path, path) for path in beside],
    ]


def _times(store: Store) -> list[Entry]:
    second = 1_000_000_000
    times = (0, -1, -second, -second - 1, -(1 << 62), 1, second - 1, (1 << 31) * second, (1 << 62) + 1)
    return [file(store, b"time%d" % time, b"%d" % time, mtime_ns=time) for time in times]


def _links(store: Store) -> list[Entry]:
    linked = file(store, b"link-1", b"linked" * 2000, link=1)
    empty = file(store, b"link-empty-1", link=2)
    pipe = special(b"link-fifo-1", stat.S_IFIFO, link=3)
    small = file(store, b"link-xattr-1", b"linked", link=4, xattrs=((b"user.a", b"1"),))
    return [
        linked, _at(b"a/link-2", linked), _at(b"zz-link-3", linked),
        empty, _at(b"a/link-empty-2", empty),
        pipe, _at(b"names/link-fifo-2", pipe),
        small, _at(b"z-link-xattr-2", small),
        file(store, b"link-alone", b"its other names are outside", link=5),
    ]  # fmt: skip


def _xattrs(store: Store) -> list[Entry]:
    default = (b"system.posix_acl_default", ACL)
    access = (b"system.posix_acl_access", ACL)
    full = tuple((b"user.%c" % letter, b"%c" % letter * 65000) for letter in b"abc")
    opaque = (b"trusted.overlay.opaque", b"y")
    redirect = (b"trusted.overlay.redirect", b"/elsewhere")
    return [
        file(store, b"acl", b"acl", 0o640, xattrs=(access,)),
        directory(b"acl-default", 0o750, xattrs=(default, (b"user.z", b""))),
        file(store, b"capability", b"capability", 0o755, xattrs=((b"security.capability", CAPABILITY),)),
        file(store, b"capability-large", _bytes(9000), 0o755, xattrs=((b"security.capability", CAPABILITY),)),
        file(store, b"xattr-65535", b"x", xattrs=((b"user.large", b"L" * 65535),)),
        file(store, b"xattr-65535-empty", xattrs=((b"user.large", b"L" * 65535),)),
        file(store, b"xattr-many", _bytes(5000), xattrs=full),
        file(store, b"xattr-name", b"x", xattrs=((b"user." + b"n" * 250, b""),)),
        directory(b"xattr-directory", xattrs=((b"trusted.t", b"T" * 20000),)),
        file(store, b"xattr-directory/inside", b"inside"),
        symlink(b"xattr-link", b"t" * 50, xattrs=((b"trusted.z", b"z" * 30000),)),
        directory(b"overlay-opaque", xattrs=(opaque,)),
        file(store, b"overlay-opaque/inside", b"seen"),
        file(store, b"overlay-redirect", b"not elsewhere", xattrs=((b"trusted.overlay.metacopy", b""), redirect)),
        file(store, b"overlay-empty", xattrs=(redirect,)),
        file(store, b"overlay-escaped", b"e", xattrs=((b"trusted.overlay.overlay.opaque", b"y"),)),
    ]


def _names_that_fill(used: int) -> list[bytes]:
    """Sorted names with which a directory takes exactly `used` bytes: `.` and `..` take 27, a name 12 more
    than its length, and every block but the last is full."""
    names: list[bytes] = []
    for block in range(-(-used // 4096)):
        left = min(4096, used - 4096 * block) - (0 if block else 27)
        while left:
            take = left if left <= 267 else min(150, left - 13)
            assert take > 12
            names.append((b"%c%02d" % (97 + block, len(names))).ljust(take - 12, b"n")[: take - 12])
            left -= take
    return names
