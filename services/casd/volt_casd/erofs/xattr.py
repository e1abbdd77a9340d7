"""Extended attributes as they follow an inode, and those by which an inode redirects to its object."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

_ENTRY: Final = Struct("<BBH")  # length of the name's rest, index of its prefix, length of the value
HEADER: Final = bytes(12)  # name filter (not used without its feature bit), no shared xattrs, reserved
COUNT_MAX: Final = 0xFFFF
"""Of 4-byte words behind the header, and one for the header: the inode's field has 16 bits."""

_PREFIXES: Final = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_WHOLE_NAMES: Final = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
_OVERLAY: Final = b"trusted.overlay."
_REDIRECT: Final = b"trusted.overlay.redirect"

Xattrs = Iterable[tuple[bytes, bytes]]


def encode(xattrs: Xattrs, *, prefix: bytes = HEADER) -> bytes:
    """The bytes behind an inode: `prefix` (a header, with entries or without), then the xattrs.

    Empty when there are none, since a bare header is an error to the kernel. Raises ValueError for a
    namespace, a name or a value that EROFS cannot hold.
    """
    body = b"".join([prefix, *[_entry(name, value) for name, value in xattrs]])
    if len(body) == len(HEADER):
        return b""
    if count(len(body)) > COUNT_MAX:
        raise ValueError(f"its xattrs take {len(body)} bytes, and one inode holds {len(HEADER) + 4 * (COUNT_MAX - 1)}")
    return body


def count(length: int) -> int:
    """The inode's xattr count for `length` bytes of xattrs."""
    return (length - len(HEADER)) // 4 + 1 if length else 0


def escaped(xattrs: Xattrs) -> Xattrs:
    """The xattrs with those of overlayfs one level deeper, so that overlayfs shows them and obeys none."""
    return [
        (_OVERLAY + b"overlay." + name.removeprefix(_OVERLAY) if name.startswith(_OVERLAY) else name, value)
        for name, value in xattrs
    ]


def object_path(digest: bytes) -> bytes:
    """Where an object lies under the objects directory, from its root: `/ab/abcd…`."""
    name = digest.hex()
    return f"/{name[:2]}/{name}".encode()


def _entry(name: bytes, value: bytes) -> bytes:
    index, rest = _WHOLE_NAMES.get(name, 0), b""
    if not index:
        for prefix, number in _PREFIXES:
            if name.startswith(prefix):
                index, rest = number, name[len(prefix) :]
                break
        else:
            raise ValueError(f"an image cannot hold the xattr {name!r}")
        if not rest:
            raise ValueError(f"the xattr {name!r} has no name after its prefix")
    if len(rest) > 255 or len(value) > 65535:
        raise ValueError(f"the xattr {name!r} of {len(value)} bytes is too long")
    entry = _ENTRY.pack(len(rest), index, len(value)) + rest + value
    return entry + bytes(-len(entry) & 3)


METACOPY: Final = HEADER + _entry(b"trusted.overlay.metacopy", b"")
"""A header, and the mark of an inode whose data overlayfs finds elsewhere."""

OBJECT_PATH_LENGTH: Final = len(object_path(bytes(32)))
REDIRECT: Final = METACOPY + _entry(_REDIRECT, bytes(OBJECT_PATH_LENGTH))[:-OBJECT_PATH_LENGTH]
"""The xattrs of a redirecting inode up to the object's path, which ends them: its length is a multiple of 4."""


def redirecting(digest: bytes) -> bytes:
    """A header and the xattrs that redirect to an object."""
    return REDIRECT + object_path(digest)
