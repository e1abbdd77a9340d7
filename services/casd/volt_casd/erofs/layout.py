"""The on-disk structures of EROFS that an uncompressed image needs, and their limits.

Source: Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of Linux. All numbers are little endian.
"""

from __future__ import annotations

import stat
from struct import Struct
from typing import Final

from volt_casd.tree import show
from volt_common.errors import Invalid

BLOCK_BITS: Final = 12
BLOCK: Final = 1 << BLOCK_BITS
SLOT: Final = 32
"""Inodes begin on multiples of this; a nid counts slots from the first metadata block."""

BLOCKS_MAX: Final = 0xFFFFFFFE
"""Of an image: block addresses have 32 bits, and the last one means a hole."""

NULL_BLOCK: Final = b"\xff\xff\xff\xff"
"""The address of a chunk that is a hole."""

INLINE_MAX: Final = 3008
"""Bytes of xattrs and contents up to which contents sit beside the inode. A tail must not cross a block, so
beyond this the gap before it costs more than the block it saves."""

CHUNK_BITS_MAX: Final = 31
"""Of a chunk-based inode: one chunk is at most this many powers of two of blocks."""

FLAT_PLAIN, FLAT_INLINE, CHUNKED = (1 | layout << 1 for layout in (0, 2, 4))
"""i_format: the data layout, and bit 0 for the 64-byte inode with its 32-bit ids and signed time."""

SUPERBLOCK_OFFSET: Final = 1024
_MAGIC: Final = 0xE0F5E1E2
_COMPAT_CHECKSUM_AND_MTIME: Final = 1 | 2
_INCOMPAT_CHUNKED: Final = 4
_SUPERBLOCK: Final = Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")

INODE: Final = Struct("<HHHHQIIIIqII16x")
"""i_format, xattr count, mode, reserved, size, union (block address, chunk bits or device), ino, uid, gid,
seconds of mtime, nanoseconds of mtime, nlink."""

FILE_TYPES: Final = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}
"""What a directory entry says of its inode's type."""


def blocks_of(size: int) -> int:
    """How many blocks hold `size` bytes."""
    return (size + BLOCK - 1) >> BLOCK_BITS


def invalid(path: bytes, why: str) -> Invalid:
    """The error for an entry that no image can hold."""
    return Invalid(f"{show(path)}: {why}", path=show(path))


def device(major: int, minor: int) -> int:
    """A device number as Linux encodes it in 32 bits (new_encode_dev); raises ValueError out of range."""
    if not 0 <= major <= 0xFFF or not 0 <= minor <= 0xFFFFF:
        raise ValueError(f"device number {major}:{minor} is out of range")
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def superblock(*, root_nid: int, inodes: int, blocks: int, meta_block: int, chunked: bool, uuid: bytes) -> bytes:
    """Block 0 of an image. `chunked` says that chunk-based inodes are in it, which Linux before 5.15 lacks."""
    packed = _SUPERBLOCK.pack(
        _MAGIC, 0, _COMPAT_CHECKSUM_AND_MTIME, BLOCK_BITS, 0, root_nid, inodes, 0, 0, blocks, meta_block, 0,
        uuid, b"", _INCOMPAT_CHUNKED if chunked else 0, 0, 0, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    # The checksum covers the superblock to the end of its block, with its own field zero.
    checksum = _crc32c(packed.ljust(BLOCK - SUPERBLOCK_OFFSET, b"\0"))
    packed = packed[:4] + checksum.to_bytes(4, "little") + packed[8:]
    return (bytes(SUPERBLOCK_OFFSET) + packed).ljust(BLOCK, b"\0")


def _crc32c(data: bytes) -> int:
    """Castagnoli from all ones, without the final inversion, as the superblock stores it."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc
