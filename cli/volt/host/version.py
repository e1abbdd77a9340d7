"""`volt version`."""

from __future__ import annotations

import sys

from volt import __version__
from volt.options import Asked, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.settings import Settings


def run(_: Asked, settings: Settings) -> int:
    if settings.output in ("table", "wide", "name"):
        print(__version__ if settings.quiet or settings.output == "name" else f"volt {__version__}")
    else:
        from volt.output import one

        one(settings, {"name": "volt", "version": __version__, "python": sys.version.split()[0]})
    return 0


VERB = Verb("The version of this command.", run, examples=("volt version", "volt version -o json"))
