"""The global options in force: the command line over the environment over the defaults."""

from __future__ import annotations

import os
import sys

from volt.options import COLORS, OUTPUTS, Asked, parse_seconds, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Settings:
    """How to speak and to whom."""

    __slots__ = ("color", "command", "context", "debug", "dry_run", "header", "host", "output", "quiet", "timeout")

    def __init__(self, command: str = "") -> None:
        self.command = command  # what an error line says was tried: "stop web"
        self.output = "table"
        self.header = True
        self.color = False
        self.quiet = False
        self.debug = False
        self.timeout: float | None = None
        self.host = "/run/volt"
        self.context = "default"
        self.dry_run = False

    @property
    def structured(self) -> bool:
        """A program reads this output."""
        return self.output in ("json", "yaml")


def gather(asked: Asked, environ: Mapping[str, str] = os.environ) -> Settings:
    """Raises Usage for a value that none of the options can have, NotFound for a context that is not there."""
    settings = Settings(asked.command)
    settings.output = _choice(asked.text("--output"), environ, "VOLT_OUTPUT", OUTPUTS)
    settings.header = not asked.flag("--no-header")
    color = asked.text("--color") or ("never" if environ.get("NO_COLOR") else None)
    color = _choice(color, environ, "VOLT_COLOR", COLORS)
    settings.color = color == "always" or (color == "auto" and _terminal() and environ.get("TERM") != "dumb")
    settings.quiet = asked.flag("--quiet")
    settings.debug = asked.flag("--debug") or environ.get("VOLT_DEBUG", "").lower() in ("1", "true", "yes", "on")
    settings.dry_run = asked.flag("--dry-run")
    settings.host = asked.text("--host") or environ.get("VOLT_HOST") or "/run/volt"
    settings.context = asked.text("--context") or environ.get("VOLT_CONTEXT") or "default"
    timeout = asked.text("--timeout")
    if timeout is not None:
        settings.timeout = parse_seconds("--timeout", timeout) or None
    if settings.context != "default":
        from volt_common.errors import NotFound

        raise NotFound(kind="context", name=settings.context, hint="The only one so far is `default`, this host.")
    return settings


def _choice(given: str | None, environ: Mapping[str, str], variable: str, known: tuple[str, ...]) -> str:
    if given is not None:
        return given
    value = environ.get(variable)
    if not value:
        return known[0]
    if value not in known:
        raise usage(f"{variable} is one of {', '.join(known)}, not {value!r}")
    return value


def _terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):  # a standard output that is closed
        return False
