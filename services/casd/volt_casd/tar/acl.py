"""POSIX ACLs from the text that pax headers hold to the bytes of the extended attribute (acl(5),
linux/posix_acl_xattr.h)."""

from __future__ import annotations

import struct
from typing import Final

_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")
_NO_ID: Final = 0xFFFFFFFF
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_TAGS: Final = {
    b"user": (_USER_OBJ, _USER),
    b"u": (_USER_OBJ, _USER),
    b"group": (_GROUP_OBJ, _GROUP),
    b"g": (_GROUP_OBJ, _GROUP),
    b"mask": (_MASK, _MASK),
    b"m": (_MASK, _MASK),
    b"other": (_OTHER, _OTHER),
    b"o": (_OTHER, _OTHER),
}
_BITS: Final = {0x72: 4, 0x77: 2, 0x78: 1, 0x2D: 0}  # r w x -


def from_text(text: bytes, *, default: bool = False) -> bytes:
    """Of `user::rwx,user:bob:r--:1000,group::r-x,mask::r-x,other::---`; b"" when there is none: an access
    ACL of three entries is the mode, a `default` one is not.

    A named entry's number stands fourth (star, bsdtar) or in place of the name (GNU tar --numeric-owner).
    Raises ValueError, with what is wrong, for other text: names alone mean nothing on another machine.
    """
    entries: set[tuple[int, int, int]] = set()
    for line in text.replace(b"\n", b",").split(b","):
        line = line.partition(b"#")[0].strip().removeprefix(b"default:")
        if not line:
            continue
        parts = [part.strip() for part in line.split(b":")]
        if len(parts) not in (3, 4) or parts[0] not in _TAGS:
            raise ValueError("its text is damaged")
        tag = _TAGS[parts[0]][bool(parts[1])]
        entries.add((tag, _id(parts) if tag in (_USER, _GROUP) else _NO_ID, _permissions(parts[2])))
    tags = [tag for tag, _, _ in entries]
    if not entries:
        return b""
    if any(tags.count(tag) != 1 for tag in (_USER_OBJ, _GROUP_OBJ, _OTHER)) or tags.count(_MASK) > 1:
        raise ValueError("its text lacks an entry or has one twice")
    if {_USER, _GROUP} & set(tags) and _MASK not in tags:
        raise ValueError("its text lacks a mask")
    if len(entries) == 3 and not default:
        return b""
    return _VERSION + b"".join(_ENTRY.pack(tag, bits, number) for tag, number, bits in sorted(entries))


def _id(parts: list[bytes]) -> int:
    text = parts[3] if len(parts) == 4 else parts[1]
    if not text.isdigit() or len(text) > 10 or int(text) >= _NO_ID:
        raise ValueError(f"{parts[1].decode('utf-8', 'backslashreplace')!r} has no number")
    return int(text)


def _permissions(text: bytes) -> int:
    if not text or any(letter not in _BITS for letter in text):
        raise ValueError("its text is damaged")
    bits = 0
    for letter in text:
        bits |= _BITS[letter]
    return bits
