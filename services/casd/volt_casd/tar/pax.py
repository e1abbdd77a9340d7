"""Extended headers of the pax format (POSIX.1-2001, pax, "pax Interchange Format"): records, and the
fields of a member that they carry. Keywords as GNU tar, bsdtar and star write them."""

from __future__ import annotations

import binascii
import re
from typing import Final
from urllib.parse import unquote_to_bytes

from volt_casd.tar import acl
from volt_casd.tar.names import shown
from volt_common.errors import Invalid

Records = list[tuple[bytes, bytes]]
XattrList = tuple[tuple[bytes, bytes], ...]

HEADER_MAX: Final = 1 << 20  # bytes of one extended header
XATTR_NAME_MAX: Final = 255
XATTR_VALUE_MAX: Final = 65535
_NAMESPACES: Final = (b"user.", b"security.", b"system.", b"trusted.")
_SCHILY: Final = b"SCHILY.xattr."
_LIBARCHIVE: Final = b"LIBARCHIVE.xattr."
_SELINUX: Final = b"RHT.security.selinux"
_ACLS: Final = {
    b"SCHILY.acl.access": b"system.posix_acl_access",
    b"SCHILY.acl.default": b"system.posix_acl_default",
}
_OF_ONE_MEMBER: Final = (b"path", b"linkpath", b"size")
_TIME: Final = re.compile(rb"(-?)(\d{1,20})(?:\.(\d{0,64}))?\Z")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]*={0,2}\Z")


def records(data: bytes) -> Records:
    """`length keyword=value\\n`, over and over. Raises Invalid."""
    found: Records = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 9)  # a header has at most 1 MiB: no more than 7 digits
        digits = data[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else at
        equals = data.find(b"=", space + 1, end)
        if not at < equals < end <= len(data) or data[end - 1] != 0x0A:
            raise Invalid(f"an extended header is damaged: no record at its byte {at}")
        found.append((data[space + 1 : equals], data[equals + 1 : end - 1]))
        at = end
    return found


def check_global(found: Records) -> None:
    """Raises Invalid for what every member cannot share."""
    for key, _ in found:
        if key in _OF_ONE_MEMBER or key.startswith(b"GNU.sparse."):
            raise Invalid(f"a global extended header sets {shown(key)}, which can be of one member only")


def whole_number(key: bytes, value: bytes) -> int:
    """Decimal; of at most 20 digits, so that none is absurd. Raises Invalid."""
    if not value.isdigit() or len(value) > 20:
        raise Invalid(f"an extended header is damaged: {shown(key)} is {shown(value)}")
    return int(value)


def time_ns(value: bytes) -> int:
    """Seconds, perhaps negative and with a fraction, in ns, exactly; finer digits round down. Raises Invalid."""
    matched = _TIME.match(value)
    if not matched:
        raise Invalid(f"an extended header is damaged: mtime is {shown(value)}")
    sign, seconds, fraction = matched.groups(b"")
    ns = int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    if sign:
        return -ns - (1 if fraction[9:].strip(b"0") else 0)
    return ns


def xattrs(fields: dict[bytes, bytes]) -> tuple[XattrList, list[str]]:
    """Extended attributes, sorted by name, and a note for each that Linux cannot hold or that names a user
    who is not known here. Raises Invalid."""
    found: dict[bytes, bytes] = {}
    notes: list[str] = []
    for key, value in fields.items():
        if key == _SELINUX and value:
            found.setdefault(b"security.selinux", value.rstrip(b"\0") + b"\0")
        elif key.startswith(_SCHILY):
            # GNU tar escapes what would end the keyword
            found[key[len(_SCHILY) :].replace(b"%3D", b"=").replace(b"%25", b"%")] = value
        elif key.startswith(_LIBARCHIVE):
            # bsdtar writes an attribute in both forms; the other one is exact
            found.setdefault(unquote_to_bytes(key[len(_LIBARCHIVE) :]), _base64(key, value))
        elif key in _ACLS:
            try:
                binary = acl.from_text(value, default=key.endswith(b"default"))
            except ValueError as error:
                notes.append(f"its ACL: {error}")
                continue
            if binary:
                found.setdefault(_ACLS[key], binary)
    if not found:
        return (), notes
    for name in [name for name in found if not name.startswith(_NAMESPACES)]:
        notes.append(f"its attribute {shown(name)}, which is of no namespace of Linux")
        del found[name]
    for name, value in found.items():
        if b"\0" in name or len(name) > XATTR_NAME_MAX or name in _NAMESPACES:
            raise Invalid(f"an extended attribute cannot be named {shown(name)}")
        if len(value) > XATTR_VALUE_MAX:
            raise Invalid(f"the extended attribute {shown(name)} has {len(value)} bytes, over {XATTR_VALUE_MAX}")
    return tuple(sorted(found.items())), notes


def _base64(key: bytes, value: bytes) -> bytes:
    value = value.rstrip(b"\n")
    if _BASE64.match(value):
        bare = value.rstrip(b"=")
        try:
            return binascii.a2b_base64(bare + b"=" * (-len(bare) % 4))
        except binascii.Error:
            pass
    raise Invalid(f"an extended header is damaged: {shown(key)} is not base64")
