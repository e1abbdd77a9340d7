"""One 512-byte header block of a tar archive, in the dialects v7, ustar, GNU and star."""

from __future__ import annotations

import functools
import struct
import zlib
from typing import Final, NamedTuple

from volt_casd.tar.names import shown
from volt_common.errors import Invalid

BLOCK: Final = 512
ZEROS: Final = bytes(BLOCK)

# name mode uid gid size mtime chksum type linkname magic+version uname gname devmajor devminor prefix
_LAYOUT: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12s")
_USTAR: Final = b"ustar\0"
_GNU: Final = b"ustar  \0"
_STAR_END: Final = b"tar\0"
EXTENDED: Final = (b"x", b"X", b"g", b"L", b"K")  # they belong to the member after them


class Header(NamedTuple):
    """The fields as the block has them; numbers that no field holds are 0. Names end before their NUL."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    kind: bytes
    linkname: bytes
    major: int
    minor: int
    gnu: bool


def number(field: bytes) -> int:
    """Octal digits among blanks, or base-256 as GNU tar writes what octal cannot hold. Raises ValueError."""
    digits = field.rstrip(b"\0 ")
    if digits.isdigit():
        return int(digits, 8)
    if field[0] & 0x80:  # two's complement, its sign in bit 6
        value = int.from_bytes(field, "big") - (1 << (8 * len(field) - 1))
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if not digits.isdigit():  # int() alone takes signs, underscores and prefixes as well
        raise ValueError(digits)
    return int(digits, 8)


_usual = functools.lru_cache(maxsize=1024)(number)  # modes, owners and times are the same over and over


def parse(buffer: bytearray, view: memoryview, at: int, offset: int) -> Header:
    """The header at `buffer[at:at + 512]`, of which `view` is the memory; `offset` is where the archive
    has it, for errors. Raises Invalid."""
    (name, mode, uid, gid, size, mtime, checksum, kind, linkname, magic, major, minor, prefix, end) = (
        _LAYOUT.unpack_from(buffer, at)
    )
    # Adler-32's low half is 1 + the sum of the bytes, modulo 65521, which 256 bytes cannot reach: exact,
    # and twenty times faster than sum().
    total = (zlib.adler32(view[at : at + 256]) & 0xFFFF) + (zlib.adler32(view[at + 256 : at + BLOCK]) & 0xFFFF)
    total += 8 * 0x20 - (zlib.adler32(checksum) & 0xFFFF) - 1  # its own field counts as blanks
    try:
        stated = number(checksum)
    except ValueError:
        stated = -1
    if stated != total and stated != _signed(bytes(view[at : at + BLOCK])):
        raise Invalid(f"the archive is damaged: no header with a right checksum at byte {offset}")
    name = name.partition(b"\0")[0]
    try:
        if kind in EXTENDED:  # whose other fields mean nothing
            return Header(name, 0, 0, 0, number(size), 0, kind, b"", 0, 0, False)
        ustar = magic.startswith(_USTAR)
        gnu = magic == _GNU
        if ustar:
            if end[8:] == _STAR_END:
                prefix = prefix[:131]  # times follow
            prefix = prefix.partition(b"\0")[0]
            if prefix:
                name = prefix + b"/" + name
        device = kind in (b"3", b"4")
        return Header(
            name,
            _usual(mode),
            _usual(uid),
            _usual(gid),
            number(size),
            _usual(mtime),
            kind,
            linkname.partition(b"\0")[0],
            number(major) if device and (ustar or gnu) else 0,
            number(minor) if device and (ustar or gnu) else 0,
            gnu,
        )
    except ValueError as error:
        raise Invalid(f"the header of {shown(name)} has a field that is no number: {error}") from None


def _signed(block: bytes) -> int:
    """The checksum as some old tars made it, from signed characters."""
    block = block[:148] + b" " * 8 + block[156:]
    return sum(block) - 256 * sum(byte > 127 for byte in block)
