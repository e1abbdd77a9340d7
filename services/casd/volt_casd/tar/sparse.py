"""Files with holes, in the four ways GNU tar writes them.

    old GNU   a member of type S: four extents in the header, more in blocks after it
    0.0       pax records GNU.sparse.offset and .numbytes, once for every extent
    0.1       one pax record GNU.sparse.map, with a file name of its own
    1.0       the map as decimal lines at the front of the member's bytes

https://www.gnu.org/software/tar/manual/html_section/Sparse-Formats.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from volt_casd.tar import header
from volt_casd.tar.names import shown
from volt_casd.tar.window import Window
from volt_common.errors import Invalid

Extents = tuple[tuple[int, int], ...]
"""Offset and length of each piece of data, ascending, apart, none empty."""

EXTENTS_MAX: Final = 1 << 20
_DIGITS_MAX: Final = 20  # of 2 ** 64
_IN_HEADER: Final = struct.Struct("386x" + "12s12s" * 4 + "s12s17x")
_IN_BLOCK: Final = struct.Struct("12s12s" * 21 + "s7x")


def decimal(text: bytes, name: bytes) -> int:
    """Raises Invalid."""
    if not text.isdigit() or len(text) > _DIGITS_MAX:
        raise Invalid(f"the sparse map of {shown(name)} is damaged: {shown(text)} is no number")
    return int(text)


def checked(numbers: Iterable[int], size: int, stored: int, name: bytes) -> Extents:
    """Extents from offset, length, offset, length…, for a file of `size` bytes of which the archive holds
    `stored`. Raises Invalid unless they are in order, inside the file and add up."""
    extents: list[tuple[int, int]] = []
    end = total = 0
    pairs = iter(numbers)
    for offset, length in zip(pairs, pairs, strict=False):
        if offset < end or length < 0 or offset + length > size:
            raise Invalid(f"the sparse map of {shown(name)} is damaged: extents overlap or leave the file")
        if length and extents and offset == end and extents[-1][0] + extents[-1][1] == end:
            extents[-1] = (extents[-1][0], extents[-1][1] + length)
        elif length:
            extents.append((offset, length))
        end = offset + length
        total += length
    if total != stored:
        raise Invalid(f"the sparse map of {shown(name)} is damaged: it tells of {total} bytes, {stored} are there")
    return tuple(extents)


def old_gnu(block: bytes, window: Window, stored: int, name: bytes) -> tuple[int, Extents]:
    """Size and extents from a header block of type S and the blocks after it, which are used up."""
    *fields, more, real_size = _IN_HEADER.unpack(block)
    try:
        numbers = _until_empty(fields)
        while more[0]:
            if not window.have(header.BLOCK):
                raise Invalid(f"the archive is cut short in the sparse map of {shown(name)}")
            *fields, more = _IN_BLOCK.unpack_from(window.buffer, window.start)
            window.start += header.BLOCK
            numbers += _until_empty(fields)
            if len(numbers) > 2 * EXTENTS_MAX:
                raise Invalid(f"the sparse map of {shown(name)} has over {EXTENTS_MAX} extents")
        size = header.number(real_size)
    except ValueError as error:
        raise Invalid(f"the sparse map of {shown(name)} is damaged: {error} is no number") from None
    return size, checked(numbers, size, stored, name)


def _until_empty(fields: list[bytes]) -> list[int]:
    numbers: list[int] = []
    for at in range(0, len(fields), 2):
        if not fields[at + 1][0]:  # the first unused slot ends the block's map
            break
        numbers.append(header.number(fields[at]))
        numbers.append(header.number(fields[at + 1]))
    return numbers


def in_records(records: list[tuple[bytes, bytes]], size: int, stored: int, name: bytes) -> Extents:
    """Versions 0.0 and 0.1."""
    numbers: list[int] = []
    for key, value in records:
        if key == b"GNU.sparse.map":
            numbers = [decimal(part, name) for part in value.split(b",")] if value else []
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (key == b"GNU.sparse.offset") == bool(len(numbers) % 2):
                raise Invalid(f"the sparse map of {shown(name)} is damaged: offsets and lengths do not alternate")
            numbers.append(decimal(value, name))
    if len(numbers) % 2:
        raise Invalid(f"the sparse map of {shown(name)} is damaged: an offset without a length")
    return checked(numbers, size, stored, name)


def in_body(window: Window, stored: int, size: int, name: bytes) -> tuple[int, Extents]:
    """Version 1.0: bytes that the map took from the body, which are used up, and its extents."""
    used = 0
    text = b""
    wanted = 1  # lines, the first of which says how many pairs follow
    numbers: list[int] = []
    while len(numbers) < wanted:
        if used + header.BLOCK > stored:
            raise Invalid(f"the sparse map of {shown(name)} is damaged: it is longer than the member")
        if not window.have(header.BLOCK):
            raise Invalid(f"the archive is cut short in the sparse map of {shown(name)}")
        text += bytes(window.view[window.start : window.start + header.BLOCK])
        window.start += header.BLOCK
        used += header.BLOCK
        *lines, text = text.split(b"\n")
        for line in lines[: wanted - len(numbers)] if numbers else lines:
            numbers.append(decimal(line, name))
            if len(numbers) == 1:
                if numbers[0] > EXTENTS_MAX:
                    raise Invalid(f"the sparse map of {shown(name)} has over {EXTENTS_MAX} extents")
                wanted = 1 + 2 * numbers[0]
            if len(numbers) == wanted:
                break
        if len(text) > header.BLOCK and len(numbers) < wanted:
            raise Invalid(f"the sparse map of {shown(name)} is damaged: a line without an end")
    return used, checked(numbers[1:], size, stored - used, name)
