"""`volt explain`: how a container is run."""

from __future__ import annotations

import shlex

import msgspec

from volt.daemon import checked, client
from volt.options import Argument, Asked, Verb
from volt.output import one, plain
from volt.settings import Settings
from volt_common.api import ctr


def run(asked: Asked, settings: Settings) -> int:
    name = asked.one("NAME")
    with client(settings, "ctrd") as daemon:
        found = daemon.call(checked(ctr.Explain(name=name)))
    if settings.structured:
        one(settings, {"name": name, **msgspec.to_builtins(found)})
        return 0
    print(f"unit      {plain(found.unit)}    systemctl status {plain(found.unit)}")
    print("command   " + plain(shlex.join(found.command) if found.command else "never started"))
    for title, lines in (
        ("mounts", found.mounts),
        ("sandbox", [f"{key}: {value}" for key, value in found.sandbox.items()]),
        ("config", found.config.splitlines()),
    ):
        print(f"{title}")
        for line in lines:
            print(f"  {plain(line)}")
    return 0


VERB = Verb(
    "How a container is run: its unit, the launcher's input, nspawn's command line, mounts and sandbox.",
    run,
    examples=("volt explain web",),
    arguments=(Argument("NAME", "of the container", complete="containers"),),
)
