"""From the words of a command line to the one module that acts on them, and from an error to an exit code."""

from __future__ import annotations

import contextlib
import os
import sys

from volt.options import GLOBAL, Asked, Verb, parse, parse_globals, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from volt.settings import Settings

NOUNS: dict[str, dict[str, str]] = {
    "": {
        "run": "container.run",
        "ps": "host.ps",
        "top": "host.top",
        "logs": "container.logs",
        "exec": "container.exec",
        "stop": "container.stop",
        "start": "container.start",
        "restart": "container.restart",
        "rm": "container.delete",
        "inspect": "container.inspect",
        "events": "container.events",
        "wait": "container.wait",
        "kill": "container.kill",
        "attach": "container.attach",
        "version": "host.version",
        "doctor": "host.doctor",
        "explain": "container.explain",
    },
    "container": {
        verb: f"container.{verb}"
        for verb in (
            *("create", "start", "stop", "restart", "kill", "pause", "resume", "delete", "list"),
            *("inspect", "exec", "shell", "attach", "logs", "wait"),
        )
    },
    "image": {"import": "image.import_"} | {verb: f"image.{verb}" for verb in ("build", "list", "delete", "inspect")},
    "cas": {verb: f"cas.{verb}" for verb in ("status", "verify", "ls", "cat", "diff", "refs", "put", "get", "build")},
    "security": {"status": "security.status"},
    "audit": {"list": "audit.list", "verify": "audit.verify"},
    "completion": {shell: f"completion.{shell}" for shell in ("bash", "zsh", "fish")},
}
"""Noun → verb → module below `volt`. The verbs that stand alone are those of the empty noun."""

HIDDEN = {"__complete": "completion.live"}
"""What the completion scripts call."""


def main(words: Sequence[str] | None = None) -> int:
    """The whole command; returns the exit status."""
    given = list(sys.argv[1:] if words is None else words)
    asked = Asked()
    settings: Settings | None = None
    try:
        verb = find(given, asked)
        if verb is None:
            return 0
        from volt.settings import gather

        settings = gather(asked)
        code = verb.run(asked, settings)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `volt ps | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the edge: whatever it is, it becomes a line and a status
        from volt.failure import report

        return report(error, asked, settings)


def run() -> NoReturn:
    """The whole process of a command."""
    code = main()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # taking Python apart takes as long as a call to a daemon


def find(words: list[str], asked: Asked) -> Verb | None:
    """The verb that `words` name, with its arguments parsed into `asked`; None when only help was wanted,
    which is printed then. Raises Usage."""
    words = words[parse_globals(words, asked) :]
    if words[:1] == ["help"]:
        words = words[1:]
        asked.add("--help", "")
    if not words:
        from volt.help import overview

        if not asked.flag("--help"):
            raise usage("what is to be done?", "`volt --help` lists the commands, `volt ps` shows what runs.")
        overview(NOUNS, GLOBAL)
        return None
    first, rest = words[0], words[1:]
    if first in HIDDEN:
        module = HIDDEN[first]
        asked.command = first
    elif first in NOUNS[""]:
        module = NOUNS[""][first]
        asked.command = first
    elif first in NOUNS and first:
        rest = rest[parse_globals(rest, asked) :]
        if not rest:
            from volt.help import noun

            if not asked.flag("--help"):
                raise usage(f"{first}: which verb?", f"One of: {', '.join(NOUNS[first])}.")
            noun(first, NOUNS[first])
            return None
        name, rest = rest[0], rest[1:]
        if name not in NOUNS[first]:
            from volt.near import suggestion

            hint = suggestion(name, NOUNS[first]) or f"One of: {', '.join(NOUNS[first])}."
            raise usage(f"{first} has no verb {name!r}", hint)
        module = NOUNS[first][name]
        asked.command = f"{first} {name}"
    else:
        from volt.near import suggestion

        known = [*NOUNS[""], *(noun for noun in NOUNS if noun)]
        raise usage(f"unknown command {first!r}", suggestion(first, known) or "`volt --help` lists the commands.")
    verb = load(module)
    parse(verb, rest, asked)
    if asked.flag("--help"):
        from volt.help import page

        page(asked.command, verb, GLOBAL)
        return None
    if asked.flag("--dry-run") and not verb.changes:
        raise usage(f"{asked.command} changes nothing, so there is nothing to try with --dry-run")
    return verb


def load(module: str) -> Verb:
    """The verb of a module of the table."""
    name = f"volt.{module}"
    __import__(name)
    verb: Verb = sys.modules[name].VERB
    return verb
