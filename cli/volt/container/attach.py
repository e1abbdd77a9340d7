"""`volt attach`."""

from __future__ import annotations

from volt.container.terminal import Terminal
from volt.daemon import checked, packets
from volt.options import Argument, Asked, Verb
from volt.settings import Settings
from volt_common.api import ctr
from volt_common.client.blocking import Client
from volt_common.errors import NotFound, TimedOut

_ENDED_SECONDS = 3.0  # from the end of its terminal until its unit is known to have ended


def run(asked: Asked, settings: Settings) -> int:
    name = asked.one("NAME")
    with Terminal() as terminal:
        with packets(settings, "ctrd") as daemon:
            daemon.call(checked(ctr.Attach(name=name)), [terminal.far])
        if not terminal.pump():
            return 0
    try:
        with Client("ctrd", run=settings.host, timeout=_ENDED_SECONDS) as daemon:
            return daemon.call(ctr.Wait(name=name)).code
    except (TimedOut, NotFound):  # somebody else took the terminal over, or it is deleted already
        return 0


VERB = Verb(
    "Join the terminal of a container that was started with -t.",
    run,
    examples=("volt attach web",),
    arguments=(Argument("NAME", "of the container", complete="containers"),),
    detail="Ctrl-P Ctrl-Q leaves it again. Its exit code is the command's when it ends meanwhile.",
)
