"""Where launchers fetch the descriptors that callers brought: a socket that only root can reach.

The launcher connects, says for which run or exec it comes, and gets one packet: `{"ok":true}` with what else
it needs to know, and the descriptors beside it. An exec's connection stays open: the launcher reports on it, and
its end from this side tells the launcher to kill the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from volt_common.api import ctr
from volt_common.packets import close_all
from volt_ctrd.config import timestamp
from volt_ctrd.files import Ended
from volt_ctrd.state import exit_from

MAX_PACKET: Final = 1 << 20
SEND_BUFFER: Final = 1 << 20
WAITING: Final = 64  # launchers that have connected and not said for what; others are sent away
ASK_SECONDS: Final = 10.0
_NOBODY: Final = "nothing waits for it; whoever asked has gone, or the daemon was restarted"

log = logging.getLogger("volt")


class Asked(msgspec.Struct, frozen=True):
    """A launcher's first packet."""

    unit: str  # "run" or "exec"
    name: str
    id: str


class Report(msgspec.Struct, frozen=True):
    """A launcher's later packets. Of an exec: one with `started`, then one with `exit` or with `error`. Of a run: one
    with `exit`, then, if it was asked to, one with `removed`."""

    started: int | None = None
    exit: int | None = None
    signal: int = 0
    reason: str = ""
    error: str = ""  # a wire code: the command never began
    message: str = ""
    hint: str = ""
    at: str = ""  # when it ended, RFC 3339; of an exec, now
    removed: bool = False

    def ended(self) -> ctr.Exit | None:
        """How it ended; None if this packet does not tell that."""
        if self.exit is None:
            return None
        reason = self.reason or ("signal" if self.signal else "exit")
        end = Ended(code=self.exit, signal=self.signal, reason=reason, message=self.message)
        return exit_from(end, self.at or timestamp())


class _Refusal(msgspec.Struct, frozen=True):
    ok: bool
    message: str


class Taken:
    """The connection of a launcher that has fetched its descriptors."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    async def report(self) -> Report | None:
        """The launcher's next word; None when it has gone. What is no report counts as gone."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self._socket, MAX_PACKET)
            return msgspec.json.decode(data, type=Report) if data else None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    async def say(self, packet: bytes) -> None:
        """Answer a report; that it may have gone is learned from the next one."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._socket, packet)

    def close(self) -> None:
        """For an exec: kill it, unless it has ended."""
        self._socket.close()


class Offer:
    """Descriptors that wait for their launcher. A launcher that comes before `release` waits for that."""

    def __init__(self, packet: bytes, fds: list[int], *, released: bool) -> None:
        self.packet = packet
        self.fds = fds
        self.refusal: asyncio.Future[str] = asyncio.get_running_loop().create_future()  # "": none
        if released:
            self.release()
        self.taken: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()

    def release(self, refusal: str = "") -> None:
        """Let the launcher have them, or tell it why not."""
        if not self.refusal.done():
            self.refusal.set_result(refusal)

    def keep(self) -> Taken | None:
        """The launcher's connection, which is then the caller's to close; None if no launcher came."""
        taken = self.taken.result() if self.taken.done() and not self.taken.cancelled() else None
        self.taken = asyncio.get_running_loop().create_future()
        return taken


class Handover:
    """The socket's server. `trusted` is the uid that launchers have."""

    def __init__(self, listening: socket.socket, trusted: int = 0) -> None:
        self._listening = listening
        self._trusted = trusted
        self._offers: dict[Asked, Offer] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._silent = 0  # of these, who have not said for what they come
        self._loop = asyncio.get_running_loop()
        listening.setblocking(False)
        self._loop.add_reader(listening.fileno(), self._accept)

    @property
    def busy(self) -> bool:
        """Whether a launcher may come."""
        return bool(self._offers or self._asking)

    @contextlib.contextmanager
    def offer(self, asked: Asked, answer: msgspec.Struct, fds: list[int], *, released: bool = True) -> Iterator[Offer]:
        """Keep `fds`, which it owns from here on, till the launcher has them or the block ends. An offer without an id
        is for any launcher of that unit and name: the container is only being made."""
        offer = Offer(msgspec.json.encode(answer), fds, released=released)
        self._offers[asked] = offer
        try:
            yield offer
        finally:
            self._offers.pop(asked, None)
            offer.release(_NOBODY)
            close_all(offer.fds)
            if offer.taken.done() and not offer.taken.cancelled():
                offer.taken.result().close()
            offer.taken.cancel()

    def close(self) -> None:
        """Stop serving; who comes now waits for the next daemon."""
        self._loop.remove_reader(self._listening.fileno())
        for task in self._asking:
            task.cancel()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            sock, _ = self._listening.accept()
            uid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
            if uid != self._trusted or self._silent >= WAITING:
                sock.close()
                return
            self._silent += 1
            task = self._loop.create_task(self._serve(sock))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _serve(self, sock: socket.socket) -> None:
        """Answer one launcher, and pass its connection to who offered."""
        kept = False
        try:
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
                data = await asyncio.wait_for(self._loop.sock_recv(sock, MAX_PACKET), ASK_SECONDS)
            finally:
                self._silent -= 1
            kept = await self._answer(sock, data)
        except (TimeoutError, OSError) as error:
            log.warning("a launcher's handover failed: %s", error)
        finally:
            if not kept:
                sock.close()

    async def _answer(self, sock: socket.socket, data: bytes) -> bool:
        try:
            asked = msgspec.json.decode(data, type=Asked)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            sock.send(msgspec.json.encode(_Refusal(False, "not a request")))
            return False
        offer = self._offers.pop(asked, None) or self._offers.pop(Asked(asked.unit, asked.name, ""), None)
        if refusal := _NOBODY if offer is None else await offer.refusal:
            sock.send(msgspec.json.encode(_Refusal(False, refusal)))
            return False
        assert offer is not None
        socket.send_fds(sock, [offer.packet], offer.fds)
        close_all(offer.fds)
        offer.fds = []
        offer.taken.set_result(Taken(sock))
        return True


def listen(path: str) -> socket.socket:
    """The socket, where systemd does not bring it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    sock.bind(path)
    os.chmod(path, 0o600)
    sock.listen(128)
    return sock
