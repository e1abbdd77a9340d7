"""Paths of an archive: which are refused, and how one is shown to a person."""

from __future__ import annotations

from typing import Final

from volt_common.errors import Invalid

PATH_MAX: Final = 4095  # bytes, without the NUL that the kernel's 4096 counts
NAME_MAX: Final = 255
_SHOWN: Final = 200


def shown(path: bytes) -> str:
    """On one line, whatever its bytes are."""
    text = path.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = ascii(text)[1:-1]
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def clean(raw: bytes) -> bytes:
    """The path relative to the archive's root, without `.`, doubled and trailing slashes; b"" is the root.

    Raises Invalid for what could leave the root, or exist on no Linux file system.
    """
    plain = raw[2:] if raw.startswith(b"./") else raw
    if (
        0 < len(plain) <= NAME_MAX
        and plain[0] not in b"./"
        and plain[-1] != 0x2F
        and b"/." not in plain
        and b"//" not in plain
        and b"\0" not in plain
    ):
        return plain  # as nearly all are
    if not raw:
        raise Invalid("a member has no name")
    if b"\0" in raw:
        raise Invalid(f"the name {shown(raw)} holds a NUL")
    if raw[0] == 0x2F:
        raise Invalid(f"the name {shown(raw)} is absolute")
    parts = raw.split(b"/")
    if b".." in parts:
        raise Invalid(f"the name {shown(raw)} has a component `..`")
    if b"" in parts or b"." in parts:
        parts = [part for part in parts if part not in (b"", b".")]
        raw = b"/".join(parts)
    if len(raw) > PATH_MAX:
        raise Invalid(f"the name {shown(raw)} is too long: {len(raw)} bytes, at most {PATH_MAX}")
    if len(raw) > NAME_MAX and max(map(len, parts)) > NAME_MAX:
        raise Invalid(f"the name {shown(raw)} is too long: a component has over {NAME_MAX} bytes")
    return raw


def parent(path: bytes) -> bytes:
    """The directory that `path` (not the root) lies in."""
    return path[: max(path.rfind(b"/"), 0)]
