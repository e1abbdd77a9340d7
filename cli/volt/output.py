"""The forms of the output: table, wide, json, yaml, name, and a text per row. Every list goes through here."""

from __future__ import annotations

import sys

from volt.options import Asked, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from volt.settings import Settings

    Value = str | int | float | bool | None | Sequence["Value"] | Mapping[str, "Value"]
    Row = Mapping[str, Value]

PAINT = {"running": "32", "ok": "32", "clean": "32", "failed": "31", "missing": "31", "denied": "31", "damaged": "31"}
PAINT |= {"paused": "33", "starting": "33", "stopping": "33", "warn": "33"}


class Column:
    """A field of a row as a column of the table; `wide` ones only with -o wide."""

    __slots__ = ("form", "key", "right", "title", "wide")

    def __init__(
        self,
        key: str,
        title: str = "",
        *,
        wide: bool = False,
        right: bool = False,
        form: Callable[[Value], str] | None = None,
    ) -> None:
        self.key = key
        self.title = title or key.upper()
        self.wide = wide
        self.right = right
        self.form = form


def show(settings: Settings, columns: Sequence[Column], rows: Iterable[Row], asked: Asked | None = None) -> None:
    """Print rows in the form in force, after --filter and --sort of `asked`. Raises Usage."""
    chosen = list(rows)
    if asked is not None:
        chosen = select(chosen, asked.texts("--filter"), asked.text("--sort"), [c.key for c in columns])
    template = asked.text("--format") if asked is not None else None
    if template is not None:
        for row in chosen:
            print(formatted(template, row))
    elif settings.output == "json":
        print(as_json(chosen))
    elif settings.output == "yaml":
        from volt.yaml import dump

        sys.stdout.write(dump(chosen))
    elif settings.output == "name" or settings.quiet:
        for row in chosen:
            print(plain(str(row.get("name", row.get(columns[0].key, "")))))
    else:
        _table(settings, [c for c in columns if not c.wide or settings.output == "wide"], chosen)


def one(settings: Settings, row: Row, text: str = "") -> None:
    """Print one thing: an object, its name, or `text` (by default its fields, one a line)."""
    if settings.output == "json":
        print(as_json(row))
    elif settings.output == "yaml":
        from volt.yaml import dump

        sys.stdout.write(dump(row))
    elif settings.output == "name":
        print(plain(str(row.get("name", ""))))
    elif text:
        print(plain(text))
    else:
        width = max((len(key) for key in row), default=0)
        for key, value in row.items():
            print(f"{key.replace('_', ' '):<{width}}  {cell(value)}".rstrip())


def done(settings: Settings, row: Row, text: str) -> None:
    """Confirm what was done, unless told to be quiet."""
    if not settings.quiet or settings.output != "table":
        one(settings, row, text)


def select(rows: list[Row], filters: Sequence[str], sort: str | None, known: Sequence[str] = ()) -> list[Row]:
    """Rows that match every `key=value` (or `key!=value`), sorted. Raises Usage."""
    for text in filters:
        key, equals, wanted = text.partition("=")
        negative = key.endswith("!")
        key = key.removesuffix("!")
        if not equals or not key:
            raise usage(f"--filter takes KEY=VALUE, not {text!r}")
        _check_key("--filter", key, rows, known)
        rows = [row for row in rows if _matches(pick(row, key), wanted) != negative]
    if sort:
        key = sort.removeprefix("-")
        _check_key("--sort", key, rows, known)
        rows = sorted(rows, key=lambda row: _order(pick(row, key)), reverse=sort.startswith("-"))
    return rows


def pick(row: Row, key: str) -> Value:
    """A field, or a field of a field: `labels.tier`."""
    if key in row:
        return row[key]
    value: Value = row
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def formatted(template: str, row: Row) -> str:
    """`template` with the row's fields. Raises Usage for one that is not there."""
    fields = {key: ("" if value is None else value) for key, value in row.items()}
    try:
        text = template.replace("\\t", "\t").replace("\\n", "\n").format_map(fields)
    except (KeyError, IndexError):
        raise usage(f"--format names a field that is not there: {template!r}", f"Fields: {', '.join(row)}.") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise usage(f"--format {template!r}: {error}") from None
    return "\n".join(plain(line, keep="\t") for line in text.split("\n"))


def as_json(value: Value) -> str:
    import json

    return json.dumps(value, indent=2, ensure_ascii=not _utf8())


def plain(text: str, *, newline: str = "\\n", keep: str = "") -> str:
    """Text that can't move the cursor or change colours: what came from elsewhere is shown, not obeyed."""
    if text.isprintable():
        return text
    shown = []
    for character in text:
        if character.isprintable() or character in keep:
            shown.append(character)
        elif character == "\n":
            shown.append(newline)
        elif 0xDC80 <= ord(character) <= 0xDCFF:  # a byte that is not UTF-8, from os.fsdecode
            shown.append(f"\\x{ord(character) - 0xDC00:02x}")
        else:
            shown.append(character.encode("unicode_escape").decode())
    return "".join(shown)


def cell(value: Value) -> str:
    """A value as a person reads it in a line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}={cell(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(cell(item) for item in value)
    return plain(str(value))


def size_text(value: Value) -> str:
    """Bytes for a person: 1.5G."""
    if not isinstance(value, int | float):
        return ""
    number = float(value)
    for unit in ("", "K", "M", "G", "T"):
        if number < 1024 or unit == "T":
            break
        number /= 1024
    return f"{number:.0f}{unit}" if unit == "" or number >= 10 else f"{number:.1f}{unit}"


def span_text(seconds: float) -> str:
    """A duration for a person: 45s, 3m, 2h, 5d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size * 2 or (unit == "m" and seconds >= size):
            return f"{int(seconds // size)}{unit}"
    return f"{int(max(0, seconds))}s"


def _table(settings: Settings, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    lines = [[(column.form or cell)(row.get(column.key)) for column in columns] for row in rows]
    titles = [column.title for column in columns]
    widths = [max(map(len, texts)) for texts in zip(titles, *lines, strict=True)]
    if settings.header:
        bold = ("\033[1m", "\033[0m") if settings.color else ("", "")
        print(bold[0] + _line(columns, titles, widths, False) + bold[1])
    for texts in lines:
        print(_line(columns, texts, widths, settings.color))


def _line(columns: Sequence[Column], texts: Sequence[str], widths: Sequence[int], color: bool) -> str:
    padded = []
    for column, text, width in zip(columns, texts, widths, strict=True):
        field = text.rjust(width) if column.right else text.ljust(width)
        padded.append(f"\033[{PAINT[text]}m{field}\033[0m" if color and text in PAINT else field)
    return "  ".join(padded).rstrip()


def _check_key(option: str, key: str, rows: Sequence[Row], known: Sequence[str]) -> None:
    fields = {*known, *(name for row in rows for name in row)}
    if rows and key.split(".")[0] not in fields:
        from volt.near import suggestion

        hint = suggestion(key, fields) or f"Fields: {', '.join(sorted(fields))}."
        raise usage(f"{option}: there is no field {key!r}", hint)


def _matches(value: Value, wanted: str) -> bool:
    if isinstance(value, list | tuple):
        return wanted in [str(item) for item in value]
    return wanted in (str(value), cell(value)) if value is not None else wanted == ""


def _order(value: Value) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return 0, value, ""
    return (2, 0, "") if value is None else (1, 0, str(value))


def _utf8() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
