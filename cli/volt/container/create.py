"""`volt container create`."""

from __future__ import annotations

from volt.container.rows import row
from volt.container.spec import ARGUMENTS, OPTIONS, spec_of
from volt.daemon import checked, client
from volt.options import Asked, Option, Verb
from volt.output import done, one
from volt.settings import Settings
from volt_common.api import ctr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row


def run(asked: Asked, settings: Settings) -> int:
    call = checked(ctr.Create(name=asked.text("--name"), spec=spec_of(asked)))
    if settings.dry_run:
        one(settings, asked_row(call))
        return 0
    with client(settings, "ctrd") as daemon:
        container = daemon.call(call)
    done(settings, row(container), container.name)
    return 0


def asked_row(call: ctr.Create) -> Row:
    """What would be sent."""
    import msgspec

    found: Row = msgspec.to_builtins(call)
    return {key: value for key, value in found.items() if key != "op"}


VERB = Verb(
    "Make a container and leave it stopped.",
    run,
    examples=("volt container create --name web -m 512M debian /usr/bin/python3 -m http.server",),
    options=(*OPTIONS, Option("--rm", help="delete it when it has ended")),
    arguments=ARGUMENTS,
    changes=True,
)
