"""The known word that a mistyped one most likely meant."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def distance(left: str, right: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that turn one word into the other."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The closest of `known`, or None when nothing is close enough to be worth suggesting."""
    best: tuple[int, str] | None = None
    for candidate in known:
        if len(word) >= 2 and candidate.startswith(word):
            found = (0, candidate)
        else:
            found = (distance(word, candidate), candidate)
        if best is None or found < best:
            best = found
    if best is None or best[0] > max(1, len(word) // 3):
        return None
    return best[1]


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint that ends an error line; empty when there is none."""
    found = nearest(word, known)
    return f"Did you mean `{found}`?" if found else ""
