"""Typed reading of one hostile JSON or TOML table: every key is known, of its type, and in its bounds."""

from __future__ import annotations

from volt_ctr_launch import checks
from volt_ctr_launch.errors import invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt_ctr_launch.checks import Check


class Fields:
    """A table of which each key is taken once; `done` refuses what is left. `what` names it in messages."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise invalid(f"{what} is not a table")
        self._left: dict[str, object] = dict(value)
        self._what = what

    def done(self) -> None:
        """Refuse unknown keys."""
        if self._left:
            raise invalid(f"{self._what}: unknown key {min(self._left)[:80]!r}")

    def has(self, key: str) -> bool:
        """Whether the key is there and was not taken."""
        return key in self._left

    def take(self, key: str) -> object:
        """Any value."""
        if key not in self._left:
            raise invalid(f"{self._what}: {key} is missing")
        return self._left.pop(key)

    def table(self, key: str) -> Fields:
        """A table in the table."""
        return Fields(self.take(key), f"{self._what}.{key}")

    def text(self, key: str, check: Check = checks.plain, limit: int = 4096) -> str:
        """A string that passes a check."""
        return self._text(self.take(key), key, check, limit)

    def _text(self, value: object, key: str, check: Check, limit: int) -> str:
        if not isinstance(value, str) or len(value) > limit or not check(value):
            raise invalid(f"{self._what}: {key} may not be {str(value)[:80]!r}")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise invalid(f"{self._what}: {key} is not UTF-8") from None
        return value

    def one_of(self, key: str, *choices: str) -> str:
        """One of some words."""
        value = self.take(key)
        if not isinstance(value, str) or value not in choices:
            raise invalid(f"{self._what}: {key} is none of {', '.join(choices)}")
        return value

    def number(self, key: str, low: int, high: int) -> int:
        """An integer; true and false are none."""
        value = self.take(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise invalid(f"{self._what}: {key} is not a whole number from {low} to {high}")
        return value

    def number_or_none(self, key: str, low: int, high: int) -> int | None:
        """An integer, null, or absent."""
        if self._left.get(key) is None:
            self._left.pop(key, None)
            return None
        return self.number(key, low, high)

    def flag(self, key: str) -> bool:
        """true or false."""
        value = self.take(key)
        if not isinstance(value, bool):
            raise invalid(f"{self._what}: {key} is neither true nor false")
        return value

    def texts(self, key: str, check: Check = checks.plain, count: int = 64, limit: int = 4096) -> list[str]:
        """A list of strings."""
        return [self._text(value, key, check, limit) for value in self.list(key, count)]

    def list(self, key: str, count: int) -> list[object]:
        """A list of at most `count` values."""
        values = self.take(key)
        if not isinstance(values, list) or len(values) > count:
            raise invalid(f"{self._what}: {key} is not a list of at most {count}")
        return values

    def mapping(self, key: str, names: Check, count: int, limit: int) -> dict[str, str]:
        """Strings by name."""
        values = self.take(key)
        if not isinstance(values, dict) or len(values) > count:
            raise invalid(f"{self._what}: {key} is not a table of at most {count}")
        return {
            self._text(name, key, names, limit): self._text(value, f"{key}.{str(name)[:40]}", checks.plain, limit)
            for name, value in values.items()
        }
