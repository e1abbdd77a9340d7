"""`volt kill`."""

from __future__ import annotations

from volt.daemon import checked, client, each, would
from volt.options import Argument, Asked, Option, Verb
from volt.output import done
from volt.settings import Settings
from volt_common.api import ctr


def run(asked: Asked, settings: Settings) -> int:
    signal = (asked.text("--signal") or "SIGKILL").upper()
    with client(settings, "ctrd") as daemon:

        def act(name: str) -> None:
            call = checked(ctr.Kill(name=name, signal=signal))
            if settings.dry_run:
                daemon.call(ctr.Inspect(name=name))
                would(f"send {signal} to {name}")
                return
            daemon.call(call)
            done(settings, {"name": name, "signal": signal}, f"{name} was sent {signal}")

        return each(asked, settings, asked.texts("NAME"), act)


VERB = Verb(
    "Send the first process of containers a signal.",
    run,
    examples=("volt kill web", "volt kill -s HUP web"),
    arguments=(Argument("NAME", "of the containers", many=True, complete="containers"),),
    options=(Option("-s", "--signal", metavar="SIGNAL", help="which one (SIGKILL)"),),
    changes=True,
)
