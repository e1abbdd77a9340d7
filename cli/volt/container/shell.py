"""`volt container shell`."""

from __future__ import annotations

from volt.container.exec import execute
from volt.daemon import checked
from volt.options import Argument, Asked, Option, Verb
from volt.settings import Settings
from volt_common.api import ctr

SHELL = ["/bin/sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash -l; else exec sh -l; fi"]


def run(asked: Asked, settings: Settings) -> int:
    import os

    env = {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
    call = ctr.Exec(name=asked.one("NAME"), args=SHELL, env=env, user=asked.text("--user") or "", tty=True)
    return execute(settings, checked(call), interactive=True)


VERB = Verb(
    "A login shell in a running container: bash where it is there.",
    run,
    examples=("volt container shell web", "volt container shell -u www-data web"),
    arguments=(Argument("NAME", "of the container", complete="containers"),),
    options=(Option("-u", "--user", metavar="USER[:GROUP]", help="whose shell"),),
)
