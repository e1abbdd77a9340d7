"""`volt start`."""

from __future__ import annotations

from volt.container.rows import row
from volt.daemon import checked, client, each, would
from volt.options import Argument, Asked, Verb
from volt.output import done
from volt.settings import Settings
from volt_common.api import ctr


def run(asked: Asked, settings: Settings) -> int:
    with client(settings, "ctrd") as daemon:

        def act(name: str) -> None:
            call = checked(ctr.Start(name=name))
            if settings.dry_run:
                found = daemon.call(ctr.Inspect(name=name))
                would(f"start {name}, which is {found.state.value}")
                return
            container = daemon.call(call)
            done(settings, row(container), f"{name} is {container.state.value}")

        return each(asked, settings, asked.texts("NAME"), act)


VERB = Verb(
    "Start containers that are stopped.",
    run,
    examples=("volt start web",),
    arguments=(Argument("NAME", "of the containers", many=True, complete="containers"),),
    changes=True,
)
