"""`volt ps`: what runs, for any user, without a daemon."""

from __future__ import annotations

import os
import time

from volt.containers import ROOTS, known, status_text
from volt.options import LIST, Asked, Option, Verb
from volt.output import Column, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row
    from volt.settings import Settings

COLUMNS = (
    Column("name"),
    Column("state"),
    Column("status"),
    Column("image"),
    Column("tree", wide=True, form=lambda value: str(value or "")[:12]),
    Column("restarts", wide=True, right=True),
    Column("id_base", "IDS", wide=True, right=True),
    Column("started_at", "STARTED", wide=True),
)


def run(asked: Asked, settings: Settings) -> int:
    everything = asked.flag("--all")
    rows = known(stopped=everything)
    if everything:
        rows = merge(rows, from_daemon(settings))
    now = time.time()
    show(settings, COLUMNS, [{**row, "status": status_text(row, now)} for row in rows], asked)
    return 0


def from_daemon(settings: Settings) -> list[Row]:
    """What ctrd knows, for those who may ask it; containers that never started have no other trace."""
    if not os.access(f"{settings.host}/ctrd.sock", os.W_OK):
        return []
    from volt.container.list import rows
    from volt_common.errors import VoltError

    try:
        return rows(settings)
    except VoltError:  # the list without it is still true, and this verb promises to need no daemon
        return []


def merge(seen: list[Row], told: list[Row]) -> list[Row]:
    """By name: systemd is right about what runs, ctrd knows what was asked."""
    by_name: dict[str, Row] = {str(row["name"]): row for row in seen}
    for row in told:
        name = str(row["name"])
        mine = by_name.get(name)
        if mine is None:
            by_name[name] = {**row, "ended_at": ""}
        else:
            by_name[name] = {**mine, "image": row.get("image") or mine.get("image")}
    return [by_name[name] for name in sorted(by_name)]


VERB = Verb(
    "What runs on this host; any user may ask.",
    run,
    examples=("volt ps", "volt ps -a --sort started_at", "volt ps --filter state=running --format '{name} {status}'"),
    options=(Option("-a", "--all", help="also what is stopped"), *LIST),
    detail=(
        "It asks systemd, and reads what the launchers wrote below " + ROOTS + ", so it works\n"
        "with every daemon stopped. Containers that were created and never started are known to\n"
        "ctrd alone: -a shows them to those who may talk to it."
    ),
)
