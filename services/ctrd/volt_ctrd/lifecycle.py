"""What happens to a container from create to delete. Nothing is remembered here that a restart would lose:
files say what a container is, systemd says whether it runs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

from volt_common import durable
from volt_common.api import cas, ctr
from volt_common.errors import AlreadyExists, Conflict, Exhausted, Invalid, NotFound, VoltError, of_code
from volt_common.failpoint import point
from volt_ctrd import config as configs
from volt_ctrd import homes, names, ops, precheck, state
from volt_ctrd.attendants import Attendant
from volt_ctrd.claims import Claims
from volt_ctrd.config import Config
from volt_ctrd.events import Events
from volt_ctrd.files import Places, RootState, Running, load
from volt_ctrd.files import names as all_names
from volt_ctrd.handover import Offer
from volt_ctrd.images import Image, Store
from volt_ctrd.units import Phase, Unit, Units, container_unit

log = logging.getLogger("volt")

KEPT_EXITS: Final = 1024
KEPT_IMAGES: Final = 1024
TIDY_SECONDS: Final = 10.0  # what systemd has for a unit after its last process, at most
RESERVED: Final = ("op",)  # /run/volt-launch/op holds the results of ops

T = TypeVar("T")


async def completed(work: Coroutine[Any, Any, T]) -> T:
    """Do to its end what must not be half done. If it took effect, that is the answer, also to a caller that has
    gone meanwhile: it may come back with the same id."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        return task.result()


def _not_found(name: str) -> NotFound:
    return NotFound(kind="container", name=name, hint="volt ps -a shows those that are here")


class Lifecycle:
    """Every container of this host."""

    def __init__(self, places: Places, units: Units, store: Store, events: Events) -> None:
        self._places = places
        self._units = units
        self._store = store
        self._events = events
        self._claims = Claims()
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._attendants: dict[str, Attendant] = {}  # of the last runs with a caller's streams, since this ctrd started
        self._images: set[str] = set()  # that were found, with their views, when they were last asked for
        self._tidying: dict[str, asyncio.Task[None]] = {}  # after deletes that are answered
        self._exits: dict[str, ctr.Exit] = {}  # of containers that are gone, for who waits for them

    @property
    def busy(self) -> bool:
        """Whether something goes on, or will have to be done, that no caller waits for."""
        return bool(self._removals or self._tidying) or self._claims.any

    # -- the life of this object

    async def recover(self) -> None:
        """After a start of ctrd: clear away what was half made or half deleted, and mind containers that are
        to be deleted when they end."""
        for leftover in homes.leftovers(self._places):
            with contextlib.suppress(VoltError):  # the store does not answer: at the next start
                if not os.path.isdir(self._places.home(leftover.name)):
                    await self._store.release(leftover.name)
                await asyncio.to_thread(homes.clear, leftover)
        for config in self._readable():
            # One that was made to be run once is over if it does not run, whatever became of it meanwhile.
            begun = config.streams == configs.HANDOVER or self._record(config).started_at
            if config.remove and (begun or await self._up(config.name)):
                self._remove_when_ended(config.name)

    async def close(self) -> None:
        """Stop minding; the next ctrd takes over."""
        for task in self._removals.values():
            task.cancel()
        for attendant in self._attendants.values():
            attendant.dismiss()
        if self._tidying:
            await asyncio.wait(self._tidying.values())
        await self._store.close()

    # -- looking

    async def inspect(self, name: str, *, with_spec: bool = False) -> ctr.Container:
        """Raises NotFound, Invalid."""
        config = self.config(name)
        spec = configs.read_spec(self._places, name) if with_spec else None
        return self._joined(config, await self._units.container(name), spec)

    async def list(self) -> AsyncIterator[ctr.Container]:
        """By name. One that is damaged is listed as such: it can be deleted."""
        units = await self._units.containers()
        for name in all_names(self._places):
            unit = units.get(name) or Unit(container_unit(name))
            try:
                config = configs.read(self._places, name)
            except Invalid as error:
                yield state.damaged(name, unit, error.message)
                continue
            if config is not None:
                yield self._joined(config, unit, None)

    def config(self, name: str) -> Config:
        """Raises NotFound, Invalid (damaged)."""
        config = configs.read(self._places, name)
        if config is None:
            raise _not_found(name)
        return config

    async def must_run(self, name: str) -> None:
        """Raises Conflict unless commands can be run in it."""
        unit = await self._unit(self.config(name))
        if unit.phase is not Phase.ACTIVE or unit.frozen:
            raise Conflict(kind="container", name=name, state=state.state_of(unit, None).value)

    async def wait(self, name: str) -> ctr.Exit:
        """How the container's present or last run ended. Raises NotFound, Conflict (never started)."""
        exit = await self.last_exit(name) or await self._run_over(name) or await self.last_exit(name)
        if removal := self._removals.get(name):  # who waits for its end finds it gone
            await asyncio.wait({removal})
        if exit is None:
            raise Conflict(f"the container {name} was never started", hint=f"volt start {name}")
        return exit

    async def _run_over(self, name: str) -> ctr.Exit | None:
        """Returns when the present run is over: with its end, if its attendant tells it."""
        await self._claims.settled(name)  # a start that is under way brings one
        attendant = self._attendants.get(name)
        exit = await attendant.exit() if attendant else None
        if exit is None:
            await self._units.wait_ended(container_unit(name))
        return exit

    async def last_exit(self, name: str) -> ctr.Exit | None:
        """Of one that may have been deleted since. Raises NotFound."""
        if name in self._exits and not os.path.isdir(self._places.home(name)):
            return self._exits[name]
        return (await self.inspect(name)).exit

    # -- changing

    async def create(self, name: str | None, spec: ctr.Spec, uid: int) -> ctr.Container:
        """Raises AlreadyExists, NotFound (image), Invalid, Denied."""
        name = self._name_for(name, spec)
        async with self._store.asking():
            with self._claims.claim(name, "being created or deleted"):
                await self._must_be_free(name)
                config = await self._make(name, spec, uid, await self._find(spec.image), configs.JOURNAL)
        return self._joined(config, Unit(container_unit(name)), None)

    def _name_for(self, name: str | None, spec: ctr.Spec) -> str:
        """Checks what can be checked of a new container without looking anywhere."""
        precheck.check(spec, precheck.load(self._places.policy))
        name = name or names.made_up(self._taken, random.SystemRandom())
        if name in RESERVED:
            raise Invalid(f"the name {name} is Volt's own", hint="take another")
        return name

    async def _must_be_free(self, name: str) -> None:
        """Raises AlreadyExists."""
        if os.path.lexists(self._places.home(name)):
            raise AlreadyExists(kind="container", name=name, hint=f"volt rm {name}, or take another name")
        if earlier := self._tidying.get(name):  # it would let go of the new one's tree
            await asyncio.wait({earlier})

    async def _find(self, image: str) -> tuple[Image, cas.ViewReady]:
        """What is in the store. Making the view may take long."""
        self._images.discard(image)
        found = await self._store.resolve(image)
        view = await self._store.view(found.tree)
        if len(self._images) < KEPT_IMAGES:
            self._images.add(image)
        return found, view

    async def _make(
        self, name: str, spec: ctr.Spec, uid: int, found: tuple[Image, cas.ViewReady], streams: str
    ) -> Config:
        config = configs.of_spec(name, uid, spec, *found)
        await completed(self._publish(configs.with_streams(config, streams), spec))
        self._exits.pop(name, None)
        self._events.publish("create", name, image=spec.image)
        return config

    async def _publish(self, config: Config, spec: ctr.Spec) -> None:
        """From here on a crash leaves a `.new-` directory, so that the next ctrd lets the tree go."""
        try:
            with homes.staged(self._places, config.name) as stage:
                writing = asyncio.ensure_future(asyncio.to_thread(stage.write, config, spec))
                try:
                    await self._store.hold(config.name, config.tree)
                finally:
                    await asyncio.wait({writing})
                writing.result()
                await asyncio.to_thread(stage.publish)
        except OSError as error:
            await self._store.release(config.name)
            message = f"{error.strerror} in {self._places.containers}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Exhausted(message, resource="room on disk") from None
            raise VoltError(message) from error

    async def start(self, name: str) -> ctr.Container:
        """Raises NotFound, Conflict, and what the launcher refuses."""
        with self._claims.claim(name, "being started"):
            await self._begin(self.config(name), configs.JOURNAL)
        return await self.inspect(name)

    async def run(self, config: Config, streams: Callable[[], contextlib.AbstractContextManager[Offer]]) -> ctr.Running:
        """Start with the streams that are offered to the launcher inside `streams()`."""
        with self._claims.claim(config.name, "being started"), streams() as offer:
            await self._begin(config, configs.HANDOVER, offer)
        return self._running(config.name)

    async def run_new(
        self,
        name: str | None,
        spec: ctr.Spec,
        uid: int,
        streams: Callable[[str], contextlib.AbstractContextManager[Offer]],
    ) -> ctr.Running:
        """Create and start. systemd and the start of a launcher take longer than all that is done here, so that goes on
        meanwhile: the launcher waits for its streams till there is a configuration. `streams(name)` offers them."""
        name = self._name_for(name, spec)
        async with self._store.asking():
            with self._claims.claim(name, "being started"), streams(name) as offer:
                await self._must_be_free(name)  # before anything is begun that would have to be undone
                await self._must_rest(name)
                known = spec.image in self._images
                finding = asyncio.ensure_future(self._find(spec.image))
                if not known:  # it may well not be there, and then no unit is to fail
                    await finding
                starting = asyncio.ensure_future(self._units.start(container_unit(name)))
                try:
                    config = await self._make(name, spec, uid, await finding, configs.HANDOVER)
                    if (this := asyncio.current_task()) and this.cancelling():  # while that was done to its end
                        raise asyncio.CancelledError
                    offer.release()
                    await self._started(config, RootState(), asyncio.shield(starting), offer)
                except BaseException:
                    offer.release("the container could not be made")
                    await completed(self._undo(name, starting))
                    raise
        return self._running(name)

    async def _undo(self, name: str, starting: asyncio.Future[None]) -> None:
        """Nothing stays of a container that can't be run."""
        while not starting.done():  # systemd may not have heard of the start when it is asked for its end
            await self._end_unit(name)
            await asyncio.wait({starting}, timeout=0.1)
        await self._end_unit(name)
        if not starting.cancelled():
            starting.exception()  # it was told, or does not matter
        await self._must_rest(name)
        if os.path.isdir(self._places.home(name)):
            await self._delete(name)
            self._events.publish("delete", name)

    async def _end_unit(self, name: str) -> None:
        """Kill all that its unit has."""
        unit = await self._units.container(name)
        if unit.phase is not Phase.INACTIVE:
            with contextlib.suppress(NotFound):  # it ended by itself just now
                await self._units.kill(unit.name, signal.SIGKILL)
            await self._units.stop(unit.name)

    def _running(self, name: str) -> ctr.Running:
        running = load(self._places.running(name), Running)
        return ctr.Running(name, running.leader if running else 0)

    async def _begin(self, config: Config, streams: str, offer: Offer | None = None) -> None:
        name = config.name
        await self._must_rest(name)
        if attendant := self._attendants.pop(name, None):
            attendant.dismiss()
        if config.streams != streams:
            await completed(asyncio.to_thread(configs.set_streams, self._places, config, streams))
        before = self._record(config)
        point("start.before-unit")
        await self._started(config, before, self._units.start(container_unit(name)), offer)

    async def _started(
        self, config: Config, before: RootState, starting: Awaitable[None], offer: Offer | None = None
    ) -> None:
        """Wait for a start. `before` is what root's record said before it."""
        try:
            await starting
            point("start.after-unit")
            if offer is not None and (taken := offer.keep()) is not None:
                self._attendants[config.name] = Attendant(taken)
        except VoltError as error:
            self._explain_failure(config, before, error)
        finally:
            if config.remove:
                self._remove_when_ended(config.name)

    def _explain_failure(self, config: Config, before: RootState, error: VoltError) -> None:
        """Raise what the launcher wrote down, where it did, else what systemd said. A payload that ran and ended
        before its start was done was started all the same."""
        now = self._record(config)
        if now.exit is None or now == before:
            raise error
        if now.exit.reason == state.START_FAILURE:
            code = now.exit.error or Invalid.code
            fields: dict[str, str | int] = {"message": now.exit.message}
            if now.exit.code:
                fields["exit_code"] = now.exit.code
            raise of_code(code, now.exit.hint, fields) from error

    async def stop(self, name: str, seconds: int | None) -> ctr.Container:
        """Raises NotFound."""
        with self._exclusive_or_starting(name, "being stopped"):
            await self._end(self.config(name), seconds)
        return await self.inspect(name)

    async def restart(self, name: str, seconds: int | None) -> ctr.Container:
        """Raises NotFound, Conflict, and what the launcher refuses."""
        with self._claims.claim(name, "being restarted"):
            config = self.config(name)
            await self._end(config, seconds)
            await self._begin(config, configs.JOURNAL)
        return await self.inspect(name)

    def _exclusive_or_starting(self, name: str, doing: str) -> contextlib.AbstractContextManager[None]:
        """A stop may come between a start that hangs, which then fails; it waits for nobody else either, since
        systemd orders the jobs of one unit."""
        return contextlib.nullcontext() if self._claims.held(name) else self._claims.claim(name, doing)

    async def _end(self, config: Config, seconds: int | None) -> None:
        """Ask it to end; after `seconds` kill it. The unit's own stop sends the container's stop signal and waits
        the container's own time, so a longer time is waited out before the unit's stop."""
        unit = await self._units.container(config.name)
        if unit.phase is Phase.INACTIVE:
            return
        if unit.frozen:
            await self._op(config.name, ops.Request(op="resume"))
        patience = config.stop_seconds if seconds is None else seconds
        if patience > config.stop_seconds and unit.phase is Phase.ACTIVE:
            await self._op(config.name, ops.Request(op="signal", signal=config.stop_signal))
            if await self._units.ended_within(unit.name, patience):
                return
            patience = 0
        stopping = asyncio.ensure_future(self._units.stop(unit.name))
        try:
            if patience and (await asyncio.wait({stopping}, timeout=patience))[0]:
                await stopping
                return
            with contextlib.suppress(NotFound):  # it ended by itself just now
                await self._units.kill(unit.name, signal.SIGKILL)
            await stopping
        finally:
            stopping.cancel()

    async def kill(self, name: str, signal_name: str) -> None:
        """Raises NotFound, Conflict (not running), Invalid (no such signal)."""
        number = precheck.signal_number(signal_name or "SIGKILL")
        unit = await self._unit(self.config(name))
        if unit.phase is Phase.INACTIVE:
            raise Conflict(kind="container", name=name, state="not running")
        if number == signal.SIGKILL:
            await self._units.kill(unit.name, number)
        else:
            await self._op(name, ops.Request(op="signal", signal=precheck.signal_name(number)))

    async def pause(self, name: str) -> ctr.Container:
        """Raises NotFound, Conflict."""
        return await self._freeze(name, "pause", Phase.ACTIVE, frozen=False)

    async def resume(self, name: str) -> ctr.Container:
        """Raises NotFound, Conflict."""
        return await self._freeze(name, "resume", Phase.ACTIVE, frozen=True)

    async def _freeze(self, name: str, op: str, phase: Phase, *, frozen: bool) -> ctr.Container:
        with self._claims.claim(name, f"being {op}d"):
            unit = await self._unit(self.config(name))
            if unit.phase is not phase or unit.frozen is not frozen:
                now = state.state_of(unit, None).value
                raise Conflict(kind="container", name=name, state=now)
            await self._op(name, ops.Request(op=op))
        self._events.publish(op, name)
        return await self.inspect(name)

    async def delete(self, name: str, force: bool) -> None:
        """Raises NotFound, Conflict (running, unless `force`)."""
        self._must_exist(name)
        if force:
            await self._put_down(name)
        with self._claims.claim(name, "being created or deleted"):
            self._must_exist(name)  # it may have been deleted by itself, as it ended
            await self._must_rest(name, hint=f"volt stop {name}, or volt rm --force")
            await completed(self._delete(name))
        self._events.publish("delete", name)

    async def _put_down(self, name: str) -> None:
        """Kill it, and let whoever starts it notice."""
        await self._end_unit(name)
        await self._claims.settled(name)

    async def _delete(self, name: str) -> None:
        """Root's files first: without ctrd's own nobody would know that they are there."""
        with contextlib.suppress(NotFound):
            await self._op(name, ops.Request(op="delete"))
        await self._tidy(self._retire(name))

    def _retire(self, name: str) -> homes.Leftover:
        """From here on it is deleted, and durably once the directory is synced."""
        if attendant := self._attendants.pop(name, None):
            attendant.dismiss()
        return homes.retire(self._places, name)

    async def _tidy(self, leftover: homes.Leftover) -> None:
        """After `_retire`. The store lets go last: a name that a power cut brings back has its tree."""
        await asyncio.to_thread(durable.sync_directory, self._places.containers)
        try:
            await self._store.release(leftover.name)
        except VoltError as error:  # the ref goes at the next start, with the leftover
            log.warning("the store still holds the tree of %s: %s", leftover.name, error)
            return
        await asyncio.to_thread(homes.clear, leftover)

    # -- containers that are deleted when they end

    def _remove_when_ended(self, name: str) -> None:
        if name not in self._removals:
            task = asyncio.get_running_loop().create_task(self._remove(name))
            self._removals[name] = task
            task.add_done_callback(lambda _: self._removals.pop(name, None))

    async def _remove(self, name: str) -> None:
        try:
            if await self._removed_by_attendant(name):
                return
            while await self._up(name) or self._claims.held(name):
                await self._units.wait_ended(container_unit(name))
                await self._claims.settled(name)  # a restart goes on after the end
            exit = (await self.inspect(name)).exit
            if exit is not None:
                self._keep_exit(name, exit)
            await self.delete(name, force=False)
        except (NotFound, Conflict):
            return  # somebody else deleted it, or started it again
        except VoltError as error:
            log.error("%s has ended and could not be deleted: %s", name, error, extra={"volt": {"VOLT_WORKLOAD": name}})

    async def _removed_by_attendant(self, name: str) -> bool:
        """The short way, for a run that has an attendant: it need not wait for systemd, nor start a launcher. Not when
        somebody else does something to the container."""
        attendant = self._attendants.get(name)
        if attendant is None:
            return False
        exit = await attendant.exit()
        if exit is None or self._claims.held(name):
            attendant.dismiss()
            return False
        with self._claims.claim(name, "being created or deleted"):
            self._keep_exit(name, exit)
            if not await attendant.remove():
                return False
            leftover = self._retire(name)
        self._events.publish("delete", name)
        # Not waited for: should a power cut undo it, `recover` does it again.
        self._tidying[name] = task = asyncio.get_running_loop().create_task(self._tidy(leftover))
        task.add_done_callback(lambda _: self._tidying.pop(name, None))
        return True

    def _keep_exit(self, name: str, exit: ctr.Exit) -> None:
        self._exits[name] = exit
        while len(self._exits) > KEPT_EXITS:
            del self._exits[next(iter(self._exits))]

    # -- small things

    async def _unit(self, config: Config) -> Unit:
        """The unit of a container, as far as that goes."""
        return state.settled(await self._units.container(config.name), self._record(config))

    async def _must_rest(self, name: str, hint: str = "") -> None:
        """Raises Conflict unless its unit is gone, or about to go after a run that is over: then that is waited for."""
        unit = await self._units.container(name)
        if unit.phase is Phase.INACTIVE:
            return
        record = RootState()
        with contextlib.suppress(VoltError):  # it is damaged, and can be deleted all the same
            record = self._record(self.config(name))
        # A unit that is up without this container ever having started is an earlier one's of that name.
        over = unit.phase is not Phase.STARTING and (record.ended_at or not record.started_at)
        if not (over and await self._units.ended_within(unit.name, TIDY_SECONDS)):
            raise Conflict(kind="container", name=name, state=state.state_of(unit, None).value, hint=hint)

    async def _op(self, name: str, request: ops.Request) -> None:
        await ops.perform(self._places, self._units, name, request)

    def _must_exist(self, name: str) -> None:
        if not os.path.isdir(self._places.home(name)):
            raise _not_found(name)

    async def _up(self, name: str) -> bool:
        return (await self._units.container(name)).phase is not Phase.INACTIVE

    def _taken(self, name: str) -> bool:
        return self._claims.held(name) or os.path.lexists(self._places.home(name))

    def _record(self, config: Config) -> RootState:
        return state.own(config, load(self._places.root_state(config.name), RootState))

    def _readable(self) -> Iterator[Config]:
        for name in all_names(self._places):
            with contextlib.suppress(Invalid):
                config = configs.read(self._places, name)
                if config is not None:
                    yield config

    def _joined(self, config: Config, unit: Unit, spec: ctr.Spec | None) -> ctr.Container:
        running = load(self._places.running(config.name), Running)
        return state.container(config, unit, self._record(config), running, spec)
