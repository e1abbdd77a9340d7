"""`volt cas verify`."""

from __future__ import annotations

import msgspec

from volt.daemon import client
from volt.options import Asked, Verb
from volt.output import cell, one, plain, size_text
from volt.progress import Report
from volt.settings import Settings
from volt_common.api import cas
from volt_common.errors import Corrupt


def run(_: Asked, settings: Settings) -> int:
    with client(settings, "casd") as daemon, Report(settings, "verifying", lambda count: f"{count} objects") as report:
        bad, result = daemon.collect(cas.Verify(), on_progress=report.daemon)
    if settings.structured:
        one(settings, {"name": "store", **msgspec.to_builtins(result), "found": msgspec.to_builtins(bad)})
    else:
        for item in bad:
            print(f"{item.digest}  {plain(item.problem)}  needed by {cell(item.refs) or 'nothing'}")
        if not settings.quiet:
            print(f"{result.objects} objects, {size_text(result.bytes)}: {result.bad or 'none'} damaged")
    if result.bad:
        hint = "They are in quarantine/; import again what needs them."
        raise Corrupt(f"{result.bad} of its objects are", what="the", name="store", hint=hint)
    return 0


VERB = Verb(
    "Hash every object again, and check that every ref is complete.",
    run,
    examples=("volt cas verify",),
    detail="Damaged objects are moved to quarantine and named with the refs that need them; exit code 12.",
)
