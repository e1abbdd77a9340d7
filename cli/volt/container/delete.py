"""`volt rm`, `volt container delete`."""

from __future__ import annotations

from volt.daemon import checked, client, each, would
from volt.options import Argument, Asked, Option, Verb
from volt.output import done
from volt.settings import Settings
from volt_common.api import ctr


def run(asked: Asked, settings: Settings) -> int:
    force = asked.flag("--force")
    with client(settings, "ctrd") as daemon:

        def act(name: str) -> None:
            call = checked(ctr.Delete(name=name, force=force))
            if settings.dry_run:
                found = daemon.call(ctr.Inspect(name=name))
                would(f"delete {name}, which is {found.state.value}, and all it wrote")
                return
            daemon.call(call)
            done(settings, {"name": name, "deleted": True}, f"{name} is deleted")

        return each(asked, settings, asked.texts("NAME"), act)


VERB = Verb(
    "Delete containers and everything they wrote.",
    run,
    examples=("volt rm web", "volt rm -f web db"),
    arguments=(Argument("NAME", "of the containers", many=True, complete="containers"),),
    options=(Option("-f", "--force", help="also one that runs: it is killed first"),),
    changes=True,
)
