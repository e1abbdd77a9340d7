"""`volt security status`: what confines Volt's daemons here, as the kernel and systemd tell it."""

from __future__ import annotations

import subprocess

from volt.options import Asked, Verb
from volt.output import Column, show
from volt.settings import Settings
from volt_common import landlock
from volt_common.errors import MissingDependency, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row

PROPERTIES = ("Id", "ActiveState", "MainPID", "User", "NoNewPrivileges", "ProtectSystem", "CapabilityBoundingSet")
_SECCOMP = {"0": "no", "1": "strict", "2": "yes"}

COLUMNS = (
    Column("name", "DAEMON"),
    Column("state"),
    Column("user"),
    Column("capabilities"),
    Column("no_new_privileges", "NO NEW PRIVILEGES"),
    Column("seccomp"),
    Column("protect_system", "FILE SYSTEM", wide=True),
    Column("pid", wide=True, right=True),
)


def run(asked: Asked, settings: Settings) -> int:
    rows = [daemon(properties) for properties in shown(systemctl())]
    if not settings.structured and settings.output != "name" and not settings.quiet:
        print(f"Landlock on this kernel: {landlock.enforceable(landlock.abi())}")
    show(settings, COLUMNS, rows, asked)
    return 0


def systemctl() -> str:
    """Properties of the daemons' units. Raises Unreachable, MissingDependency."""
    command = ["systemctl", "show", "--no-pager", "--all", f"--property={','.join(PROPERTIES)}", "volt-*d.service"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MissingDependency(what="systemctl", hint="Volt needs a host with systemd.") from None
    if result.returncode:
        raise Unreachable(result.stderr.strip() or "systemctl failed", daemon="systemd")
    return result.stdout


def shown(text: str) -> list[dict[str, str]]:
    """The blocks of `systemctl show`."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n")]
    return [block for block in blocks if block.get("Id")]


def daemon(properties: dict[str, str]) -> Row:
    """What holds for a daemon: of its process where it runs, else what its unit will have systemd do."""
    pid = int(properties.get("MainPID") or 0)
    status = process(pid) if pid else {}
    told = properties.get("CapabilityBoundingSet", "").upper()
    return {
        "name": properties["Id"].removesuffix(".service"),
        "state": "running" if pid else "idle" if properties.get("ActiveState") == "inactive" else "failed",
        "user": properties.get("User") or "root",
        "capabilities": told or "none",
        "no_new_privileges": status.get("NoNewPrivs", properties.get("NoNewPrivileges")) in ("1", "yes"),
        "seccomp": _SECCOMP.get(status.get("Seccomp", ""), "when it runs"),
        "protect_system": properties.get("ProtectSystem", ""),
        "pid": pid or None,
    }


def process(pid: int) -> dict[str, str]:
    """/proc/PID/status, which any user may read unless it is hidden."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}
    except OSError:
        return {}


VERB = Verb(
    "What confines the daemons: user, capabilities, system calls, Landlock.",
    run,
    examples=("volt security status", "volt security status -o wide"),
)
