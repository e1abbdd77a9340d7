"""`volt cas diff`."""

from __future__ import annotations

import os

from volt.cas.ls import resolve
from volt.cas.ls import row as entry_row
from volt.daemon import checked, client
from volt.options import LIST, Argument, Asked, Verb
from volt.output import Column, plain, show
from volt.settings import Settings
from volt_common.api import cas

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row

COLUMNS = (
    Column("change"),
    Column("what", form=lambda value: ", ".join(map(str, value)) if isinstance(value, list) else ""),
    Column("path"),
)


def row(change: cas.Change) -> Row:
    """One path."""
    kind = "added" if change.before is None else "removed" if change.after is None else "changed"
    return {
        "path": plain(os.fsdecode(change.path) or "."),
        "change": kind,
        "what": list(change.what),
        "before": None if change.before is None else entry_row(change.before),
        "after": None if change.after is None else entry_row(change.after),
    }


def run(asked: Asked, settings: Settings) -> int:
    old, new = (resolve(settings, asked.one(name)) for name in ("OLD", "NEW"))
    with client(settings, "casd") as daemon:
        show(settings, COLUMNS, [row(change) for change in daemon.stream(checked(cas.Diff(old=old, new=new)))], asked)
    return 0


VERB = Verb(
    "What differs between two trees.",
    run,
    examples=("volt cas diff debian:12 debian:13", "volt cas diff images/app/1 images/app/2 -o json"),
    arguments=(
        Argument("OLD", "an image, a ref or a digest", complete="images"),
        Argument("NEW", "another", complete="images"),
    ),
    options=LIST,
)
