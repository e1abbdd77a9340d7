"""`volt events`."""

from __future__ import annotations

import sys

import msgspec

from volt.daemon import checked, client
from volt.options import LIST, Argument, Asked, Verb
from volt.output import cell, formatted, pick, plain, select
from volt.settings import Settings
from volt_common.api import ctr


def run(asked: Asked, settings: Settings) -> int:
    template = asked.text("--format")
    with client(settings, "ctrd") as daemon:
        for event in daemon.stream(checked(ctr.Events(name=asked.text("NAME")))):
            row = msgspec.to_builtins(event)
            if not select([row], asked.texts("--filter"), None):
                continue
            if template is not None:
                print(formatted(template, row))
            elif settings.structured:
                import json

                print(json.dumps(row))  # one a line, so that a reader can follow
            elif settings.output == "name":
                print(plain(event.name))
            else:
                print(f"{event.at}  {event.type:<8}  {plain(event.name)}  {cell(pick(row, 'detail'))}".rstrip())
            sys.stdout.flush()
    return 0


VERB = Verb(
    "What happens to containers, from now on, until interrupted.",
    run,
    examples=("volt events", "volt events web --filter type=exit -o json"),
    arguments=(Argument("NAME", "only of this container", optional=True, complete="containers"),),
    options=tuple(option for option in LIST if option.key != "--sort"),
)
