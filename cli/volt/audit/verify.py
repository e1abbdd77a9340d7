"""`volt audit verify`."""

from __future__ import annotations

import os

from volt.audit.records import logs
from volt.options import Asked, Verb
from volt.output import Column, show
from volt.settings import Settings
from volt_common.audit import check
from volt_common.errors import Corrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row

COLUMNS = (
    Column("name", "LOG"),
    Column("state"),
    Column("lines", right=True),
    Column("torn", right=True),
    Column("problem"),
)


def run(_: Asked, settings: Settings) -> int:
    rows: list[Row] = []
    bad = []
    for path in logs():
        name = os.path.basename(path)
        try:
            found = check(path)
            rows.append({"name": name, "state": "ok", "lines": found.lines, "torn": found.torn, "problem": ""})
        except Corrupt as error:
            rows.append({"name": name, "state": "damaged", "lines": None, "torn": None, "problem": error.message})
            bad.append(error)
    show(settings, COLUMNS, rows)
    if bad:
        raise bad[0]
    return 0


VERB = Verb(
    "Check that no line of the audit logs was changed or taken out.",
    run,
    examples=("volt audit verify",),
    detail=(
        "Each line holds the hash of the one before. A torn line is a write that a crash cut off. The\n"
        "end of a log could be cut without a trace in it: the journal has every line's hash as\n"
        "VOLT_AUDIT, `journalctl VOLT_AUDIT=…`."
    ),
)
