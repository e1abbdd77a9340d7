"""`volt container list`: every container, from ctrd."""

from __future__ import annotations

from volt.container.rows import COLUMNS, row
from volt.daemon import client
from volt.options import LIST, Asked, Verb
from volt.output import show
from volt.settings import Settings
from volt_common.api import ctr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row


def rows(settings: Settings) -> list[Row]:
    """Raises Unreachable, Denied."""
    with client(settings, "ctrd") as daemon:
        return [row(container) for container in daemon.stream(ctr.List())]


def run(asked: Asked, settings: Settings) -> int:
    show(settings, COLUMNS, rows(settings), asked)
    return 0


VERB = Verb(
    "Every container, running or not.",
    run,
    examples=("volt container list", "volt container list --filter state=stopped -o name"),
    options=LIST,
    detail="This asks ctrd. `volt ps` needs no daemon and no rights.",
)
