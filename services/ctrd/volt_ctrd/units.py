"""The three kinds of unit that ctrd starts and stops, and what systemd says of them.

polkit lets ctrd start, stop, kill and reset instances of these templates, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import re
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from volt_common.errors import NotFound, VoltError
from volt_common.systemd import Systemd, UnitState

CGROUPS: Final = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")  # on a hybrid host, and elsewhere

SLICE: Final = "volt.slice/volt-containers.slice"

_CONTAINER: Final = re.compile(r"volt-container@([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)\.service\Z")


class Phase(enum.Enum):
    """What matters of a unit's state."""

    INACTIVE = "inactive"
    STARTING = "starting"
    ACTIVE = "active"
    STOPPING = "stopping"


_PHASES: Final = {
    "active": Phase.ACTIVE,
    "reloading": Phase.ACTIVE,
    "refreshing": Phase.ACTIVE,
    "activating": Phase.STARTING,
    "deactivating": Phase.STOPPING,
    "maintenance": Phase.STOPPING,
    "inactive": Phase.INACTIVE,
    "failed": Phase.INACTIVE,
}


class Unit(msgspec.Struct, frozen=True):
    """A unit as it is now. `result` is systemd's word for how it ended ("success", "exit-code", …)."""

    name: str
    phase: Phase = Phase.INACTIVE
    failed: bool = False
    result: str = ""
    frozen: bool = False


def container_unit(name: str) -> str:
    return f"volt-container@{name}.service"


def op_unit(name: str, id: str) -> str:
    return f"volt-container-op@{name}-{id}.service"


def exec_unit(name: str, id: str) -> str:
    return f"volt-exec@{name}-{id}.service"


def container_of(unit: str) -> str | None:
    """The container that a unit runs; None for any other unit."""
    match = _CONTAINER.match(unit)
    return match[1] if match else None


def is_frozen(name: str, mounts: tuple[str, ...] = CGROUPS) -> bool:
    """Whether the launcher froze a container: systemd is not told, its control group knows."""
    for mount in mounts:
        path = f"{mount}/{SLICE}/{container_unit(name)}/box/payload/cgroup.freeze"
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            return file.read().strip() == "1"
    return False


def _unit(name: str, found: UnitState) -> Unit:
    phase = _PHASES.get(found.active, Phase.INACTIVE)
    container = container_of(name)
    frozen = phase is Phase.ACTIVE and container is not None and is_frozen(container)
    return Unit(name, phase, found.active == "failed", found.result, frozen)


class Units:
    """systemd, as far as ctrd may use it."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        self._stopping: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        await self._systemd.close()

    async def container(self, name: str) -> Unit:
        """The unit of a container. One that systemd has not loaded does not run; asking for its properties would
        load it, which takes systemd longer than everything else here."""
        unit = container_unit(name)
        found = await self._systemd.list_units([unit])
        return _unit(unit, found[0]) if found else Unit(unit)

    async def containers(self) -> dict[str, Unit]:
        """By container's name, those that systemd knows: the rest does not run."""
        found = {}
        for state in await self._systemd.list_units(["volt-container@*.service"]):
            name = container_of(state.name)
            if name is not None:
                found[name] = _unit(state.name, state)
        return found

    async def start(self, unit: str) -> None:
        """Returns when it runs, or, of an op, when it is done. Raises what systemd says."""
        await self._systemd.start(unit)

    async def stop(self, unit: str) -> None:
        """Returns when it has ended; one that has ended already is as good."""
        with contextlib.suppress(NotFound):
            await self._systemd.stop(unit)

    def stop_soon(self, unit: str) -> None:
        """Have it stopped without waiting."""

        async def stop() -> None:
            with contextlib.suppress(VoltError):
                await self.stop(unit)

        task = asyncio.get_running_loop().create_task(stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def kill(self, unit: str, number: int) -> None:
        """Send every process of it a signal."""
        await self._systemd.kill(unit, "all", number)

    async def wait_ended(self, unit: str) -> None:
        """Returns when it does not run, at once if that is so."""
        await self._systemd.wait_ended(unit)

    async def ended_within(self, unit: str, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.wait_ended(unit)
        except TimeoutError:
            return False
        return True

    async def changes(self) -> AsyncIterator[Unit]:
        """Units as they change, from now on."""
        async for state in self._systemd.signals():
            yield _unit(state.name, state)
