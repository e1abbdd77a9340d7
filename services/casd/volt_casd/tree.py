"""Trees: the manifest of a directory, canonical to the byte, so that equal directories share one name.

A tree's bytes are an object like any other. They are the line `volt tree 1`, then one msgpack array per
entry, sorted by path (as bytes, the root first). Nothing in it depends on the order of a walk, on a clock,
or on numbers of the file system it came from: hard-link groups are numbered by their first path.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from volt_common.errors import Corrupt, Invalid

MAGIC: Final = b"volt tree 1\n"


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
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_device(self) -> bool:
        return stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Entry])
