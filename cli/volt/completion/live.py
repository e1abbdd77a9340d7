"""What could follow on a command line: words of the table, options, and the names of what is there now.

`volt __complete WORD…` prints one per line, the last word being the one under the cursor; a tab separates a
description; `:files` stands for names of files.
"""

from __future__ import annotations

import os

from volt.main import NOUNS, load
from volt.options import GLOBAL, Argument, Asked, Option, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from volt.settings import Settings

FILES = ":files"


def run(asked: Asked, settings: Settings) -> int:
    settings.timeout = 2.0
    for text in candidates(asked.texts("WORD") or [""], settings):
        print(text)
    return 0


def candidates(words: Sequence[str], settings: Settings) -> list[str]:
    """What the last word could become."""
    *before, last = words
    at = _options(before, 0, GLOBAL)
    if isinstance(at, Option):
        return _values(at, last, settings)
    if at == len(before):
        return _starting(last, [*_names(GLOBAL, last), *NOUNS[""], *(noun for noun in NOUNS if noun)])
    first, at = before[at], at + 1
    if first in NOUNS[""]:
        module = NOUNS[""][first]
    elif first in NOUNS and first:
        if at == len(before):
            return _starting(last, NOUNS[first])
        verb, at = before[at], at + 1
        if verb not in NOUNS[first]:
            return []
        module = NOUNS[first][verb]
    else:
        return []
    return _of_verb(load(module), before[at:], last, settings)


def _of_verb(verb: Verb, before: Sequence[str], last: str, settings: Settings) -> list[str]:
    options = (*verb.options, *GLOBAL)
    plain, at = 0, 0
    rest = any(argument.rest for argument in verb.arguments)
    fixed = sum(not argument.rest for argument in verb.arguments)
    while at < len(before):
        found = _options(before, at, options)
        if isinstance(found, Option):
            return _values(found, last, settings)
        if found < len(before):
            plain += 1
            found += 1
        at = found
        if rest and plain >= fixed:  # the payload's own words
            return [FILES]
    if last.startswith("-"):
        return _starting(last, _names(options, last))
    if not verb.arguments:
        return []
    argument = verb.arguments[min(plain, len(verb.arguments) - 1)]
    if plain >= len(verb.arguments) and not argument.many:
        return []
    return _values(argument, last, settings)


def _options(words: Sequence[str], at: int, options: Iterable[Option]) -> int | Option:
    """Where the options from `at` on end, or the one that still wants its value."""
    known = {name: option for option in options for name in option.names}
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        word = words[at]
        at += 1
        option = known.get(word) or (known.get("-" + word[-1]) if word[1:2] != "-" else None)
        if option is not None and option.metavar and "=" not in word:
            if at == len(words):
                return option
            at += 1
    return at


def _values(wanted: Option | Argument, last: str, settings: Settings) -> list[str]:
    if wanted.choices:
        return _starting(last, wanted.choices)
    if wanted.complete == "files":
        return [FILES]
    return _starting(last, live(wanted.complete, settings)) if wanted.complete else []


def live(kind: str, settings: Settings) -> list[str]:
    """The names of what is there now; none rather than an error, which nobody could read while typing."""
    from volt_common.errors import VoltError

    try:
        if kind == "containers":
            from volt.containers import known
            from volt.host.ps import from_daemon, merge

            return [str(row["name"]) for row in merge(known(stopped=True), from_daemon(settings))]
        if not os.access(f"{settings.host}/casd.sock", os.W_OK):
            return []
        if kind == "images":
            from volt.image.list import rows

            names = [str(row["name"]) for row in rows(settings)]
            return [*names, *(name.removesuffix(":latest") for name in names if name.endswith(":latest"))]
        from volt.daemon import client
        from volt_common.api import cas

        with client(settings, "casd") as daemon:
            return [ref.name for ref in daemon.stream(cas.RefList())]
    except (VoltError, OSError):
        return []


def _names(options: Iterable[Option], last: str) -> list[str]:
    if not last.startswith("-"):
        return []
    return [f"{name}\t{option.help}" for option in options for name in option.names if name.startswith("--")]


def _starting(prefix: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(prefix)]


VERB = Verb(
    "What could follow; for the scripts of `volt completion`.",
    run,
    examples=("volt __complete container st",),
    arguments=(Argument("WORD", "of the line so far, the last one unfinished", rest=True),),
)
