"""YAML out of plain values: the subset that needs no library, quoted wherever a reader could take it for more."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Value

_WORDS = {"", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "~", ".inf", "-.inf", ".nan"}
_FIRST = set("-?:,[]{}#&*!|>'\"%@` =<+.0123456789")


def dump(value: Value) -> str:
    """A document of `value`, ending in a newline."""
    return "\n".join(_block(value, 0)) + "\n"


def _block(value: Value, depth: int) -> list[str]:
    pad = "  " * depth
    if isinstance(value, dict) and value:
        lines = []
        for key, item in value.items():
            nested = _block(item, depth + 1)
            if _inline(item):
                lines.append(f"{pad}{_text(str(key))}: {nested[0].strip()}")
            else:
                lines += [f"{pad}{_text(str(key))}:", *nested]
        return lines
    if isinstance(value, list | tuple) and value:
        lines = []
        for item in value:
            nested = _block(item, depth + 1)
            lines += [f"{pad}- {nested[0].strip()}", *nested[1:]]
        return lines
    return [pad + _scalar(value)]


def _inline(value: Value) -> bool:
    return not isinstance(value, dict | list | tuple) or not value


def _scalar(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        return "{}"
    return _text(value) if isinstance(value, str) else "[]"


def _text(text: str) -> str:
    safe = text.isprintable() and text.lower() not in _WORDS and text[0] not in _FIRST
    if safe and ": " not in text and " #" not in text and not text.endswith((":", " ")):
        return text
    import json

    return json.dumps(text)
