"""The daemon: each call of the contract, and who answers it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, assert_never

import msgspec

from volt_common.api import ctr
from volt_common.api.base import Call, Describe, Nothing
from volt_common.config import Config
from volt_common.daemon import Request, Sandbox
from volt_common.systemd import Systemd
from volt_ctrd import execs, explain
from volt_ctrd.events import Events
from volt_ctrd.execs import Execs
from volt_ctrd.files import Places
from volt_ctrd.handover import Handover, listen
from volt_ctrd.images import Store
from volt_ctrd.lifecycle import Lifecycle
from volt_ctrd.units import Units
from volt_ctrd.watch import watch


class Ctrd:
    """Containers on systemd-nspawn. `trusted` is the uid of the launchers."""

    name = "ctrd"
    interface = ctr.Interface
    descriptors = ctr.Descriptors

    def __init__(self, places: Places = Places(), trusted: int = 0) -> None:  # noqa: B008 - a constant
        self._places = places
        self._trusted = trusted
        self.handover_fd = -1  # from systemd
        self.roles: dict[str, tuple[type[Call[Any]], ...]] = {}  # no daemon drives containers yet

    def sandbox(self) -> Sandbox:
        """Its own directory to write; root's records, the launchers' and the cgroups' to read."""
        places = self._places
        return Sandbox(read=[places.roots, places.launch, "/sys/fs/cgroup"], write=[places.containers])

    async def start(self, config: Config) -> None:  # noqa: ARG002 - nothing of it matters here
        """Find everything as it is."""
        systemd = Systemd()
        await systemd.connect()
        self._units = Units(systemd)
        self._events = Events()
        store = Store(self._places.run)
        self._containers = Lifecycle(self._places, self._units, store, self._events)
        listening = socket.socket(fileno=self.handover_fd) if self.handover_fd >= 0 else listen(self._places.handover)
        self._handover = Handover(listening, self._trusted)
        self._execs = Execs(self._places, self._units, self._handover)
        self._watching: asyncio.Task[None] | None = None
        await self._containers.recover()

    async def stop(self) -> None:
        """Nothing is kept that would have to be saved."""
        self._handover.close()
        await self._containers.close()
        if self._watching is not None:
            self._watching.cancel()
        await self._units.close()

    async def reload(self, config: Config) -> None:
        """The policy is read at each use, so there is nothing to do."""

    def busy(self) -> bool:
        """Stay for a `remove` container that will have to be deleted, and for a launcher that is on its way."""
        return self._containers.busy or self._execs.busy

    async def handle(self, call: ctr.Interface, request: Request) -> msgspec.Struct:
        """The ZeroMQ socket."""
        containers = self._containers
        match call:
            case ctr.Create(name=name, spec=spec):
                return await containers.create(name, spec, request.peer.uid)
            case ctr.Start(name=name):
                return await containers.start(name)
            case ctr.Stop(name=name, seconds=seconds):
                return await containers.stop(name, seconds)
            case ctr.Restart(name=name, seconds=seconds):
                return await containers.restart(name, seconds)
            case ctr.Kill(name=name, signal=signal):
                await containers.kill(name, signal)
                return Nothing()
            case ctr.Pause(name=name):
                return await containers.pause(name)
            case ctr.Resume(name=name):
                return await containers.resume(name)
            case ctr.Delete(name=name, force=force):
                await containers.delete(name, force)
                return Nothing()
            case ctr.List():
                async for container in containers.list():
                    await request.item(container)
                return Nothing()
            case ctr.Inspect(name=name):
                return await containers.inspect(name, with_spec=True)
            case ctr.Wait(name=name):
                return await containers.wait(name)
            case ctr.Events(name=name):
                return await self._tell(name, request)
            case ctr.Explain(name=name):
                return explain.explain(self._places, containers.config(name))
            case Describe():
                raise AssertionError("the skeleton answers it")
            case _:
                assert_never(call)

    async def handle_packet(self, call: ctr.Descriptors, request: Request) -> msgspec.Struct:
        """The descriptor socket."""
        containers = self._containers
        match call:
            case ctr.Run(name=name):
                config = containers.config(name)
                execs.check_streams(request.fds, config.tty)
                return await containers.run(config, lambda: self._execs.streams(config, request.take_fds()))
            case ctr.RunNew(name=asked, spec=spec):
                execs.check_streams(request.fds, spec.tty)
                offer = self._execs.streams_of_new
                return await containers.run_new(
                    asked, spec, request.peer.uid, lambda name: offer(name, request.take_fds())
                )
            case ctr.Attach(name=name):
                await containers.must_run(name)
                self._execs.attach(containers.config(name), request.fds)
                return Nothing()
            case ctr.Exec(name=name):
                await containers.must_run(name)
                execs.check_streams(request.fds, call.tty)

                async def began(pid: int) -> None:
                    await request.item(ctr.Running(name, pid))

                return await self._execs.run(call, request.take_fds(), began)
            case _:
                assert_never(call)

    async def _tell(self, name: str | None, request: Request) -> msgspec.Struct:
        """Events till the caller goes. systemd is listened to from the first listener on."""
        with self._events.listen(name) as listener:
            if self._watching is None or self._watching.done():
                self._watching = asyncio.create_task(watch(self._units, self._containers, self._events))
            while True:
                await request.item(await listener.next())
