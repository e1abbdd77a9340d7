"""How far long work is, on stderr: a bar on a terminal, a plain line now and then otherwise."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType

from volt.output import plain, size_text
from volt.settings import Settings
from volt_common.wire import Progress

_BAR_SECONDS = 0.1
_LINE_SECONDS = 5.0


class Report:
    """`with Report(settings, "importing") as report: … report(done, total, text)`; silent with -q and for
    programs that read json."""

    def __init__(self, settings: Settings, title: str, amount: Callable[[int], str] = size_text) -> None:
        self._title = title
        self._amount = amount  # how `done` and `total` read: bytes, unless a verb counts something else
        self._silent = settings.quiet or settings.structured
        self._bar = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._next = time.monotonic() + (0.0 if self._bar else _LINE_SECONDS)
        self._drawn = False

    def __enter__(self) -> Report:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.clear()

    def daemon(self, progress: Progress) -> None:
        """A daemon's PROGRESS."""
        self(progress.done, progress.total, progress.text)

    def __call__(self, done: int, total: int, text: str = "") -> None:
        now = time.monotonic()
        if self._silent or now < self._next:
            return
        if self._bar:
            self._next = now + _BAR_SECONDS
            width = os.get_terminal_size(2).columns
            sys.stderr.write("\r\033[K" + bar(self._title, done, total, text, width - 1, self._amount))
            self._drawn = True
        else:
            self._next = now + _LINE_SECONDS
            share = f"{100 * done // total} %, " if total else ""
            sys.stderr.write(f"{self._title}: {share}{self._amount(done)} {plain(text)}".rstrip() + "\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the bar off the line."""
        if self._drawn:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self._drawn = False


def bar(title: str, done: int, total: int, text: str, width: int, amount: Callable[[int], str] = size_text) -> str:
    """One line of at most `width` characters."""
    if total > 0:
        share = min(1.0, done / total)
        filled = int(share * 24)
        middle = f"[{'=' * filled}{' ' * (24 - filled)}] {share:4.0%} {amount(done)} of {amount(total)}"
    else:
        middle = amount(done)
    return f"{title} {middle} {plain(text)}".rstrip()[: max(0, width)]
