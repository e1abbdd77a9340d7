"""`volt audit list`."""

from __future__ import annotations

from volt.audit.records import logs, records
from volt.options import LIST, Asked, Option, Verb
from volt.output import Column, show
from volt.settings import Settings

COLUMNS = (
    Column("timestamp", "TIME"),
    Column("user"),
    Column("action"),
    Column("resource"),
    Column("result"),
    Column("daemon", wide=True),
    Column("pid", wide=True, right=True),
    Column("id", "REQUEST", wide=True),
    Column("detail", wide=True),
)


def run(asked: Asked, settings: Settings) -> int:
    rows = [row for path in logs() for row in records(path)]
    rows.sort(key=lambda row: str(row.get("timestamp")))
    rows = [{**row, "user": row.get("user") or str(row.get("uid", ""))} for row in rows]
    tail = asked.number("--tail")
    show(settings, COLUMNS, rows[-tail:] if tail else rows, asked)
    return 0


VERB = Verb(
    "Who changed what, and what was refused, on this host.",
    run,
    examples=("volt audit list --tail 20", "volt audit list --filter result=denied -o wide"),
    options=(Option("-n", "--tail", metavar="LINES", help="only the last so many"), *LIST),
)
