"""`volt image list`."""

from __future__ import annotations

import time

from volt.daemon import client
from volt.image.names import TREES, shown
from volt.options import LIST, Asked, Verb
from volt.output import Column, show, size_text, span_text
from volt.settings import Settings
from volt_common.api import cas

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row, Value


def _age(value: Value) -> str:
    return f"{span_text(time.time() - value / 1e9)} ago" if isinstance(value, int) and value else ""


COLUMNS = (
    Column("name"),
    Column("size", right=True, form=size_text),
    Column("set_at", "IMPORTED", form=_age),
    Column("tree", wide=True),
)


def rows(settings: Settings) -> list[Row]:
    """Raises Unreachable, Denied."""
    with client(settings, "casd") as daemon:
        return [
            {"name": shown(ref.name), "tree": ref.digest, "size": ref.size, "set_at": ref.set_at}
            for ref in daemon.stream(cas.RefList(prefix=TREES.rstrip("/")))
        ]


def run(asked: Asked, settings: Settings) -> int:
    show(settings, COLUMNS, rows(settings), asked)
    return 0


VERB = Verb(
    "Images in the store.",
    run,
    examples=("volt image list", "volt image list --sort -size --format '{name} {tree}'"),
    options=LIST,
)
