"""Create and start in one: the launcher is on its way meanwhile, and what its attendant tells is believed at once."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest
from unit.ctrd.test_lifecycle import UNIT, Host, on

from volt_common.api import ctr
from volt_common.errors import AlreadyExists, Denied, NotFound
from volt_ctrd.execs import Execs
from volt_ctrd.files import Places
from volt_ctrd.handover import Handover, listen

STATE = ctr.State


class Launcher:
    """A launcher's and then an attendant's side of the handover."""

    every: ClassVar[list[Launcher]] = []

    def __init__(self, places: Places) -> None:
        self.every.append(self)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(places.handover)
        self.socket.setblocking(False)
        self.fds: list[int] = []

    async def ask(self, id: str = "") -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.socket, json.dumps({"unit": "run", "name": "web", "id": id}).encode())
        data, self.fds = await asyncio.to_thread(self._receive)
        answer: dict[str, Any] = json.loads(data)
        return answer

    def _receive(self) -> tuple[bytes, list[int]]:
        self.socket.setblocking(True)
        data, fds, _, _ = socket.recv_fds(self.socket, 1 << 16, 8)
        self.socket.setblocking(False)
        return data, fds

    async def say(self, **words: object) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, json.dumps(words).encode())

    async def told(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.socket, 1000)

    @classmethod
    def leave(cls) -> None:
        """All of them."""
        for launcher in cls.every:
            launcher.socket.close()
            for fd in launcher.fds:
                os.close(fd)
        cls.every.clear()


Test = Callable[[Host, Callable[..., Awaitable[ctr.Running]]], Awaitable[None]]


def running(places: Places, test: Test) -> None:
    """`test` gets a way to run the container web with a pipe as its streams."""

    async def main(host: Host) -> None:
        with listen(places.handover) as listening:
            handover = Handover(listening, os.getuid())
            execs = Execs(places, host.ctrd._units, handover)

            async def run(image: str = "debian:12", **asked: Any) -> ctr.Running:
                spec = ctr.Spec(image=image, args=["/bin/true"], **asked)
                fds = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
                return await host.ctrd.run_new("web", spec, 1000, lambda name: execs.streams_of_new(name, fds))

            try:
                await test(host, run)
            finally:
                Launcher.leave()
                handover.close()

    on(places, main)


def test_the_launcher_waits_for_its_configuration_and_then_has_the_streams(places: Places) -> None:
    async def test(host: Host, run: Callable[..., Awaitable[ctr.Running]]) -> None:
        seen: list[Any] = []

        async def launch(_unit: str) -> None:
            launcher = Launcher(places)
            seen.append(await launcher.ask())
            with open(places.config("web"), "rb") as file:
                seen.append(json.load(file)["streams"])
            seen.append(len(launcher.fds))

        host.systemd.record = lambda *_, **__: None  # type: ignore[method-assign]  # there is no config.json yet
        host.systemd.on_start = launch
        assert (await run()).name == "web"
        assert seen == [{"ok": True}, "handover", 3]

    running(places, test)


def test_without_its_image_nothing_is_started(places: Places) -> None:
    async def test(host: Host, run: Callable[..., Awaitable[ctr.Running]]) -> None:
        with pytest.raises(NotFound, match="no image named nosuch"):
            await run("nosuch")
        assert host.systemd.log == []
        assert await host.names() == []

    running(places, test)


def test_an_image_that_has_gone_since_is_told_and_its_unit_undone(places: Places) -> None:
    async def test(host: Host, run: Callable[..., Awaitable[ctr.Running]]) -> None:
        host.ctrd._images.add("gone:1")
        host.systemd.record = lambda *_, **__: None  # type: ignore[method-assign]

        async def launch(unit: str) -> None:
            if not (await Launcher(places).ask())["ok"]:
                await host.systemd.set(unit, "inactive")

        host.systemd.on_start = launch
        with pytest.raises(NotFound, match="no image named gone:1"):
            await run("gone:1")
        assert UNIT not in host.systemd.active
        assert await host.names() == []

    running(places, test)


def test_what_the_launcher_refuses_is_undone(places: Places) -> None:
    async def test(host: Host, run: Callable[..., Awaitable[ctr.Running]]) -> None:
        async def launch(unit: str) -> None:
            await Launcher(places).ask()
            host.systemd.record(unit, started_at="2026-01-01T00:00:00Z")
            await host.systemd.end(unit, 125, reason="start-failure", message="not that", error="DENIED")

        host.systemd.record, record = (lambda *_, **__: None), host.systemd.record  # type: ignore[method-assign]

        async def late(unit: str) -> None:
            host.systemd.record = record  # type: ignore[method-assign]
            await launch(unit)

        host.systemd.on_start = late
        with pytest.raises(Denied, match="not that"):
            await run()
        assert await host.names() == []
        assert "containers/web" not in await host.refs()
        assert not host.ctrd.busy

    running(places, test)


def test_a_caller_that_goes_leaves_nothing(places: Places) -> None:
    async def test(host: Host, run: Callable[..., Awaitable[ctr.Running]]) -> None:
        host.systemd.record = lambda *_, **__: None  # type: ignore[method-assign]
        came = asyncio.Event()

        async def launch(unit: str) -> None:
            came.set()
            async with host.systemd._changed:  # till the unit is stopped
                await host.systemd._changed.wait_for(lambda: unit not in host.systemd.active)

        host.systemd.on_start = launch
        for turns in range(0, 40, 4):
            task = asyncio.ensure_future(run())
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            assert await host.names() == []
            assert "containers/web" not in await host.refs()
            assert UNIT not in host.systemd.active
        assert came.is_set()

    running(places, test)


async def attended(host: Host, places: Places, run: Callable[[], Awaitable[ctr.Running]]) -> Launcher:
    """Start a run whose launcher has come for its streams; root writes nothing of it down from here on."""
    host.systemd.record = lambda *_, **__: None  # type: ignore[method-assign]
    came: list[Launcher] = []

    async def launch(_unit: str) -> None:
        came.append(Launcher(places))
        await came[0].ask()

    host.systemd.on_start = launch
    await run()
    return came[0]


@pytest.mark.parametrize("remove", [False, True])
def test_the_attendants_word_comes_before_systemds(places: Places, remove: bool) -> None:
    async def test(host: Host, run: Callable[..., Awaitable[ctr.Running]]) -> None:
        record = host.systemd.record
        launcher = await attended(host, places, lambda: run(remove=remove))
        record(UNIT, started_at="2026-01-01T00:00:00Z")
        waiting = asyncio.create_task(host.ctrd.wait("web"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        exit = {"code": 7, "signal": 0, "reason": "exit", "message": ""}
        record(UNIT, ended_at="2026-01-01T00:00:09Z", exit=exit)
        await launcher.say(exit=7, signal=0, reason="exit", message="", at="2026-01-01T00:00:09Z")
        if remove:
            assert await launcher.told() == b'{"remove":true}'
            await launcher.say(removed=True)
        assert (await waiting).code == 7
        assert UNIT in host.systemd.active  # systemd has not noticed yet
        host.systemd.on_start = None
        host.systemd.record = record  # type: ignore[method-assign]
        if remove:
            assert await host.names() == []
            again = asyncio.create_task(host.create())
            await again
        else:
            assert (await host.ctrd.inspect("web")).state is STATE.STOPPED
        starting = asyncio.create_task(host.ctrd.start("web"))
        await asyncio.sleep(0.02)
        assert not starting.done()  # the name is free, the unit is not
        await host.systemd.set(UNIT, "inactive")
        assert (await starting).state is STATE.RUNNING

    running(places, test)


def test_what_an_attendant_does_not_remove_is_removed_all_the_same(places: Places) -> None:
    async def test(host: Host, run: Callable[..., Awaitable[ctr.Running]]) -> None:
        record = host.systemd.record
        launcher = await attended(host, places, lambda: run(remove=True))
        host.systemd.record = record  # type: ignore[method-assign]
        record(UNIT, started_at="2026-01-01T00:00:00Z")
        launcher.socket.close()  # it was killed
        waiting = asyncio.create_task(host.ctrd.wait("web"))
        await host.systemd.end(UNIT, 137, 9)
        assert (await waiting).code == 137
        await host.gone("web")
        assert [op["op"] for op in host.systemd.ops] == ["delete"]

    running(places, test)


def test_a_name_that_is_taken_stays_its_owners(places: Places) -> None:
    async def test(host: Host, run: Callable[..., Awaitable[ctr.Running]]) -> None:
        await host.create()  # the image is known from here on
        for _ in range(2):
            log = list(host.systemd.log)
            with pytest.raises(AlreadyExists):
                await run()
            assert host.systemd.log == log
            assert await host.names() == ["web"]
            assert "containers/web" in await host.refs()
            await host.ctrd.start("web")
            await host.ctrd.stop("web", None)

    running(places, test)
