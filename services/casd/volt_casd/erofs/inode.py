"""Inodes: each is placed, with its xattrs and what is stored beside it, as soon as it is met.

An inode knows the addresses of its data by then, except a directory's, which waits for the nids of its
children: its place is taken at once, its bytes come with `finish`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from struct import Struct, error
from typing import Final, NamedTuple, Protocol

import msgspec

from volt_casd.erofs import xattr
from volt_casd.erofs.directory import Directory, directories
from volt_casd.erofs.layout import (
    BLOCK,
    BLOCK_BITS,
    CHUNK_BITS_MAX,
    CHUNKED,
    FILE_TYPES,
    FLAT_INLINE,
    FLAT_PLAIN,
    INLINE_MAX,
    INODE,
    NULL_BLOCK,
    SLOT,
    blocks_of,
    device,
    invalid,
)
from volt_casd.tree import Entry, show
from volt_common.api.cas import Form

_SIZE_MAX: Final = (1 << 63) - 1
_CHUNK_MAX: Final = BLOCK << CHUNK_BITS_MAX
_SECOND: Final = 1_000_000_000


class Contents(NamedTuple):
    """A small object whose bytes belong into the metadata; read only when they are written."""

    digest: bytes
    size: int


class Data(Protocol):
    """Where contents go that are not stored beside their inode."""

    def file(self, digest: bytes, size: int) -> Body: ...

    def target(self, target: bytes) -> Body: ...


class Body(NamedTuple):
    """Where an inode's contents are."""

    layout: int
    union: int  # of the inode: address, chunk bits or device
    size: int
    tail: bytes | Contents = b""  # what follows the xattrs


class _Waiting(NamedTuple):
    directory: Directory
    part: int  # in Inodes._parts
    entry: Entry
    xattrs: bytes
    number: int
    room: int  # bytes of the inode, its xattrs and its tail


class Inodes:
    """The metadata of an image, from the entries sorted by path."""

    def __init__(self, entries: Sequence[Entry], form: Form, data: Data) -> None:
        self._entries = entries
        self._redirect = form is Form.REDIRECT
        self._data = data
        self._directories = directories(entries)
        self._groups = link_groups(entries)
        self._nids = [0] * len(entries)
        self._types = [FILE_TYPES.get(entry.mode & 0o170000, 0) for entry in entries]
        # The first slot stays empty, as nid 0 would give an st_ino of 0.
        self._parts: list[bytes | Contents] = [bytes(SLOT)]
        self._length = SLOT
        self._waiting: list[_Waiting] = []
        self._encoded: dict[tuple[tuple[bytes, bytes], ...], bytes] = {}
        self.count = 0
        """Inodes placed."""
        self.chunked = False
        """Whether one of them is chunk-based."""

    @property
    def root_nid(self) -> int:
        """The superblock has 16 bits for it, so the root is placed first."""
        return self._nids[0]

    def place(self) -> None:
        """Give every entry its inode; data goes to `data` on the way. Raises Invalid naming the path."""
        in_order = iter(self._directories)
        plain = []
        for index, entry in enumerate(self._entries):
            if entry.link and self._groups[entry.link][0] != index:
                continue  # an inode is made at its first path
            kind = entry.mode & 0o170000
            if self._redirect and kind == stat.S_IFREG and 0 < entry.size <= _CHUNK_MAX and not entry.xattrs:
                plain.append(index)
                continue
            try:
                if kind == stat.S_IFDIR:
                    self._place_directory(next(in_order), entry)
                else:
                    self._place_other(index, entry)
            except (ValueError, error) as why:
                raise invalid(entry.path, str(why)) from why
        self._place_redirecting(plain)
        for group in self._groups.values():
            for index in group[1:]:
                self._nids[index] = self._nids[group[0]]

    def finish(self, first_block: int) -> tuple[Iterator[bytes | Contents], list[bytes]]:
        """The metadata, which starts at block `first_block`, and the directory blocks behind it."""
        metadata_blocks = blocks_of(self._length)
        block = first_block + metadata_blocks
        blocks: list[bytes] = []
        for directory, part, entry, xattrs, number, room in self._waiting:
            whole = directory.blocks(self._nids, self._types)
            tail = whole.pop() if _is_inline(directory, xattrs) else b""
            if whole:
                whole[-1] = whole[-1].ljust(BLOCK, b"\0")
            body = Body(FLAT_INLINE if tail else FLAT_PLAIN, block if whole else 0, directory.size)
            inode = _inode(entry, body, len(xattrs), number, 2 + directory.subdirectories)
            self._parts[part] = (inode + xattrs + tail).ljust(room, b"\0")
            blocks += whole
            block += len(whole)
        self._parts.append(bytes(metadata_blocks * BLOCK - self._length))
        return iter(self._parts), blocks

    def _reserve(self, index: int, size: int, unbroken: int) -> int:
        """Take `size` bytes for an entry's inode, of which the first `unbroken` lie in one block; returns the
        inode's number. The kernel reads xattrs and chunk addresses across blocks, but not an inline tail.
        """
        room = -self._length % BLOCK or BLOCK
        if room < unbroken:
            self._parts.append(bytes(room))
            self._length += room
        self._nids[index] = self._length // SLOT
        self._length += size
        self.count += 1
        return self.count

    def _place_redirecting(self, indexes: list[int]) -> None:
        """What most inodes of a redirecting image are, files without xattrs of their own: equally large, and
        in a loop of their own, as they set the time that an image takes."""
        fixed, variable = len(xattr.REDIRECT), xattr.OBJECT_PATH_LENGTH
        xattr_count = xattr.count(fixed + variable)
        used = INODE.size + fixed + variable + len(NULL_BLOCK)
        size = _slots(used)
        pack = Struct(f"{INODE.format}{fixed}s{variable}s{len(NULL_BLOCK)}s{size - used}x").pack
        entries, nids, add, length, number = self._entries, self._nids, self._parts.append, self._length, self.count
        for index in indexes:
            entry = entries[index]
            room = -length & BLOCK - 1
            if 0 < room < INODE.size:
                add(bytes(room))
                length += room
            nids[index] = length // SLOT
            length += size
            number += 1
            name = entry.digest.hex()
            bits = (entry.size - 1).bit_length() - BLOCK_BITS  # as _chunk_bits
            seconds, nanoseconds = divmod(entry.mtime_ns, _SECOND)
            try:
                if len(name) != 64:
                    _check_file(entry)
                packed = pack(
                    CHUNKED, xattr_count, entry.mode, 0, entry.size, bits if bits > 0 else 0, number, entry.uid,
                    entry.gid, seconds, nanoseconds, self._links(entry) if entry.link else 1, xattr.REDIRECT,
                    f"/{name[:2]}/{name}".encode(), NULL_BLOCK,
                )  # fmt: skip
            except (ValueError, error) as why:
                raise invalid(entry.path, str(why)) from why
            add(packed)
        self._length, self.count = length, number
        self.chunked |= bool(indexes)

    def _links(self, entry: Entry) -> int:
        return len(self._groups[entry.link]) if entry.link else 1

    def _place_directory(self, directory: Directory, entry: Entry) -> None:
        if entry.link:
            raise ValueError("a directory cannot be in a hard-link group")
        directory.seal()
        xattrs = self._xattrs(entry)
        inline = _is_inline(directory, xattrs)
        used = INODE.size + len(xattrs) + (directory.tail if inline else 0)
        room = _slots(used)
        number = self._reserve(directory.index, room, used if inline else INODE.size)
        self._waiting.append(_Waiting(directory, len(self._parts), entry, xattrs, number, room))
        self._parts.append(b"")

    def _place_other(self, index: int, entry: Entry) -> None:
        xattrs = self._xattrs(entry)
        body = self._body(entry, xattrs)
        self.chunked |= body.layout == CHUNKED
        tail = body.tail.size if isinstance(body.tail, Contents) else len(body.tail)
        used = INODE.size + len(xattrs) + tail
        room = _slots(used)
        number = self._reserve(index, room, used if body.layout == FLAT_INLINE else INODE.size)
        head = _inode(entry, body, len(xattrs), number, self._links(entry)) + xattrs
        if isinstance(body.tail, Contents):
            self._parts += (head, body.tail, bytes(room - used))
        else:
            self._parts.append((head + body.tail).ljust(room, b"\0"))

    def _xattrs(self, entry: Entry) -> bytes:
        if self._redirect and entry.is_file and entry.size:
            _check_file(entry)
            return xattr.encode(xattr.escaped(entry.xattrs), prefix=xattr.redirecting(entry.digest))
        if not entry.xattrs:
            return b""
        encoded = self._encoded.get(entry.xattrs)
        if encoded is None:
            encoded = xattr.encode(xattr.escaped(entry.xattrs) if self._redirect else entry.xattrs)
            self._encoded[entry.xattrs] = encoded
        return encoded

    def _body(self, entry: Entry, xattrs: bytes) -> Body:
        kind = entry.mode & 0o170000
        if kind == stat.S_IFREG:
            _check_file(entry)
            if not entry.size:
                return Body(FLAT_PLAIN, 0, 0)
            if self._redirect:
                return hole(entry.size)
            if entry.size + len(xattrs) <= INLINE_MAX:
                return Body(FLAT_INLINE, 0, entry.size, Contents(entry.digest, entry.size))
            return self._data.file(entry.digest, entry.size)
        if kind == stat.S_IFLNK:
            size = len(entry.target)
            if not 0 < size < BLOCK or b"\0" in entry.target or size != entry.size:
                raise ValueError(f"no image can hold a symbolic link to {size} bytes (its size says {entry.size})")
            if size + len(xattrs) <= INLINE_MAX:
                return Body(FLAT_INLINE, 0, size, entry.target)
            return self._data.target(entry.target)
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            if self._redirect and kind == stat.S_IFCHR and not entry.major and not entry.minor:
                raise ValueError("character device 0:0 is a whiteout to overlayfs, so no redirecting view can show it")
            return Body(FLAT_PLAIN, device(entry.major, entry.minor), 0)
        if kind in FILE_TYPES:
            return Body(FLAT_PLAIN, 0, 0)
        raise ValueError(f"mode {entry.mode:#o} is of no known type")


def hole(size: int) -> Body:
    """A file that has no bytes in the image: one chunk without an address over it all, or the fewest."""
    bits = _chunk_bits(size)
    chunks = (size - 1 >> BLOCK_BITS + bits) + 1
    return Body(CHUNKED, bits, size, NULL_BLOCK * chunks)


def link_groups(entries: Sequence[Entry]) -> dict[int, list[int]]:
    """The indexes of the entries that share an inode, by their group's number.

    Raises Invalid when the entries of a group differ in more than their path.
    """
    groups: dict[int, list[int]] = {}
    for index, entry in enumerate(entries):
        if entry.link:
            group = groups.setdefault(entry.link, [])
            group.append(index)
            first = entries[group[0]]
            if msgspec.structs.astuple(entry)[1:] != msgspec.structs.astuple(first)[1:]:
                raise invalid(entry.path, f"it is a hard link to {show(first.path)}, but not described alike")
    return groups


def _inode(entry: Entry, body: Body, xattrs_length: int, number: int, links: int) -> bytes:
    # Rounded down, so that the nanoseconds are positive before 1970 too.
    seconds, nanoseconds = divmod(entry.mtime_ns, _SECOND)
    return INODE.pack(
        body.layout, xattr.count(xattrs_length), entry.mode, 0, body.size, body.union, number, entry.uid, entry.gid,
        seconds, nanoseconds, links,
    )  # fmt: skip


def _chunk_bits(size: int) -> int:
    """The least powers of two of blocks that cover `size`, within what one chunk may be."""
    return min(max(0, (size - 1).bit_length() - BLOCK_BITS), CHUNK_BITS_MAX)


def _is_inline(directory: Directory, xattrs: bytes) -> bool:
    return directory.tail + len(xattrs) <= INLINE_MAX


def _slots(size: int) -> int:
    return size + -size % SLOT


def _check_file(entry: Entry) -> None:
    if not 0 <= entry.size <= _SIZE_MAX:
        raise ValueError(f"no file has {entry.size} bytes")
    if len(entry.digest) != (32 if entry.size else 0):
        raise ValueError(f"a digest of {len(entry.digest)} bytes does not name the {entry.size} bytes of a file")
