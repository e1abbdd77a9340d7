"""`volt cas status`."""

from __future__ import annotations

import msgspec

from volt.daemon import client
from volt.options import Asked, Verb
from volt.output import one, size_text
from volt.settings import Settings
from volt_common.api import cas


def run(_: Asked, settings: Settings) -> int:
    with client(settings, "casd") as daemon:
        found = daemon.call(cas.Status())
    if settings.output not in ("table", "wide"):
        one(settings, {"name": "store", **msgspec.to_builtins(found)})
        return 0
    ratio = found.logical_bytes / (found.object_bytes or 1)
    for title, text in (
        ("objects", f"{found.objects}, {size_text(found.object_bytes)}"),
        ("trees", f"{found.trees}, {size_text(found.tree_bytes)}"),
        ("refs", f"{found.refs}, {size_text(found.logical_bytes)} counted whole, {ratio:.1f} times what is stored"),
        ("views", f"{found.views}, {size_text(found.view_bytes)}, rebuilt when missing"),
        ("quarantine", f"{found.quarantined}"),
        ("free", size_text(found.free_bytes)),
        ("state", "clean" if found.clean else "objects await re-verification after an unclean stop"),
    ):
        print(f"{title:<12}{text}")
    return 0


VERB = Verb("Counts and bytes of the store.", run, examples=("volt cas status", "volt cas status -o json"))
