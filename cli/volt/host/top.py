"""`volt top`: what containers use, from their cgroups' files; any user may look."""

from __future__ import annotations

import os
import sys
import time

from volt.containers import cgroup_of, known
from volt.options import LIST, Asked, Option, Verb
from volt.output import Column, show, size_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row, Value
    from volt.settings import Settings

SHORT_SECONDS = 0.2  # between the two readings of a single sample


def _percent(value: Value) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else "-"


def _bytes(value: Value) -> str:
    return size_text(value) or "-"


COLUMNS = (
    Column("name"),
    Column("cpu_percent", "CPU %", right=True, form=_percent),
    Column("memory", right=True, form=_bytes),
    Column("memory_max", "LIMIT", right=True, form=_bytes),
    Column("read_rate", "READ/s", right=True, form=_bytes),
    Column("write_rate", "WRITE/s", right=True, form=_bytes),
    Column("pids", right=True, form=lambda value: "-" if value is None else str(value)),
    Column("state", wide=True),
)


class Sample:
    """One reading of a cgroup. None: its controller is not on here."""

    __slots__ = ("at", "cpu_usec", "memory", "memory_max", "pids", "read", "wrote")

    def __init__(self, group: str, at: float) -> None:
        self.at = at
        self.cpu_usec = _field(group, "cpu.stat", "usage_usec")
        self.memory = _number(group, "memory.current")
        self.memory_max = _number(f"{group}/box", "memory.max") or _number(group, "memory.max")
        self.pids = _number(group, "pids.current")
        if self.pids is None:
            self.pids = count_processes(group)
        self.read, self.wrote = _io(group)


def run(asked: Asked, settings: Settings) -> int:
    every = asked.seconds("--interval") or 2.0
    once = asked.flag("--no-stream") or settings.structured or not sys.stdout.isatty()
    before = samples()
    if once:
        time.sleep(min(every, SHORT_SECONDS))
        show(settings, COLUMNS, rates(before, samples()), asked)
        return 0
    time.sleep(SHORT_SECONDS)
    while True:
        after = samples()
        sys.stdout.write("\033[H\033[2J")
        show(settings, COLUMNS, rates(before, after), asked)
        sys.stdout.flush()
        before = after
        time.sleep(every)


def samples() -> dict[str, tuple[str, Sample]]:
    """State and reading of every container that runs."""
    found = {}
    for row in known():
        name = str(row["name"])
        group = cgroup_of(name)
        if group:
            found[name] = (str(row["state"]), Sample(group, time.monotonic()))
    return found


def rates(before: dict[str, tuple[str, Sample]], after: dict[str, tuple[str, Sample]]) -> list[Row]:
    """A row per container; CPU is of one core, so two busy cores are 200 %."""
    rows: list[Row] = []
    for name, (state, now) in after.items():
        then = before[name][1] if name in before else now
        seconds = max(now.at - then.at, 1e-6)
        cpu = _rate(then.cpu_usec, now.cpu_usec, seconds)
        rows.append(
            {
                "name": name,
                "cpu_percent": None if cpu is None else round(cpu / 1e4, 1),
                "memory": now.memory,
                "memory_max": now.memory_max,
                "read_rate": _rate(then.read, now.read, seconds),
                "write_rate": _rate(then.wrote, now.wrote, seconds),
                "pids": now.pids,
                "state": state,
            }
        )
    return rows


def count_processes(group: str) -> int | None:
    """Where the pids controller is off: the processes of the cgroup and of those below it."""
    count = 0
    for directory, _, files in os.walk(group):
        if "cgroup.procs" in files:
            try:
                with open(f"{directory}/cgroup.procs") as file:
                    count += sum(1 for _ in file)
            except OSError:
                continue
    return count or None


def _rate(then: int | None, now: int | None, seconds: float) -> float | None:
    return None if then is None or now is None else max(0.0, (now - then) / seconds)


def _number(group: str, name: str) -> int | None:
    try:
        with open(f"{group}/{name}") as file:
            return int(file.read())
    except (OSError, ValueError):  # no such controller, or `max`
        return None


def _field(group: str, name: str, field: str) -> int | None:
    try:
        with open(f"{group}/{name}") as file:
            for line in file:
                key, _, value = line.partition(" ")
                if key == field:
                    return int(value)
    except (OSError, ValueError):
        return None
    return None


def _io(group: str) -> tuple[int | None, int | None]:
    """Bytes read and written, over all devices."""
    try:
        with open(f"{group}/io.stat") as file:
            words = [word.partition("=") for line in file for word in line.split()[1:]]
    except OSError:
        return None, None
    read = sum(int(value) for key, _, value in words if key == "rbytes")
    return read, sum(int(value) for key, _, value in words if key == "wbytes")


VERB = Verb(
    "CPU, memory, I/O and processes of what runs.",
    run,
    examples=("volt top", "volt top --no-stream --sort -memory", "volt top -o json"),
    options=(
        Option("--no-stream", help="one sample, then end; so it is where the output is no terminal"),
        Option("-n", "--interval", metavar="TIME", help="between two samples (2)"),
        *LIST,
    ),
    detail="CPU is of one core: two busy cores are 200 %. A dash: the host has that cgroup controller off.",
)
