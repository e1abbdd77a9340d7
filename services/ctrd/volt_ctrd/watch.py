"""Events that systemd knows first: a container's start, its readiness, its end."""

from __future__ import annotations

import contextlib

from volt_common.errors import VoltError
from volt_ctrd.events import Events, transition
from volt_ctrd.lifecycle import Lifecycle
from volt_ctrd.units import Phase, Units, container_of


async def watch(units: Units, containers: Lifecycle, events: Events) -> None:
    """Publish them until cancelled."""
    seen: dict[str, Phase] = {name: unit.phase for name, unit in (await units.containers()).items()}
    async for unit in units.changes():
        name = container_of(unit.name)
        if name is None:
            continue
        for type in transition(seen.get(name), unit.phase):
            await _publish(containers, events, type, name)
        seen[name] = unit.phase
        if unit.phase is Phase.INACTIVE:
            del seen[name]


async def _publish(containers: Lifecycle, events: Events, type: str, name: str) -> None:
    detail: dict[str, str] = {}
    if type == "exit":
        with contextlib.suppress(VoltError):  # deleted meanwhile: the event comes without details
            exit = await containers.last_exit(name)
            if exit is not None:
                detail = {"code": str(exit.code), "signal": str(exit.signal), "reason": exit.reason}
                if exit.reason == "oom":
                    events.publish("oom", name)
    events.publish(type, name, **detail)
