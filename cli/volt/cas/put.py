"""`volt cas put`."""

from __future__ import annotations

import os

import msgspec

from volt.daemon import checked, packets, would
from volt.options import Argument, Asked, Option, Verb
from volt.output import done
from volt.settings import Settings
from volt_common.api import cas
from volt_common.packets import close_all


def run(asked: Asked, settings: Settings) -> int:
    path = asked.one("FILE")
    call = checked(cas.Put(ref=asked.text("--ref")))
    fd = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if settings.dry_run:
            would(f"store {path}" + (f" as {call.ref}" if call.ref else ""))
            return 0
        with packets(settings, "casd") as daemon:
            stored, extra = daemon.call(call, [fd])
            close_all(extra)
    finally:
        if fd:
            os.close(fd)
    done(settings, {"name": call.ref or stored.digest, **msgspec.to_builtins(stored)}, stored.digest)
    return 0


VERB = Verb(
    "Store a file and print its digest.",
    run,
    examples=("volt cas put kernel.img --ref kernels/6.12", "tar -c . | volt cas put -"),
    arguments=(Argument("FILE", "a file, or - for what comes on standard input", complete="files"),),
    options=(Option("--ref", metavar="NAME", help="a name for it; without one it may be collected"),),
    changes=True,
)
