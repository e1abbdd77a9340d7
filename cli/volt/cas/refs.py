"""`volt cas refs`."""

from __future__ import annotations

import msgspec

from volt.daemon import checked, client
from volt.options import LIST, Argument, Asked, Verb
from volt.output import Column, show, size_text
from volt.settings import Settings
from volt_common.api import cas

COLUMNS = (
    Column("name"),
    Column("kind"),
    Column("size", right=True, form=size_text),
    Column("digest", form=lambda value: str(value)[:16]),
)


def run(asked: Asked, settings: Settings) -> int:
    call = checked(cas.RefList(prefix=(asked.text("PREFIX") or "").strip("/")))
    with client(settings, "casd") as daemon:
        show(settings, COLUMNS, [msgspec.to_builtins(ref) for ref in daemon.stream(call)], asked)
    return 0


VERB = Verb(
    "The names in the store, and what they name.",
    run,
    examples=("volt cas refs", "volt cas refs images/debian -o json"),
    arguments=(Argument("PREFIX", "only this and what is below it", optional=True, complete="refs"),),
    options=LIST,
)
