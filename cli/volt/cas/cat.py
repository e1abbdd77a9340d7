"""`volt cas cat`."""

from __future__ import annotations

import os
import shutil
import sys

from volt.cas.ls import resolve, split
from volt.daemon import checked, packets
from volt.options import Argument, Asked, Verb, usage
from volt.settings import Settings
from volt_common.api import cas
from volt_common.packets import close_all


def run(asked: Asked, settings: Settings) -> int:
    for text in asked.texts("TREE:/PATH"):
        tree, path = split(text)
        if not path:
            raise usage(f"{text!r} names no file of a tree", "Write TREE:/PATH, as in debian:12:/etc/os-release.")
        with packets(settings, "casd") as daemon:
            _, fds = daemon.call(checked(cas.Cat(tree=resolve(settings, tree), path=os.fsencode(path))))
        pour(fds)
    return 0


def pour(fds: list[int]) -> None:
    """The one descriptor's bytes to standard output."""
    with open(fds[0], "rb") as file:
        close_all(fds[1:])
        sys.stdout.flush()
        shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
        sys.stdout.buffer.flush()


VERB = Verb(
    "The bytes of files of a tree.",
    run,
    examples=("volt cas cat debian:12:/etc/os-release",),
    arguments=(Argument("TREE:/PATH", "an image, a ref or a digest, and a file in it", many=True, complete="images"),),
)
