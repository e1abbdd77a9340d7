"""systemd over D-Bus, for daemons: start, stop and kill units, read their states, hear of changes.

Interface: org.freedesktop.systemd1(5). What a caller may do is polkit's to say; a refusal is Denied. A restart of the
bus or of systemd itself is waited out; a start whose outcome can't be learned after it ends in Unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final

from volt_common.dbus import CALL_SECONDS, Bus, Lost, NotThere, Refused, Signal
from volt_common.errors import (
    Conflict,
    Denied,
    Exhausted,
    Invalid,
    NotFound,
    TimedOut,
    Unknown,
    Unreachable,
    VoltError,
)
from volt_common.unit import UnitState, escape, has_ended, state_of, unescape

__all__ = ["JobFailed", "Property", "Systemd", "UnitState", "has_ended"]

SERVICE: Final = "org.freedesktop.systemd1"
MANAGER: Final = "/org/freedesktop/systemd1"
UNITS: Final = f"{MANAGER}/unit/"
_MANAGER: Final = f"{SERVICE}.Manager"
_UNIT: Final = f"{SERVICE}.Unit"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_ATTEMPTS: Final = 3  # of a call that may be repeated

Property = tuple[str, tuple[str, object]]
"""A property to set: its name, and its value with its D-Bus signature, e.g. `("MemoryMax", ("t", 1 << 30))`."""


class JobFailed(VoltError):
    """{message}"""


class _Job:
    """A job that somebody waits for."""

    def __init__(self, verb: str, unit: str, id: int) -> None:
        self.verb = verb
        self.unit = unit
        self.id = id
        self.result: asyncio.Future[str] = asyncio.get_running_loop().create_future()


class Systemd:
    """One connection, for all of a daemon. Units whose name does not begin with `prefix` make no signals."""

    def __init__(
        self, address: str = "SYSTEM", *, prefix: str = "volt-", on_resync: Callable[[], None] | None = None
    ) -> None:
        """`on_resync` is called when signals may have been lost; `signals` and `wait` see to themselves."""
        self._prefix = prefix
        self._on_resync = on_resync
        self._bus = Bus(address, SERVICE, _matches(), self._heard, self._greet)
        self._connected = False
        self._jobs: list[_Job] = []
        self._asking = 0  # job calls under way
        self._ended: dict[int, str] = {}  # results of jobs that ended before their call's answer was looked at
        self._watchers: defaultdict[str, set[asyncio.Queue[UnitState | None]]] = defaultdict(set)
        self._settling: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        """Raises Unreachable."""
        try:
            await self._bus.connect()
        except NotThere as error:
            raise _unreachable(str(error)) from None

    async def close(self) -> None:
        for task in self._settling:
            task.cancel()
        await self._bus.close()

    # -- jobs

    async def start(self, unit: str) -> None:
        """Returns when the start job is done: a service is ready, a oneshot has ended. Raises NotFound, Denied,
        Conflict (another job came between), TimedOut, JobFailed."""
        await self._run_job("start", "StartUnit", unit)

    async def stop(self, unit: str) -> None:
        """Returns when it has ended. Raises as `start`; NotFound for one that does not exist."""
        await self._run_job("stop", "StopUnit", unit)

    async def _run_job(self, verb: str, member: str, unit: str) -> None:
        self._asking += 1
        try:
            try:
                path = (await self._manager(member, "ss", unit, "replace", again=verb == "stop"))[0]
                job = _Job(verb, unit, _job_id(str(path)))
            except Lost:
                state = await self.properties(unit)
                if not state.job and has_ended(state):
                    raise Unknown(what=f"the {verb} of {unit}") from None
                job = _Job(verb, unit, state.job)
                self._settle_soon(job)
            self._jobs.append(job)
            if job.id in self._ended:
                job.result.set_result(self._ended[job.id])
        finally:
            self._asking -= 1
            if not self._asking:
                self._ended.clear()
        try:
            _judge(job, await job.result)
        finally:
            self._jobs.remove(job)

    async def kill(self, unit: str, who: str, signal: int) -> None:
        """Send a signal to `main`, `control` or `all` processes of a unit. Raises NotFound, Denied."""
        await self._manager("KillUnit", "ssi", unit, who, signal)

    async def reset_failed(self, unit: str) -> None:
        """Forget that it failed. Raises NotFound (not loaded), Denied."""
        await self._manager("ResetFailedUnit", "s", unit, again=True)

    async def set_properties(self, unit: str, properties: Sequence[Property], *, runtime: bool = True) -> None:
        """Change a loaded unit; until the next boot, or for good. Raises NotFound, Denied, Invalid."""
        await self._manager("SetUnitProperties", "sba(sv)", unit, runtime, list(properties), again=True)

    # -- states

    async def properties(self, unit: str) -> UnitState:
        """Of any unit, loaded or not; `load` is "not-found" if there is no such file. Raises Unreachable, TimedOut."""
        body = await self._call(UNITS + escape(unit), _PROPERTIES, "GetAll", "s", "", unit=unit, again=True)
        return state_of(unit, body[0])

    async def list_units(self, patterns: Sequence[str]) -> list[UnitState]:
        """The loaded units whose names match one of the shell patterns, by name."""
        rows = (await self._manager("ListUnitsByPatterns", "asas", [], list(patterns), again=True))[0]
        found = [UnitState(name=row[0], load=row[2], active=row[3], sub=row[4], job=row[7]) for row in rows]
        return sorted(found, key=lambda state: state.name)

    async def wait(self, unit: str, until: Callable[[UnitState], bool] = has_ended) -> UnitState:
        """The first state that `until` accepts; at once if it is so now."""
        with self._watching(unit) as changes:
            state = await self.properties(unit)
            while not until(state):
                change = await changes.get()
                if change is not None and not change.load and not await self.list_units([unit]):
                    state = change  # reading its properties would load and unload it, which is a change again
                else:
                    state = await self.properties(unit)
            return state

    async def wait_ended(self, unit: str) -> None:
        """Returns when nothing of it runs. As `wait`, without asking for a unit's properties: there are hundreds,
        which take systemd and this process several times as long as a row of a list."""
        with self._watching(unit) as changes:
            while any(not has_ended(state) for state in await self.list_units([unit])):
                change = await changes.get()
                while change is not None and change.load and not has_ended(change):
                    change = await changes.get()

    async def signals(self) -> AsyncIterator[UnitState]:
        """Every change of a unit with our prefix, from the first `anext` on; load is "" for one that was unloaded.
        Where changes may have been missed, each unit's present state comes instead."""
        known: set[str] = set()
        with self._watching("") as changes:
            while True:
                change = await changes.get()
                states = [change] if change is not None else await self._all(known)
                for state in states:
                    (known.add if state.load else known.discard)(state.name)
                    yield state

    async def _all(self, known: set[str]) -> list[UnitState]:
        """What is loaded now, and what of `known` is no longer."""
        loaded = await self.list_units([f"{self._prefix}*"])
        gone = known - {state.name for state in loaded}
        return [UnitState(name=name) for name in sorted(gone)] + loaded

    # -- what systemd says of its own accord

    async def _greet(self) -> None:
        with contextlib.suppress(Refused):  # AlreadySubscribed
            await self._bus.call_now(MANAGER, _MANAGER, "Subscribe")
        if not self._connected:
            self._connected = True
            return
        for job in self._jobs:
            self._settle_soon(job)
        for changes in self._watchers.values():
            for queue in changes:
                queue.put_nowait(None)
        if self._on_resync is not None:
            self._on_resync()

    def _heard(self, signal: Signal) -> None:
        match signal.member, signal.body:
            case "JobRemoved", (int(id), str(), str(unit), str(result)):
                if self._asking:
                    self._ended[id] = result
                for job in self._jobs:
                    if job.id == id and not job.result.done():
                        job.result.set_result(result)
                self._changed(unit, None)
            case "UnitRemoved", (str(unit), str()):
                self._changed(unit, UnitState(name=unit))
            case "PropertiesChanged", (str(interface), dict(values), list()):
                if interface == _UNIT and signal.path.startswith(UNITS) and "ActiveState" in values:
                    unit = unescape(signal.path.removeprefix(UNITS))
                    self._changed(unit, state_of(unit, {"LoadState": ("s", "loaded"), **values}))

    def _changed(self, unit: str, state: UnitState | None) -> None:
        for changes in self._watchers.get(unit, ()):
            changes.put_nowait(state)
        if state is not None and unit.startswith(self._prefix):
            for changes in self._watchers.get("", ()):
                changes.put_nowait(state)

    @contextlib.contextmanager
    def _watching(self, unit: str) -> Iterator[asyncio.Queue[UnitState | None]]:
        """Changes of a unit, or of all (""); None: look yourself, something may have been missed."""
        queue: asyncio.Queue[UnitState | None] = asyncio.Queue()
        self._watchers[unit].add(queue)
        try:
            yield queue
        finally:
            self._watchers[unit].discard(queue)
            if not self._watchers[unit]:
                del self._watchers[unit]

    def _settle_soon(self, job: _Job) -> None:
        task = asyncio.get_running_loop().create_task(self._settle(job))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, job: _Job) -> None:
        """Learn from its unit how a job ended whose end may have been missed."""
        try:
            state = await self.wait(job.unit, lambda state: state.job != job.id or not job.id)
            if not job.result.done():
                wanted = ("active", "reloading") if job.verb == "start" else ("inactive", "failed")
                oneshot = job.verb == "start" and state.active == "inactive" and state.result == "success"
                job.result.set_result("done" if state.active in wanted or oneshot else "failed")
        except VoltError as error:
            if not job.result.done():
                job.result.set_exception(error)

    # -- calls

    async def _manager(self, member: str, signature: str, *arguments: object, again: bool = False) -> Any:
        unit = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        return await self._call(MANAGER, _MANAGER, member, signature, *arguments, unit=unit, again=again)

    async def _call(
        self, path: str, interface: str, member: str, signature: str, *arguments: object, unit: str, again: bool
    ) -> Any:
        """With `again` repeated if the connection is lost; else Lost for StartUnit, Unknown for the rest."""
        for _ in range(_ATTEMPTS):
            try:
                return await self._bus.call(path, interface, member, signature, *arguments)
            except Refused as error:
                raise _mapped(error, unit) from None
            except NotThere as error:
                raise _unreachable(str(error)) from None
            except TimeoutError:
                raise TimedOut(what=f"systemd's answer to {member}", seconds=int(CALL_SECONDS)) from None
            except Lost:
                if member == "StartUnit":
                    raise
                if not again:
                    raise Unknown(what=f"{member} of {unit}") from None
        raise _unreachable("the connection breaks again and again")


def _matches() -> tuple[str, ...]:
    manager = f"interface='{_MANAGER}',path='{MANAGER}'"
    return (
        f"{manager},member='JobRemoved'",
        f"{manager},member='UnitRemoved'",
        f"interface='{_PROPERTIES}',member='PropertiesChanged',arg0='{_UNIT}'",
    )


def _judge(job: _Job, result: str) -> None:
    """Raise what a job's result means (systemd's job_result_to_string)."""
    hint = f"journalctl -u {job.unit} says why"
    match result:
        case "done" | "skipped":
            return
        case "canceled":
            raise Conflict(f"the {job.verb} of {job.unit} was cancelled by a later request")
        case "timeout":
            raise TimedOut(f"the {job.verb} of {job.unit} took too long", hint=hint)
        case "dependency":
            raise JobFailed(f"{job.unit} needs a unit that failed", hint=hint, unit=job.unit, result=result)
        case _:
            raise JobFailed(f"the {job.verb} of {job.unit} failed", hint=hint, unit=job.unit, result=result)


def _unreachable(why: str) -> Unreachable:
    return Unreachable(why, daemon="systemd", hint="this host does not run systemd, or its D-Bus is not up")


_KINDS: Final = {
    "AccessDenied": Denied,
    "AuthFailed": Denied,
    "InteractiveAuthorizationRequired": Denied,
    "InvalidArgs": Invalid,
    "BadUnitSetting": Invalid,
    "PropertyReadOnly": Invalid,
    "UnitMasked": Conflict,
    "UnitExists": Conflict,
    "OnlyByDependency": Conflict,
    "TransactionIsDestructive": Conflict,
    "TransactionJobsConflicting": Conflict,
    "TransactionOrderIsCyclic": Conflict,
    "JobTypeNotApplicable": Conflict,
    "ShuttingDown": Conflict,
}


def _mapped(error: Refused, unit: str) -> VoltError:
    match short := error.name.rpartition(".")[2]:
        case "NoSuchUnit" | "UnknownObject":
            return NotFound(kind="unit", name=unit)
        case "NoSuchProcess":
            return NotFound(kind="process of unit", name=unit)
        case "Timeout" | "TimedOut":
            return TimedOut(f"systemd: {error.text}")
        case "ServiceUnknown" | "NameHasNoOwner" | "Disconnected":
            return _unreachable(error.text)
        case "LimitsExceeded" | "NoMemory":
            return Exhausted(error.text, resource="room in systemd or on its bus")
    return _KINDS.get(short, VoltError)(f"{unit}: {error.text or error.name}")


def _job_id(path: str) -> int:
    return int(path.rpartition("/")[2])
