"""`volt inspect`."""

from __future__ import annotations

from volt.container.rows import row
from volt.daemon import checked, client, each
from volt.options import Argument, Asked, Option, Verb
from volt.output import as_json, formatted, one
from volt.settings import Settings
from volt_common.api import ctr


def run(asked: Asked, settings: Settings) -> int:
    template = asked.text("--format")
    with client(settings, "ctrd") as daemon:

        def act(name: str) -> None:
            found = row(daemon.call(checked(ctr.Inspect(name=name))))
            if template is not None:
                print(formatted(template, found))
            elif settings.output in ("table", "wide"):  # nested as it is, a table would only hide parts of it
                print(as_json(found))
            else:
                one(settings, found)

        return each(asked, settings, asked.texts("NAME"), act)


VERB = Verb(
    "Everything ctrd knows of containers, and what was asked for them.",
    run,
    examples=("volt inspect web", "volt inspect web --format '{tree}'"),
    arguments=(Argument("NAME", "of the containers", many=True, complete="containers"),),
    options=(Option("--format", metavar="TEXT", help="this text, with fields in braces"),),
)
