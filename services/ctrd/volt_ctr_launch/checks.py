"""What texts from strangers may look like. Regular expressions would have to be compiled at every start."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[str], bool]

_LOWER = "abcdefghijklmnopqrstuvwxyz"
_UPPER = _LOWER.upper()
_DIGITS = "0123456789"
_HEX = _DIGITS + "abcdef"


def _only(text: str, letters: str) -> bool:
    """Whether a text consists of some letters; the empty one does."""
    return not text.strip(letters)


def plain(text: str) -> bool:
    """Any text that the kernel takes."""
    return "\0" not in text


def name(text: str) -> bool:
    """A container's name, or a host's."""
    return 0 < len(text) <= 63 and _only(text, _LOWER + _DIGITS + "-") and text[0] != "-" and text[-1] != "-"


def digest(text: str) -> bool:
    """64 hexadecimal digits."""
    return len(text) == 64 and _only(text, _HEX)


def container_id(text: str) -> bool:
    """32 hexadecimal digits."""
    return len(text) == 32 and _only(text, _HEX)


def short_id(text: str) -> bool:
    """16 hexadecimal digits."""
    return len(text) == 16 and _only(text, _HEX)


def absolute(text: str) -> bool:
    """A path from the root on."""
    return text.startswith("/") and plain(text)


def absolute_or_empty(text: str) -> bool:
    """The same, or nothing."""
    return not text or absolute(text)


def user(text: str) -> bool:
    """Nothing, or USER, or USER:GROUP, each a name or a number."""
    if not text:
        return True
    parts = text.split(":")
    return len(parts) <= 2 and all(_account(part) for part in parts)


def _account(text: str) -> bool:
    if _only(text, _DIGITS):
        return 0 < len(text) <= 5
    return _only(text, _LOWER + _UPPER + _DIGITS + "_.-") and text[0] in _LOWER + _UPPER + "_"


def identifier(text: str) -> bool:
    """The name of a variable, as systemd-nspawn takes it."""
    return text.isascii() and text.isidentifier()


def variable(text: str) -> bool:
    """The name of a variable, as execve(2) can pass it."""
    return bool(text) and "=" not in text and plain(text)


def capability(text: str) -> bool:
    """CAP_SOMETHING."""
    return text.startswith("CAP_") and 4 < len(text) <= 36 and _only(text, _UPPER + "_")


def signal(text: str) -> bool:
    """What may be a signal's name or number; which there are is another question."""
    return len(text) <= 16 and _only(text, _UPPER + _DIGITS + "+-")


def network(text: str) -> bool:
    """Which network a container has."""
    return text in ("none", "host")
