"""systemd's part, for tests without it: units that change as systemd's do, and a launcher that is a function.

It keeps what the real one promises: start returns when the job is done or raises, a stop that overtakes a start
fails it, signals come after the change.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from fnmatch import fnmatch
from typing import Any

from volt_common.errors import NotFound, VoltError
from volt_common.systemd import UnitState, has_ended
from volt_ctrd.files import Places
from volt_ctrd.units import container_of

STATE = {"version": 1, "started_at": "2026-01-01T00:00:00Z", "ready_at": None, "ended_at": None, "exit": None}


class FakeSystemd:
    """Starts containers that run until they are stopped, and ops that succeed, unless told otherwise."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.active: dict[str, str] = {}
        self.log: list[tuple[str, ...]] = []
        self.ops: list[dict[str, Any]] = []
        self.on_start: Callable[[str], Awaitable[None]] | None = None
        self.on_stop: Callable[[str], Awaitable[None]] | None = None
        self.op_result: dict[str, Any] = {"ok": True}
        self._changed = asyncio.Condition()
        self._queues: list[asyncio.Queue[UnitState]] = []

    async def close(self) -> None: ...

    # -- what ctrd calls

    async def start(self, unit: str) -> None:
        self.log.append(("start", unit))
        if unit.startswith("volt-container-op@"):
            self._op(unit)
            return
        await self.set(unit, "activating")
        if container_of(unit):
            self.record(unit, **STATE)
        if self.on_start is not None:
            await self.on_start(unit)
        if self.active.get(unit) == "activating":
            await self.set(unit, "active")
        elif container_of(unit) and unit not in self.active:
            raise VoltError(f"the job of {unit} failed")

    async def stop(self, unit: str) -> None:
        self.log.append(("stop", unit))
        if unit not in self.active:
            return
        await self.set(unit, "deactivating")
        if self.on_stop is not None:
            await self.on_stop(unit)
        async with self._changed:
            if self.on_stop is None:
                self._end(unit, 0, 0)
            await self._changed.wait_for(lambda: unit not in self.active)

    async def kill(self, unit: str, who: str, number: int) -> None:
        self.log.append(("kill", unit, who, str(number)))
        if unit not in self.active:
            raise NotFound(kind="unit", name=unit)
        await self.end(unit, 128 + number, number)

    async def properties(self, unit: str) -> UnitState:
        return self._state(unit)

    async def list_units(self, patterns: list[str]) -> list[UnitState]:
        return [self._state(unit) for unit in self.active if any(fnmatch(unit, pattern) for pattern in patterns)]

    async def wait_ended(self, unit: str) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: has_ended(self._state(unit)))

    async def signals(self) -> AsyncIterator[UnitState]:
        queue: asyncio.Queue[UnitState] = asyncio.Queue()
        self._queues.append(queue)
        while True:
            yield await queue.get()

    # -- what happens to units

    async def set(self, unit: str, active: str) -> None:
        async with self._changed:
            self._set(unit, active)

    async def end(self, unit: str, code: int, number: int = 0, reason: str = "exit", **more: Any) -> None:
        """The payload ends, as the launcher's `ended` records it."""
        async with self._changed:
            self._end(unit, code, number, reason, **more)

    def record(self, unit: str, **changes: Any) -> None:
        """Write root's state.json."""
        name = container_of(unit)
        with open(self.places.config(str(name)), encoding="utf-8") as file:
            config = json.load(file)
        os.makedirs(f"{self.places.roots}/{name}", exist_ok=True)
        path = self.places.root_state(str(name))
        before = {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                before = json.load(file)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(before | {"id": config["id"], "tree": config["tree"], "id_base": 524288} | changes, file)

    def _end(self, unit: str, code: int, number: int, reason: str = "exit", **more: Any) -> None:
        if container_of(unit):
            exit = {"code": code, "signal": number, "reason": "signal" if number else reason, "message": ""}
            self.record(unit, ended_at="2026-01-01T00:01:00Z", exit=exit | more)
        self._set(unit, "inactive")

    def _set(self, unit: str, active: str) -> None:
        if active == "inactive":
            self.active.pop(unit, None)
        else:
            self.active[unit] = active
        self._changed.notify_all()
        for queue in self._queues:
            queue.put_nowait(self._state(unit))

    def _op(self, unit: str) -> None:
        name, _, id = unit.removeprefix("volt-container-op@").removesuffix(".service").rpartition("-")
        with open(self.places.op(name, id), encoding="utf-8") as file:
            request = json.load(file)
        self.ops.append(request)
        if self.op_result["ok"] and request["op"] == "delete" and os.path.exists(self.places.root_state(name)):
            os.unlink(self.places.root_state(name))
            os.rmdir(f"{self.places.roots}/{name}")
        with open(self.places.op_result(name, id), "w", encoding="utf-8") as file:
            json.dump(self.op_result, file)
        if not self.op_result["ok"]:
            raise VoltError(f"the job of {unit} failed")

    def _state(self, unit: str) -> UnitState:
        return UnitState(name=unit, load="loaded", active=self.active.get(unit, "inactive"))
