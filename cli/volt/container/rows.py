"""A container, as ctrd tells of it, as a row of the output."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from volt.containers import status_text
from volt.output import Column
from volt_common.api import ctr

if TYPE_CHECKING:
    from volt.output import Row

COLUMNS = (
    Column("name"),
    Column("state"),
    Column("status"),
    Column("image"),
    Column("mode", wide=True),
    Column("args", "COMMAND", wide=True, form=lambda value: _shorten(value)),
    Column("leader", "PID", wide=True, right=True, form=lambda value: str(value or "")),
    Column("restarts", wide=True, right=True),
    Column("uid", "BY", wide=True, right=True),
    Column("created_at", "CREATED", wide=True),
)


def row(container: ctr.Container) -> Row:
    """Its fields, with `status` in words."""
    found: dict[str, object] = msgspec.to_builtins(container)
    if container.spec is None:
        del found["spec"]
    return {**found, "status": status_text(found, time.time())}  # type: ignore[dict-item, arg-type]  # msgspec gives plain values


def _shorten(value: object) -> str:
    from volt.output import plain

    text = " ".join(str(part) for part in value) if isinstance(value, list) else ""
    return plain(text if len(text) <= 40 else text[:39] + "…")
