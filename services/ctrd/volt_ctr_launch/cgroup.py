"""Control groups of a container's unit.

volt-container@NAME.service     systemd's, delegated
├── relay                       what copies its streams, outside its limits
├── box                         the limits, and memory.events
│   ├── supervisor              nspawn (it makes this and the next)
│   └── payload                 the container
│       └── exec-ID             a command that was run in it
└── .control                    stop and ended, made by systemd
"""

from __future__ import annotations

import contextlib
import os

from volt_ctr_launch.config import Resources
from volt_ctr_launch.errors import Refusal

_ROOT = "/sys/fs/cgroup"
_PERIOD = 100_000  # µs, cpu.max
_HINT = "this host's cgroup has no such controller: boot with systemd.unified_cgroup_hierarchy=1"


def mount_point() -> str:
    """Where cgroup v2 is mounted: hybrid hosts have it one level down."""
    return _ROOT if os.path.exists(f"{_ROOT}/cgroup.controllers") else f"{_ROOT}/unified"


def of_process(pid: int | str) -> str:
    """The directory of a process's group."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.startswith("0::/"):
                return mount_point() + line[3:].rstrip("\n").rstrip("/")
    raise Refusal("MISSING_DEPENDENCY", "this host has no cgroup v2")


def of_unit() -> str:
    """The delegated group of the unit that this launcher runs in."""
    own = of_process("self")
    head, _, last = own.rpartition("/")
    return head if last in ("box", "relay", ".control") else own


def of_container(name: str) -> str:
    """The group of a container's unit, for launchers that run in another; its template names the slice."""
    return f"{mount_point()}/volt.slice/volt-containers.slice/volt-container@{name}.service"


def enter(group: str) -> None:
    """Move this process."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(group)
    _write(f"{group}/cgroup.procs", "0")


def prepare(unit: str, resources: Resources) -> None:
    """Make `box` and `relay`, set the limits and enter `box`. Raises Refusal for a limit that can't be set."""
    for group in ("relay", "box"):
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{unit}/{group}")
    enter(f"{unit}/box")
    for controller in _read(f"{unit}/cgroup.controllers").split():
        with contextlib.suppress(OSError):  # cpu while a realtime process is about (sched_setscheduler)
            _write(f"{unit}/cgroup.subtree_control", f"+{controller}")
    apply(f"{unit}/box", resources)


def apply(box: str, resources: Resources) -> None:
    """Set what was asked for, and lift the rest."""
    cpu = None if resources.cpu_percent is None else f"{resources.cpu_percent * _PERIOD // 100} {_PERIOD}"
    _limit(box, "memory.high", resources.memory_high, "max")
    _limit(box, "memory.max", resources.memory_max, "max")
    # Without this, a limit of memory is one of memory and any amount of swap.
    if resources.memory_max is not None and os.path.exists(f"{box}/memory.swap.max"):
        _write(f"{box}/memory.swap.max", "0")
    _limit(box, "cpu.max", cpu, f"max {_PERIOD}")
    _limit(box, "cpu.weight", resources.cpu_weight, "100")
    _limit(box, "pids.max", resources.pids_max, "max", required=False)


def _limit(box: str, file: str, value: int | str | None, none: str, *, required: bool = True) -> None:
    path = f"{box}/{file}"
    if not os.path.exists(path):
        if value is not None and required:
            raise Refusal("MISSING_DEPENDENCY", f"{file} can't be limited: {_HINT}")
        return
    try:
        _write(path, none if value is None else str(value))
    except OSError as error:
        raise Refusal("INVALID", f"{file} may not be {value}: {error.strerror}") from None


def oom_kills(box: str) -> int:
    """How many of its processes the kernel killed for want of memory."""
    try:
        events = dict(line.split() for line in _read(f"{box}/memory.events").splitlines())
    except (FileNotFoundError, ValueError):
        return 0
    return int(events.get("oom_kill", "0"))


def freeze(group: str, frozen: bool) -> None:
    """Stop or continue every process of a group."""
    _write(f"{group}/cgroup.freeze", "1" if frozen else "0")


def is_frozen(group: str) -> bool:
    """Whether it was asked to be."""
    with contextlib.suppress(FileNotFoundError):
        return _read(f"{group}/cgroup.freeze").strip() == "1"
    return False


def kill(group: str) -> None:
    """Kill every process of a group and below (cgroup.kill, Linux 5.14)."""
    with contextlib.suppress(FileNotFoundError):
        _write(f"{group}/cgroup.kill", "1")


def is_empty(group: str) -> bool:
    """Whether no process is in it or below it."""
    try:
        return "populated 0" in _read(f"{group}/cgroup.events")
    except FileNotFoundError:
        return True


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
