"""What any user can know of containers without asking a daemon: systemd's units, and the launchers' files.

`/var/lib/volt/roots/NAME/state.json` is root's and world-readable; it outlives the run it tells of.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row, Value

ROOTS = "/var/lib/volt/roots"
PREFIX, SUFFIX = "volt-container@", ".service"
_STATES = {"active": "running", "reloading": "running", "activating": "starting", "deactivating": "stopping"}


def unit_of(name: str) -> str:
    return f"{PREFIX}{name}{SUFFIX}"


def known(roots: str = ROOTS, bus: str = "", *, stopped: bool = False) -> list[Row]:
    """A row per container that runs; with `stopped`, of those too that have a root directory.
    Raises Unreachable when systemd can't be asked."""
    from volt.systembus import list_units

    active: dict[str, str] = {}
    for unit in list_units([f"{PREFIX}*{SUFFIX}"], bus):
        name = unit.name.removeprefix(PREFIX).removesuffix(SUFFIX)
        state = _STATES.get(unit.active)
        if state:
            active[name] = "paused" if state == "running" and frozen(name) else state
    names = set(active)
    if stopped:
        names |= set(root_names(roots))
    rows = []
    for name in sorted(names):
        found = state_of(name, roots)
        now = active.get(name, "")
        if now in ("running", "stopping") and found.get("ended_at"):
            now = ""  # its run is over; systemd tidies the unit up
        if now or stopped:
            rows.append(row(name, now, found))
    return rows


def root_names(roots: str = ROOTS) -> list[str]:
    """Containers that have ever started and are not deleted; none where the directory can't be listed."""
    try:
        return [name for name in os.listdir(roots) if not name.startswith(".")]
    except OSError:
        return []


def state_of(name: str, roots: str = ROOTS) -> Row:
    """What the launcher wrote down; empty before the first start, or while it can't be read."""
    try:
        with open(f"{roots}/{name}/state.json", "rb") as file:
            text = file.read(1 << 20)
    except OSError:
        return {}
    import json

    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def row(name: str, active: str, state: Row) -> Row:
    """One line of `volt ps`. `active` is empty when no unit runs it."""
    ended = state.get("exit")
    exit = ended if isinstance(ended, dict) and not active else None
    failed = exit is not None and exit.get("reason") == "start-failure"
    return {
        "name": name,
        "state": active or ("failed" if failed else "stopped"),
        "image": state.get("image", ""),
        "tree": state.get("tree", ""),
        "started_at": state.get("started_at") or "",
        "ready_at": state.get("ready_at") or "",
        "ended_at": "" if active else state.get("ended_at") or "",
        "exit": exit,
        "restarts": state.get("restarts") or 0,
        "id_base": state.get("id_base") or 0,
    }


def status_text(found: Row, now: float) -> str:
    """`up 3m`, `exit 1, 2h ago`, `killed by SIGKILL (oom), 5m ago`."""
    from volt.output import span_text

    if found["state"] in ("running", "paused", "starting", "stopping"):
        since = seconds_of(found.get("started_at"))
        return f"up {span_text(now - since)}" if since else ""
    exit = found.get("exit")
    if not isinstance(exit, dict):
        return "never started" if not found.get("started_at") else ""
    since = seconds_of(found.get("ended_at") or exit.get("at"))
    ago = f", {span_text(now - since)} ago" if since else ""
    reason, signal = exit.get("reason"), exit.get("signal")
    if reason == "start-failure":
        return f"could not start{ago}"
    if reason == "oom":
        return f"out of memory{ago}"
    if signal:
        return f"{signal_name(signal)}{ago}"
    return f"exit {exit.get('code', '?')}{ago}"


def signal_name(number: Value) -> str:
    import signal

    try:
        return signal.Signals(int(str(number))).name
    except ValueError:
        return f"signal {number}"


def seconds_of(text: Value) -> float:
    """Seconds since 1970 of an RFC 3339 time in UTC; 0 for none. `datetime` would cost 3 ms."""
    if not isinstance(text, str) or len(text) < 19:
        return 0.0
    try:
        year, month, day = int(text[0:4]), int(text[5:7]), int(text[8:10])
        clock = int(text[11:13]) * 3600 + int(text[14:16]) * 60 + int(text[17:19])
    except ValueError:
        return 0.0
    # Days since 1970 with the year starting in March: http://howardhinnant.github.io/date_algorithms.html
    year -= month <= 2
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day - 719469
    return float(days * 86400 + clock)


def cgroup_of(name: str) -> str:
    """The cgroup of a container's unit; empty where there is none. A host that still has version 1 keeps
    systemd's own tree beside the controllers'."""
    for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"):
        path = f"{top}/volt.slice/volt-containers.slice/{unit_of(name)}"
        if os.path.isdir(path):
            return path
    return ""


def frozen(name: str) -> bool:
    """Paused: the kernel has stopped every process of the payload, whose group the launcher makes."""
    try:
        with open(f"{cgroup_of(name)}/box/payload/cgroup.events") as file:
            return "frozen 1" in file.read()
    except OSError:
        return False
