"""A container's directory comes into being, and goes, in one rename: it is there whole or not at all.

.new-NAME-HEX    being made: nobody sees it
NAME             a container
.old-NAME-HEX    deleted: only its last files, and its ref in the store, are still to go
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from typing import Final, NamedTuple

from volt_common import durable
from volt_common.api import ctr
from volt_common.errors import AlreadyExists
from volt_common.failpoint import point
from volt_ctrd import config as configs
from volt_ctrd.config import Config
from volt_ctrd.files import Places

_LEFTOVER: Final = re.compile(r"\.(?:new|old)-([a-z0-9][a-z0-9-]*)-[0-9a-f]{16}\Z")


class Leftover(NamedTuple):
    """A directory that is no container, and whose it was."""

    path: str
    name: str


class Stage:
    """A directory that is being made."""

    def __init__(self, places: Places, name: str, path: str) -> None:
        self._places = places
        self._name = name
        self._path = path

    def write(self, config: Config, spec: ctr.Spec) -> None:
        """Fill it. Raises OSError."""
        configs.write(self._path, config, spec)

    def publish(self) -> None:
        """Give it its name, durably. Raises AlreadyExists, OSError."""
        point("create.before-rename")
        try:
            os.rename(self._path, self._places.home(self._name))  # fails unless nothing has this name
        except FileExistsError:
            raise AlreadyExists(kind="container", name=self._name) from None
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                raise AlreadyExists(kind="container", name=self._name) from None
            raise
        point("create.after-rename")
        durable.sync_directory(self._places.containers)


@contextlib.contextmanager
def staged(places: Places, name: str) -> Iterator[Stage]:
    """Make a directory under another name; what is not published is removed. Raises OSError."""
    path = f"{places.containers}/.new-{name}-{secrets.token_hex(8)}"
    os.mkdir(path, 0o700)
    try:
        yield Stage(places, name, path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def retire(places: Places, name: str) -> Leftover:
    """Take a container's name away from its directory. It is durable when `containers` is synced."""
    leftover = Leftover(f"{places.containers}/.old-{name}-{secrets.token_hex(8)}", name)
    point("delete.before-rename")
    os.rename(places.home(name), leftover.path)
    point("delete.after-rename")
    return leftover


def clear(leftover: Leftover) -> None:
    """Remove what is left."""
    shutil.rmtree(leftover.path, ignore_errors=True)


def leftovers(places: Places) -> list[Leftover]:
    """What an earlier ctrd did not bring to its end."""
    found = []
    for entry in sorted(os.listdir(places.containers)):
        if match := _LEFTOVER.match(entry):
            found.append(Leftover(f"{places.containers}/{entry}", match[1]))
    return found
