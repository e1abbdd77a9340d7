"""Commands in containers: the caller's descriptors reach the launcher, and its reports the caller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import pytest
from unit.ctrd.fake_systemd import FakeSystemd

from volt_common.api import cas, ctr
from volt_common.errors import Conflict, Invalid, VoltError
from volt_common.systemd import Systemd
from volt_ctrd import config
from volt_ctrd.execs import Execs, check_streams
from volt_ctrd.files import Places
from volt_ctrd.handover import Handover, listen
from volt_ctrd.images import Image
from volt_ctrd.units import Units

VIEW = cas.ViewReady("ab" * 32, cas.Form.FULL, 8192, "cd" * 32, 0o40755, 0, 0, 0)
CALL = ctr.Exec(name="web", args=["/bin/ls", "-l"], env={"A": "b"}, user="www", workdir="/srv")


class Launcher:
    """The exec launcher's side: what `volt-exec@` would do when systemd starts it."""

    def __init__(self, path: str, *reports: dict[str, Any], stays: bool = False) -> None:
        self.path = path
        self.reports = reports
        self.stays = stays
        self.asked: dict[str, Any] = {}
        self.fds: list[int] = []
        self.killed = asyncio.Event()

    async def start(self, unit: str) -> None:
        name, _, id = unit.removeprefix("volt-exec@").removesuffix(".service").rpartition("-")
        self.task = asyncio.create_task(asyncio.to_thread(self._talk, name, id, asyncio.get_running_loop()))

    def _talk(self, name: str, id: str, loop: asyncio.AbstractEventLoop) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(self.path)
            sock.send(json.dumps({"unit": "exec", "name": name, "id": id}).encode())
            data, self.fds, _, _ = socket.recv_fds(sock, 1 << 20, 8)
            self.asked = json.loads(data)
            for report in self.reports:
                sock.send(json.dumps(report).encode())
            if self.stays and sock.recv(10) == b"":
                loop.call_soon_threadsafe(self.killed.set)
        for fd in self.fds:
            os.close(fd)


Test = Callable[[Execs, FakeSystemd, str], Awaitable[None]]


def on(places: Places, test: Test) -> None:
    async def main() -> None:
        systemd = FakeSystemd(places)
        with listen(places.handover) as listening:
            handover = Handover(listening, os.getuid())
            execs = Execs(places, Units(cast(Systemd, systemd)), handover)
            async with asyncio.timeout(30):
                await test(execs, systemd, places.handover)
            handover.close()

    asyncio.run(main())


def streams() -> list[int]:
    return [os.open(os.devnull, os.O_RDWR) for _ in range(3)]


async def ignore(pid: int) -> None: ...


def test_a_command_is_run_as_it_was_asked_and_its_exit_comes_back(places: Places) -> None:
    async def test(execs: Execs, systemd: FakeSystemd, path: str) -> None:
        launcher = Launcher(path, {"started": 17}, {"exit": 3, "signal": 0, "reason": "exit"})
        systemd.on_start = launcher.start
        pids: list[int] = []

        async def began(pid: int) -> None:
            pids.append(pid)

        exit = await execs.run(CALL, streams(), began)
        assert (exit.code, exit.signal, exit.reason, pids) == (3, 0, "exit", [17])
        assert len(launcher.fds) == 3
        assert launcher.asked == {
            "ok": True,
            "args": ["/bin/ls", "-l"],
            "env": {"A": "b"},
            "user": "www",
            "workdir": "/srv",
            "tty": False,
        }
        assert not execs.busy

    on(places, test)


def test_a_command_that_a_signal_ended_says_so(places: Places) -> None:
    async def test(execs: Execs, systemd: FakeSystemd, path: str) -> None:
        systemd.on_start = Launcher(path, {"started": 17}, {"exit": 137, "signal": 9, "reason": "oom"}).start
        exit = await execs.run(CALL, streams(), ignore)
        assert (exit.code, exit.signal, exit.reason) == (137, 9, "oom")

    on(places, test)


def test_a_command_that_cannot_begin_is_an_error_with_its_exit_code(places: Places) -> None:
    async def test(execs: Execs, systemd: FakeSystemd, path: str) -> None:
        report = {"error": "INVALID", "message": "ls: command not found in the container", "exit": 127}
        systemd.on_start = Launcher(path, report).start
        with pytest.raises(Invalid, match="command not found") as raised:
            await execs.run(CALL, streams(), ignore)
        assert raised.value.fields["exit_code"] == 127

    on(places, test)


def test_when_the_caller_goes_the_launcher_is_told_to_kill(places: Places) -> None:
    async def test(execs: Execs, systemd: FakeSystemd, path: str) -> None:
        launcher = Launcher(path, {"started": 17}, stays=True)
        systemd.on_start = launcher.start
        begun = asyncio.Event()

        async def began(pid: int) -> None:
            begun.set()

        call = asyncio.create_task(execs.run(CALL, streams(), began))
        await begun.wait()
        assert execs.busy
        call.cancel()
        await launcher.killed.wait()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        assert not execs.busy

    on(places, test)


def test_a_launcher_that_goes_away_leaves_the_end_unknown(places: Places) -> None:
    async def test(execs: Execs, systemd: FakeSystemd, path: str) -> None:
        systemd.on_start = Launcher(path, {"started": 17}).start
        assert (await execs.run(CALL, streams(), ignore)).reason == "lost"

    on(places, test)


def test_a_launcher_that_never_comes_is_an_error(places: Places) -> None:
    async def test(execs: Execs, systemd: FakeSystemd, path: str) -> None:
        async def die(unit: str) -> None:
            await systemd.set(unit, "inactive")

        systemd.on_start = die
        fds = streams()
        with pytest.raises(VoltError, match="ended without a word"):
            await execs.run(CALL, fds, ignore)
        for fd in fds:
            with pytest.raises(OSError):
                os.fstat(fd)

    on(places, test)


def test_descriptors_must_be_what_they_are_used_for() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stream, end = socket.socketpair()
    with one, other, stream, end:
        check_streams([0, 1, 2], tty=False)
        check_streams([one.fileno()], tty=True)
        for fds, tty in (([0], False), ([0, 1], False), ([], False), ([0, 1, 2], True), ([0], True)):
            with pytest.raises(Invalid):
                check_streams(fds, tty=tty)
        with pytest.raises(Invalid, match="SOCK_SEQPACKET"):
            check_streams([stream.fileno()], tty=True)


def terminal_of(places: Places, *, tty: bool) -> config.Config:
    os.mkdir(f"{places.launch}/web")
    spec = ctr.Spec(image="web", args=["/bin/sh"], tty=tty)
    return config.of_spec("web", 0, spec, Image("ab" * 32), VIEW)


def test_a_watcher_is_brought_to_the_terminals_broker(places: Places) -> None:
    async def test(execs: Execs, systemd: FakeSystemd, path: str) -> None:
        made = terminal_of(places, tty=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs, listen(places.console("web")) as broker:
            execs.attach(made, [theirs.fileno()])
            with broker.accept()[0] as brought:
                _, fds, _, _ = socket.recv_fds(brought, 100, 4)
            with socket.socket(fileno=fds[0]) as watcher:
                watcher.send(b"output")
            assert ours.recv(100) == b"output"

    on(places, test)


def test_only_a_terminal_that_is_there_can_be_attached_to(places: Places) -> None:
    async def test(execs: Execs, systemd: FakeSystemd, path: str) -> None:
        made = terminal_of(places, tty=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            with pytest.raises(Conflict, match="takes nobody"):
                execs.attach(made, [theirs.fileno()])
            with pytest.raises(Conflict, match="no terminal"):
                execs.attach(msgspec.structs.replace(made, tty=False), [theirs.fileno()])

    on(places, test)
