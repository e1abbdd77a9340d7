"""Machines by name: what is known of each, kept in a file, and whether it runs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

from voltlab import layers
from voltlab.failure import Failure

FLAVOURS = ("nspawn", "vm")


@dataclasses.dataclass
class Machine:
    """One machine: its directory holds disk, log and this record."""

    name: str
    suite: str
    flavour: str
    run: str = ""  # who made it (VOLT_LAB_RUN), so that a test run can end just its own
    layer: str = ""  # the layer its disk was copied from
    pid: int = 0  # of systemd-nspawn or QEMU; 0: not running
    started: int = 0  # that process' start time, since pids come again
    leader: int = 0  # nspawn: the machine's pid 1, as this host numbers it
    cgroup: str = ""  # nspawn: the directory of its cgroup, where the lab made one
    log_writes: bool = False  # vm: every write is logged to writes.log

    @property
    def directory(self) -> Path:
        """Everything of the machine; gone after `down`."""
        return layers.state() / "machines" / self.name

    @property
    def disk(self) -> Path:
        """The root disk, an ext4 image without a partition table."""
        return self.directory / "disk.ext4"

    @property
    def log(self) -> Path:
        """What the console said, and what systemd-nspawn or QEMU said."""
        return self.directory / "log"

    @property
    def running(self) -> bool:
        """Whether the process recorded is still the same and alive."""
        return self.pid != 0 and start_time(self.pid) == self.started

    def save(self) -> None:
        """Write the record, whole or not at all."""
        part = self.directory / ".machine.json"
        part.write_text(json.dumps(dataclasses.asdict(self), indent=1))
        part.rename(self.directory / "machine.json")

    def remove(self) -> None:
        """Forget the machine, which has been stopped."""
        shutil.rmtree(self.directory, ignore_errors=True)


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when it is none or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def check_name(name: str) -> str:
    """The name, when it can be a hostname, a unit and a directory."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", name):
        raise Failure(f"{name!r} is no name for a machine: use up to 32 of a-z, 0-9 and -")
    return name


def create(name: str, suite: str, flavour: str) -> Machine:
    """A new record and its directory. Raises Failure when the name is taken."""
    made = Machine(check_name(name), suite, flavour, run=os.environ.get("VOLT_LAB_RUN", ""))
    made.directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.directory.mkdir(mode=0o700)
    except FileExistsError as error:
        raise Failure(f"machine {name} is being made by somebody else; `lab down --name {name}` if not") from error
    made.save()
    return made


def find(name: str) -> Machine | None:
    """The machine of that name, or None."""
    try:
        text = (layers.state() / "machines" / check_name(name) / "machine.json").read_text()
    except FileNotFoundError:
        return None
    return Machine(**json.loads(text))


def get(name: str) -> Machine:
    """The running machine of that name, or a Failure that says how to get it."""
    known = find(name)
    if known is None or not known.running:
        what = "there is no machine" if known is None else "not running: machine"
        raise Failure(f"{what} {name}: `lab up --name {name}` starts it, `lab list` shows those there are")
    return known


def every() -> list[Machine]:
    """All machines, by name; a directory without a record is one that died while it was made."""
    top = layers.state() / "machines"
    names = sorted(entry.name for entry in top.iterdir()) if top.exists() else []
    return [find(name) or Machine(name, "?", "nspawn") for name in names]
