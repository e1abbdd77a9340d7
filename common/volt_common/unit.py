"""What systemd says of a unit, and how a unit's name becomes its object's path."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec


class UnitState(msgspec.Struct, frozen=True, kw_only=True):
    """A unit as systemd has it, in systemd's own words. `list_units` and `signals` fill only the first line of
    fields. A unit that is not loaded, or never was, is inactive and dead."""

    name: str
    load: str = ""
    active: str = "inactive"
    sub: str = "dead"
    job: int = 0  # the id of the job that is queued for it; 0: none

    result: str = ""
    main_pid: int = 0
    exec_main_code: int = 0  # CLD_EXITED, CLD_KILLED, CLD_DUMPED; 0 before the end
    exec_main_status: int = 0  # exit status, or signal
    active_enter_ns: int = 0  # since 1970
    inactive_enter_ns: int = 0
    invocation_id: str = ""  # hex
    control_group: str = ""
    status_text: str = ""


def has_ended(state: UnitState) -> bool:
    """Nothing of it runs."""
    return state.active in ("inactive", "failed")


_FIELDS: Final = {
    "load": "LoadState",
    "active": "ActiveState",
    "sub": "SubState",
    "job": "Job",
    "result": "Result",
    "main_pid": "MainPID",
    "exec_main_code": "ExecMainCode",
    "exec_main_status": "ExecMainStatus",
    "active_enter_ns": "ActiveEnterTimestamp",
    "inactive_enter_ns": "InactiveEnterTimestamp",
    "invocation_id": "InvocationID",
    "control_group": "ControlGroup",
    "status_text": "StatusText",
}


def state_of(unit: str, values: dict[str, tuple[str, Any]]) -> UnitState:
    """From properties as D-Bus gives them; one that this systemd does not have keeps its default."""
    found = {name: values[name][1] for name in _FIELDS.values() if name in values}
    fields = {field: found[name] for field, name in _FIELDS.items() if name in found}
    if "job" in fields:
        fields["job"] = fields["job"][0]
    if "invocation_id" in fields:
        fields["invocation_id"] = bytes(fields["invocation_id"]).hex()
    for field in ("active_enter_ns", "inactive_enter_ns"):
        fields[field] = fields.get(field, 0) * 1000
    return msgspec.convert({"name": unit, **fields}, UnitState)


def escape(unit: str) -> str:
    """A unit's name as the last part of its object's path: all but letters and digits as `_` and two hex digits."""
    keep = re.compile(rb"[A-Za-z0-9]")
    parts = [bytes([byte]) for byte in unit.encode()]
    return "".join(
        part.decode() if keep.match(part) and not (index == 0 and part.isdigit()) else f"_{part.hex()}"
        for index, part in enumerate(parts)
    )


def unescape(part: str) -> str:
    """What `escape` was given."""
    return re.sub(r"_([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), part)
