"""`volt stop`."""

from __future__ import annotations

from volt.container.rows import row
from volt.daemon import checked, client, each, would
from volt.options import Argument, Asked, Option, Verb
from volt.output import done
from volt.settings import Settings
from volt_common.api import ctr


def run(asked: Asked, settings: Settings) -> int:
    seconds = asked.seconds("--time")
    wait = None if seconds is None else round(seconds)
    with client(settings, "ctrd") as daemon:

        def act(name: str) -> None:
            call = checked(ctr.Stop(name=name, seconds=wait))
            if settings.dry_run:
                found = daemon.call(ctr.Inspect(name=name))
                would(f"stop {name}, which is {found.state.value}")
                return
            container = daemon.call(call)
            done(settings, row(container), f"{name} is {container.state.value}")

        return each(asked, settings, asked.texts("NAME"), act)


VERB = Verb(
    "Ask containers to end; what does not end in time is killed.",
    run,
    examples=("volt stop web", "volt stop -t 60 db web"),
    arguments=(Argument("NAME", "of the containers", many=True, complete="containers"),),
    options=(Option("-t", "--time", metavar="TIME", help="until it is killed (by default what it was made with)"),),
    changes=True,
)
