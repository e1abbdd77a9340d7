"""`volt wait`."""

from __future__ import annotations

import msgspec

from volt.daemon import checked, client, each
from volt.options import Argument, Asked, Verb
from volt.output import one
from volt.settings import Settings
from volt_common.api import ctr


def run(asked: Asked, settings: Settings) -> int:
    with client(settings, "ctrd") as daemon:

        def act(name: str) -> None:
            exit = daemon.call(checked(ctr.Wait(name=name)))
            one(settings, {"name": name, **msgspec.to_builtins(exit)}, str(exit.code))

        return each(asked, settings, asked.texts("NAME"), act)


VERB = Verb(
    "Wait until containers have ended, and print their exit codes.",
    run,
    examples=("volt wait web", "volt wait --timeout 60 job -o json"),
    arguments=(Argument("NAME", "of the containers", many=True, complete="containers"),),
)
