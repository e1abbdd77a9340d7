"""`volt cas get`."""

from __future__ import annotations

from volt.cas.cat import pour
from volt.daemon import checked, client, packets
from volt.options import Argument, Asked, Verb
from volt.settings import Settings
from volt_common.api import cas


def run(asked: Asked, settings: Settings) -> int:
    for text in asked.texts("OBJECT"):
        digest = text.removeprefix("cas://")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            with client(settings, "casd") as daemon:
                digest = daemon.call(checked(cas.RefGet(name=text))).digest
        with packets(settings, "casd") as daemon:
            _, fds = daemon.call(checked(cas.Open(digest=digest)))
        pour(fds)
    return 0


VERB = Verb(
    "The bytes of objects, to standard output.",
    run,
    examples=("volt cas get kernels/6.12 > kernel.img",),
    arguments=(Argument("OBJECT", "a digest, or a ref", many=True, complete="refs"),),
)
