"""The files of a container: where they are, and what the ones hold that root's launchers write.

`containers/NAME/` is ctrd's own. `roots/NAME/state.json` and `/run/volt-launch/` are written by root; ctrd
reads them, and a damaged or half-written one is the same as none.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple, TypeVar

import msgspec

from volt_common import paths

MAX_FILE = 4 << 20
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")

T = TypeVar("T")


class Places(NamedTuple):
    """The directories that ctrd knows."""

    containers: str = paths.CONTAINERS
    roots: str = paths.ROOTS
    launch: str = paths.LAUNCH_RUN
    policy: str = paths.POLICY
    run: str = paths.RUN

    def home(self, name: str) -> str:
        """What ctrd keeps of a container."""
        return f"{self.containers}/{name}"

    def config(self, name: str) -> str:
        """The launcher's input."""
        return f"{self.containers}/{name}/config.json"

    def spec(self, name: str) -> str:
        """What was asked, as it was asked; only ctrd reads it."""
        return f"{self.containers}/{name}/spec.json"

    def op(self, name: str, id: str) -> str:
        """The input of an op unit."""
        return f"{self.containers}/{name}/op-{id}.json"

    def op_result(self, name: str, id: str) -> str:
        return f"{self.launch}/op/{name}-{id}.json"

    def root_state(self, name: str) -> str:
        return f"{self.roots}/{name}/state.json"

    def running(self, name: str) -> str:
        return f"{self.launch}/{name}/running.json"

    def console(self, name: str) -> str:
        """The socket at which the terminal's broker takes watchers."""
        return f"{self.launch}/{name}/console"

    @property
    def handover(self) -> str:
        return f"{self.run}/ctr-handover"


class Ended(msgspec.Struct, frozen=True):
    """How the last run ended. `error` is a wire code when the launcher refused to start it."""

    code: int = 0
    signal: int = 0
    reason: str = "exit"
    message: str = ""
    error: str = ""
    hint: str = ""


class RootState(msgspec.Struct, frozen=True):
    """roots/NAME/state.json: what the launcher did. Times are RFC 3339; empty or null: not yet."""

    id: str = ""
    tree: str = ""
    id_base: int = 0
    started_at: str | None = None
    ready_at: str | None = None
    ended_at: str | None = None
    exit: Ended | None = None
    restarts: int = 0


class Running(msgspec.Struct, frozen=True):
    """/run/volt-launch/NAME/running.json: how the present run was set up."""

    id: str = ""
    leader: int = 0
    cgroup: str = ""
    command: list[str] = []
    mounts: list[str] = []
    sandbox: dict[str, str] = {}


class OpResult(msgspec.Struct, frozen=True):
    """/run/volt-launch/op/NAME-ID.json."""

    ok: bool = False
    code: str = ""
    message: str = ""
    hint: str = ""


def read(path: str) -> bytes | None:
    """The bytes of a file, or None if there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None


def load(path: str, kind: type[T]) -> T | None:
    """The struct in a JSON file; None if there is no file, or no such struct in it."""
    data = read(path)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def names(places: Places) -> list[str]:
    """Every container's name, in order."""
    return sorted(n for n in os.listdir(places.containers) if _NAME.match(n))
