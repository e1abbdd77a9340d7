"""The members of a tar archive, one after the other, from a stream that is read once and forward.

Dialects: v7, ustar, pax with global headers, GNU (long names, base-256 numbers, sparse), star. What a
member means for a tree (parents, links, refused paths) is `build`'s; here a name is only bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Final

import msgspec

from volt_casd.tar import pax, sparse
from volt_casd.tar.header import BLOCK, ZEROS, Header, parse
from volt_casd.tar.limits import Limits
from volt_casd.tar.names import PATH_MAX, shown
from volt_casd.tar.window import SMALL, Readable, Window
from volt_common.errors import Invalid

_ID_MAX: Final = 0xFFFFFFFE
_LONG_NAME_MAX: Final = 2 * PATH_MAX  # longer ones are not even read

_REGULAR: Final = frozenset((b"0", b"\0", b"7"))
_TYPES: Final = {
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
    b"D": stat.S_IFDIR,  # of an incremental GNU archive: its bytes list the directory
}
_DEVICES: Final = (b"3", b"4")
_LINK: Final = b"1"
_SPARSE: Final = b"S"
_VOLUME: Final = b"V"
_PARTS: Final = {b"M": "a part of a file that another volume begins", b"N": "a list of names in an obsolete form"}


class Member(msgspec.Struct, frozen=True, gc=False):
    """One member. `extents` is None for a file without holes; otherwise its body is the extents' bytes."""

    path: bytes  # as the archive has it, except that pax and GNU long names are in place
    mode: int  # st_mode, with the type; 0 if `skip`
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0  # of a file, with its holes
    target: bytes = b""  # of a symlink
    hardlink: bytes | None = None  # the earlier member of which this is another name; the rest says nothing
    major: int = 0
    minor: int = 0
    xattrs: pax.XattrList = ()
    extents: sparse.Extents | None = None
    skip: str = ""  # what it is, if no tree can hold it
    notes: tuple[str, ...] = ()  # what of it is lost


class Body:
    """A member's bytes in the archive. Views of them hold until the next chunk, or the next member."""

    __slots__ = ("_left", "_name", "_padding", "_window")

    def __init__(self, window: Window, stored: int, name: bytes) -> None:
        self._window = window
        self._left = stored
        self._padding = -stored % BLOCK
        self._name = name

    def chunks(self) -> Iterator[memoryview]:
        """Those not handed out yet: a body of up to 1 MiB in one piece. Raises Invalid if it is cut short."""
        if 0 < self._left <= SMALL:
            window, size = self._window, self._left
            if not window.have(size):
                raise self._cut()
            view = window.view[window.start : window.start + size]
            window.start += size
            self._left = 0
            yield view
            return
        while self._left:
            view = self._window.take(self._left)
            if not view:
                raise self._cut()
            self._left -= len(view)
            yield view

    def skip(self) -> None:
        """Pass over the rest and the padding after it."""
        window = self._window
        left = self._left + self._padding
        if left <= window.stop - window.start:
            window.start += left
        else:
            while left:
                some = len(window.take(left))
                if not some:
                    raise self._cut()
                left -= some
        self._left = self._padding = 0

    def _cut(self) -> Invalid:
        return Invalid(f"the archive is cut short in {shown(self._name)}")


def members(stream: Readable, limits: Limits | None = None, *, end: bool = True) -> Iterator[tuple[Member, Body]]:
    """What the archive holds, in order, to the end of the stream. A body not read is passed over.

    With `end`, an archive without its end-of-archive block counts as cut short; a caller who knows the
    stream to be whole by its digest may do without, as some writers of image layers leave it out.
    Raises Invalid.
    """
    limits = limits or Limits()
    window = Window(stream)
    extended = _Extended()
    first = True
    while _another(window, extended, end=end, first=first):
        first = False
        at = window.start
        header = parse(window.buffer, window.view, at, window.offset)
        window.start += BLOCK
        if extended.takes(header, window) or header.kind == _VOLUME:
            continue
        if header.kind in _TYPES or header.kind in _REGULAR or header.kind == _LINK or header.kind == _SPARSE:
            member, stored = _member(header, extended, window, at, limits)
        elif header.kind in _PARTS:
            raise Invalid(f"{shown(header.name)} is {_PARTS[header.kind]}, which is not read")
        elif header.kind.isupper():  # POSIX leaves A to Z to vendors
            name = extended.name or header.name
            member = Member(name, 0, 0, 0, 0, skip=f"a member of type {shown(header.kind)}")
            stored = _in_range("size", header.size, limits.file_bytes, name)
        else:
            raise Invalid(f"{shown(header.name)} is of the unknown type {shown(header.kind)}")
        extended.clear()
        body = Body(window, stored, member.path)
        yield member, body
        body.skip()


def _another(window: Window, extended: _Extended, *, end: bool, first: bool) -> bool:
    """Whether a header follows. At the end of the archive, read the stream to its end as well: it may yet
    turn out damaged, and who writes to a pipe wants to finish."""
    if not window.have(BLOCK):
        if window.start != window.stop or end or first:
            raise Invalid("the archive is empty" if first else "the archive is cut short: its end is missing")
    elif window.buffer[window.start] or window.buffer[window.start : window.start + BLOCK] != ZEROS:
        return True
    if extended.pending:
        raise Invalid("the archive ends after an extended header, before the member it belongs to")
    while some := window.take(SMALL):
        if bytes(some).strip(b"\0"):
            raise Invalid("the archive has bytes after its end", hint="archives that were joined are not read")
    return False


class _Extended:
    """What headers before a member say of it, and of all members."""

    __slots__ = ("link", "name", "records", "shared")

    def __init__(self) -> None:
        self.shared: dict[bytes, bytes] = {}
        self.clear()

    def clear(self) -> None:
        self.records: pax.Records | None = None
        self.name: bytes | None = None
        self.link: bytes | None = None

    @property
    def pending(self) -> bool:
        return self.records is not None or self.name is not None or self.link is not None

    def takes(self, header: Header, window: Window) -> bool:
        """Whether this header, which is then used up with its body, is an extended one."""
        match header.kind:
            case b"x" | b"X":  # X: the same as Solaris wrote it before POSIX
                if self.records is not None:
                    raise Invalid("two extended headers belong to one member")
                self.records = pax.records(_text(header, window, pax.HEADER_MAX))
            case b"g":
                found = pax.records(_text(header, window, pax.HEADER_MAX))
                pax.check_global(found)
                self.shared.update(found)
                if sum(len(key) + len(value) for key, value in self.shared.items()) > pax.HEADER_MAX:
                    raise Invalid(f"the global extended headers are over {pax.HEADER_MAX} bytes")
            case b"L":
                if self.name is not None:
                    raise Invalid("two long names belong to one member")
                self.name = _text(header, window, _LONG_NAME_MAX).partition(b"\0")[0]
            case b"K":
                if self.link is not None:
                    raise Invalid("two long link targets belong to one member")
                self.link = _text(header, window, _LONG_NAME_MAX).partition(b"\0")[0]
            case _:
                return False
        return True

    def fields(self) -> dict[bytes, bytes]:
        """The pax fields of the next member. An empty one says nothing, and takes a shared one back; only an
        attribute's value may be empty."""
        found = dict(self.records or ())
        return self.shared | found if self.shared else found


def _text(header: Header, window: Window, limit: int) -> bytes:
    """The body of an extended header."""
    if not 0 <= header.size <= limit:
        what = "a name" if header.kind in (b"L", b"K") else "an extended header"
        raise Invalid(f"{what} is too long: {header.size} bytes, at most {limit}")
    size = header.size
    if not window.have(size + -size % BLOCK):
        raise Invalid(f"the archive is cut short in {shown(header.name)}")
    text = bytes(window.view[window.start : window.start + size])
    window.start += size + -size % BLOCK
    return text


def _in_range(what: str, value: int, most: int, name: bytes, least: int = 0) -> int:
    if not least <= value <= most:
        raise Invalid(f"{shown(name)}: {what} {value} is out of range")
    return value


def _member(header: Header, extended: _Extended, window: Window, at: int, limits: Limits) -> tuple[Member, int]:
    """The member that a header and those before it describe, and how many bytes of body are left to read."""
    name, _, uid, gid, stored, seconds, kind, link, major, minor, _ = header
    mtime_ns = seconds * 1_000_000_000
    fields: dict[bytes, bytes] = {}
    xattrs: pax.XattrList = ()
    notes: list[str] = []
    if extended.name is not None:
        name = extended.name
    if extended.link is not None:
        link = extended.link
    if extended.records is not None or extended.shared:
        fields = extended.fields()
        get = fields.get
        name = get(b"path") or name
        link = get(b"linkpath") or link
        if value := get(b"uid"):
            uid = pax.whole_number(b"uid", value)
        if value := get(b"gid"):
            gid = pax.whole_number(b"gid", value)
        if value := get(b"size"):
            stored = pax.whole_number(b"size", value)
        if value := get(b"mtime"):
            mtime_ns = pax.time_ns(value)
        if any(b"." in key for key in fields):  # vendors' keywords: most headers have none
            name = get(b"GNU.sparse.name") or name
            xattrs, notes = pax.xattrs(fields)
            if kind in _DEVICES:
                major = pax.whole_number(b"devmajor", get(b"SCHILY.devmajor") or b"%d" % max(major, 0))
                minor = pax.whole_number(b"devminor", get(b"SCHILY.devminor") or b"%d" % max(minor, 0))
        else:
            fields = {}
    # the kernel's range of each; a tree holds nothing else
    if not (0 <= uid <= _ID_MAX and 0 <= gid <= _ID_MAX and -(1 << 63) <= mtime_ns < 1 << 63 and header.mode >= 0):
        _in_range("owner", uid, _ID_MAX, name)
        _in_range("group", gid, _ID_MAX, name)
        _in_range("mode", header.mode, 0o7777, name)
        raise Invalid(f"{shown(name)}: its time is out of range")
    permissions = header.mode & 0o7777
    if kind in _REGULAR or kind == _SPARSE:
        if not 0 <= stored <= limits.file_bytes:
            _in_range("size", stored, limits.file_bytes, name)
        if fields.get(b"SCHILY.filetype") == b"socket":
            return Member(name, 0, uid, gid, mtime_ns, skip="a socket"), stored
        if name.endswith(b"/"):  # v7 had no other way to write a directory
            if stored:
                raise Invalid(f"{shown(name)} is a directory with {stored} bytes of its own")
            return Member(name, stat.S_IFDIR | permissions, uid, gid, mtime_ns, xattrs=xattrs, notes=tuple(notes)), 0
        mode = stat.S_IFREG | permissions
        if not fields and kind != _SPARSE:
            return Member(name, mode, uid, gid, mtime_ns, stored), stored
        size, stored, extents = _holes(header, fields, extended, window, at, stored, name)
        _in_range("size", size, limits.file_bytes, name)
        return Member(name, mode, uid, gid, mtime_ns, size, xattrs=xattrs, extents=extents, notes=tuple(notes)), stored
    if kind == _LINK:
        # Old tars put the file's size here, and no bytes after it.
        return Member(name, 0, uid, gid, mtime_ns, hardlink=link), 0
    file_type = _TYPES[kind]
    if kind in _DEVICES:
        _in_range("device number", major, 0xFFF, name)
        _in_range("device number", minor, 0xFFFFF, name)
    return Member(
        name,
        file_type | permissions,
        uid,
        gid,
        mtime_ns,
        target=link if kind == b"2" else b"",
        major=major,
        minor=minor,
        xattrs=xattrs,
        notes=tuple(notes),
    ), _in_range("size", stored, limits.file_bytes, name) if kind == b"D" else 0


def _holes(
    header: Header,
    fields: dict[bytes, bytes],
    extended: _Extended,
    window: Window,
    at: int,
    stored: int,
    name: bytes,
) -> tuple[int, int, sparse.Extents | None]:
    """Size, bytes of body left to read, and extents of a regular file."""
    if header.kind == _SPARSE:
        size, extents = sparse.old_gnu(bytes(window.view[at : at + BLOCK]), window, stored, name)
        return size, stored, extents
    if not any(key.startswith(b"GNU.sparse.") for key in fields):
        return stored, stored, None
    size = sparse.decimal(fields.get(b"GNU.sparse.realsize") or fields.get(b"GNU.sparse.size") or b"", name)
    if b"GNU.sparse.major" in fields:
        version = (fields[b"GNU.sparse.major"], fields.get(b"GNU.sparse.minor"))
        if version != (b"1", b"0"):
            raise Invalid(f"{shown(name)} is sparse in an unknown form")
        used, extents = sparse.in_body(window, stored, size, name)
        return size, stored - used, extents
    return size, stored, sparse.in_records(extended.records or [], size, stored, name)
