"""What joins a caller's own descriptors to a container: exec, the streams of run, attach."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import stat
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from volt_common.api import ctr
from volt_common.errors import Conflict, Invalid, TimedOut, VoltError, of_code
from volt_ctrd.config import Config, timestamp
from volt_ctrd.files import Places
from volt_ctrd.handover import Asked, Handover, Offer, Taken
from volt_ctrd.units import Phase, Units, exec_unit

log = logging.getLogger("volt")

LAUNCH_SECONDS = 30.0


class RunAnswer(msgspec.Struct, frozen=True):
    """To the launcher of a container, beside its streams."""

    ok: bool = True


class ExecAnswer(msgspec.Struct, frozen=True):
    """To the launcher of an exec, beside its streams. It treats every field as hostile."""

    args: list[str]
    env: dict[str, str]
    user: str
    workdir: str
    tty: bool
    ok: bool = True


def check_streams(fds: list[int], tty: bool) -> None:
    """Three descriptors for pipes, or the one end of a packet socket for a terminal. Raises Invalid."""
    wanted = 1 if tty else 3
    if len(fds) != wanted:
        what = "a terminal takes 1 descriptor" if tty else "streams are 3 descriptors"
        raise Invalid(f"{what}, not {len(fds)}")
    if not tty:
        return
    if not stat.S_ISSOCK(os.fstat(fds[0]).st_mode):
        raise Invalid("a terminal's descriptor is one end of a SOCK_SEQPACKET pair")
    with socket.socket(fileno=os.dup(fds[0])) as sock:
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
            raise Invalid("a terminal's descriptor is one end of a SOCK_SEQPACKET pair")


class Execs:
    """Commands that callers run in containers."""

    def __init__(self, places: Places, units: Units, handover: Handover) -> None:
        self._places = places
        self._units = units
        self._handover = handover
        self._under_way = 0

    @property
    def busy(self) -> bool:
        return self._under_way > 0 or self._handover.busy

    def streams(self, config: Config, fds: list[int]) -> contextlib.AbstractContextManager[Offer]:
        """Offer a container's launcher the streams of the caller of Run; owns `fds`."""
        return self._handover.offer(Asked("run", config.name, config.id), RunAnswer(), fds)

    def streams_of_new(self, name: str, fds: list[int]) -> contextlib.AbstractContextManager[Offer]:
        """The same for a container that is being made: the launcher gets them when the offer is released."""
        return self._handover.offer(Asked("run", name, ""), RunAnswer(), fds, released=False)

    async def run(self, call: ctr.Exec, fds: list[int], began: Callable[[int], Awaitable[None]]) -> ctr.Exit:
        """Run a command till it ends; it is killed if this is cancelled, which is what happens when the caller
        goes. `began` is told the command's pid on the host. Owns `fds`."""
        self._under_way += 1
        id = secrets.token_hex(8)
        unit = exec_unit(call.name, id)
        answer = ExecAnswer(call.args, call.env, call.user, call.workdir, call.tty)
        try:
            with self._handover.offer(Asked("exec", call.name, id), answer, fds) as offer:
                await self._units.start(unit)
                taken = await self._until_taken(unit, offer.taken)
                return await self._follow(call.name, unit, taken, began)
        except BaseException:
            # The end of the connection has told the launcher; this is for one that has not come that far.
            self._units.stop_soon(unit)
            raise
        finally:
            self._under_way -= 1

    async def _until_taken(self, unit: str, taken: asyncio.Future[Taken]) -> Taken:
        """The launcher's connection. Raises if its unit ends without one."""
        ended = asyncio.create_task(self._units.wait_ended(unit))
        try:
            async with asyncio.timeout(LAUNCH_SECONDS):
                both: list[asyncio.Future[Any]] = [taken, ended]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise TimedOut(what=f"the launcher of {unit}", seconds=f"{LAUNCH_SECONDS:.0f}") from None
        finally:
            ended.cancel()
        if not taken.done():
            raise VoltError(f"the launcher of {unit} ended without a word", hint=f"journalctl -u {unit} may say why")
        return taken.result()

    async def _follow(self, name: str, unit: str, taken: Taken, began: Callable[[int], Awaitable[None]]) -> ctr.Exit:
        while (report := await taken.report()) is not None:
            if report.error:
                raise of_code(report.error, report.hint, {"message": report.message, "exit_code": report.exit or 126})
            if report.started is not None:
                await began(report.started)
            if exit := report.ended():
                return exit
        if (await self._units.container(name)).phase is Phase.INACTIVE:
            message = "the container ended"
        else:
            message = f"the launcher went away; journalctl -u {unit} may say why"
        return ctr.Exit(code=137, signal=9, reason="lost", at=timestamp(), message=message)

    def attach(self, config: Config, fds: list[int]) -> None:
        """Make a caller a watcher of a container's terminal. `fds` stay the caller's. Raises Conflict."""
        if not config.tty:
            raise Conflict(f"the container {config.name} has no terminal", hint="create it with -t")
        check_streams(fds, True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as console:
            try:
                console.connect(self._places.console(config.name))
                socket.send_fds(console, [b'{"attach":true}'], fds)
            except OSError as error:
                raise Conflict(f"the terminal of {config.name} takes nobody: {error.strerror}") from None
