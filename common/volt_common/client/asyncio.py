"""A daemon's client: calls of another daemon, many at a time over one connection each kind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from volt_common import packets
from volt_common.api.base import Call, Stream
from volt_common.client.replies import RESTART_SECONDS, decode, decoders, error_of, unreachable
from volt_common.errors import Malformed, Unknown, Unreachable
from volt_common.wire import (
    MAX_PACKET,
    Kind,
    decode_header,
    encode,
    encode_header,
    join_packet,
    new_id,
    split_packet,
)
from volt_common.wire.zmtp import HELLO, Receiver, message

R = TypeVar("R")
I = TypeVar("I")  # noqa: E741 - the item's type

Replies = asyncio.Queue[tuple[Kind, bytes] | None]
"""None: the connection has ended."""


class AsyncClient:
    """Calls to one daemon over its ZeroMQ socket. Connects at the first call, and again when the connection
    ends: unanswered calls are sent again with their ids. Idle connections are closed by `rest`."""

    def __init__(self, daemon: str, run: str = "/run/volt") -> None:
        self.daemon = daemon
        self._path = f"{run}/{daemon}.sock"
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[bytes, Replies] = {}
        self._connecting = asyncio.Lock()

    async def call(self, call: Call[R], seconds: float | None = None) -> R:
        """The result. Raises the daemon's error, Unreachable."""
        result: R
        async for kind, value in self._replies(call, seconds):
            if kind is Kind.DONE:
                result = value
        return result

    async def stream(self, call: Stream[I, R], seconds: float | None = None) -> AsyncIterator[I]:
        """The items."""
        async for kind, value in self._replies(call, seconds):
            if kind is Kind.ITEM:
                yield value

    async def rest(self) -> None:
        """Close the connection if nobody waits on it, so that the other daemon can exit."""
        if not self._waiting:
            await self.close()

    async def close(self) -> None:
        reading, self._reading = self._reading, None
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()  # before the first wait, at which a caller's cancel would leave it open
        if reading is not None:
            reading.cancel()
            await asyncio.wait({reading})
        if writer is not None:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _replies(self, call: Call[Any], seconds: float | None) -> AsyncIterator[tuple[Kind, Any]]:
        id = new_id()
        body = encode(call)
        items, result = decoders(type(call))
        replies: Replies = asyncio.Queue()
        self._waiting[id] = replies
        loop = asyncio.get_running_loop()
        give_up = loop.time() + RESTART_SECONDS
        begun = finished = False
        ms = 0 if seconds is None else max(1, int(seconds * 1000))
        data = message((encode_header(Kind.CALL, id, ms), body))
        try:
            await self._send(data)
            while True:
                reply = await replies.get()
                if reply is None:
                    if begun:
                        raise Unreachable("the connection ended inside the answer", daemon=self.daemon)
                    if loop.time() > give_up:
                        raise Unreachable("it keeps ending its connections", daemon=self.daemon)
                    await asyncio.sleep(0.01)
                    await self._send(data)
                    continue
                kind, answer = reply
                if kind is Kind.ITEM:
                    begun = True
                    yield kind, decode(items, answer)
                elif kind is Kind.DONE:
                    finished = True
                    yield kind, decode(result, answer)
                    return
                elif kind is Kind.ERROR:
                    finished = True
                    raise error_of(answer)
        finally:
            del self._waiting[id]
            if not finished and self._writer is not None:
                with contextlib.suppress(OSError):
                    self._writer.write(message((encode_header(Kind.CANCEL, id), b"")))

    async def _send(self, data: bytes) -> None:
        async with self._connecting:
            if self._writer is None:
                await self._connect()
        # A connection that ends now is noticed by its reader, and the call is sent again.
        with contextlib.suppress(OSError):
            if self._writer is not None:
                self._writer.write(data)
                await self._writer.drain()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + RESTART_SECONDS
        while True:
            receiver = Receiver()
            try:
                reader, writer = await asyncio.open_unix_connection(self._path)
            except OSError as error:
                raise unreachable(self.daemon, error) from None
            try:
                writer.write(HELLO)
                while not receiver.ready:
                    data = await reader.read(1 << 16)
                    if not data:
                        raise ConnectionResetError("the connection ended")
                    receiver.feed(data)
                break
            except (ConnectionResetError, BrokenPipeError) as error:
                writer.close()
                if loop.time() > give_up:
                    raise unreachable(self.daemon, error) from None
                await asyncio.sleep(0.01)
            except BaseException:  # a caller that has gone leaves no connection behind
                writer.close()
                raise
        self._writer = writer
        self._reading = asyncio.create_task(self._read(reader, receiver))

    async def _read(self, reader: asyncio.StreamReader, receiver: Receiver) -> None:
        try:
            while data := await reader.read(1 << 16):
                for parts in receiver.feed(data):
                    if len(parts) != 2:
                        raise Malformed(f"an answer of {len(parts)} frames")
                    header = decode_header(parts[0])
                    if (waiting := self._waiting.get(header.id)) is not None:
                        waiting.put_nowait((Kind(header.kind), parts[1]))
        except (OSError, Malformed):
            pass
        if self._writer is not None:
            self._writer.close()
        self._writer = self._reading = None
        for waiting in self._waiting.values():
            waiting.put_nowait(None)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class AsyncPacketClient:
    """One call over a daemon's descriptor socket; a connection of its own."""

    def __init__(self, daemon: str, run: str = "/run/volt") -> None:
        self.daemon = daemon
        self._path = f"{run}/{daemon}.fd"

    async def call(
        self, call: Call[R], fds: list[int] | None = None, on_item: Callable[[Any], None] | None = None
    ) -> tuple[R, list[int]]:
        """The result and the descriptors with it, which are the caller's to close."""
        loop = asyncio.get_running_loop()
        items, result = decoders(type(call))
        id = new_id()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, self._path)
                packets.send(sock, join_packet(encode_header(Kind.CALL, id), encode(call)), fds or [])
            except OSError as error:
                raise unreachable(self.daemon, error) from None
            while True:
                packet, got = await self._receive(sock)
                header, body = split_packet(packet)
                kind = Kind(header.kind)
                if kind is Kind.DONE:
                    return decode(result, body), got
                packets.close_all(got)
                if kind is Kind.ERROR:
                    raise error_of(body)
                if kind is Kind.ITEM and on_item is not None:
                    on_item(decode(items, body))

    async def _receive(self, sock: socket.socket) -> tuple[bytes, list[int]]:
        loop = asyncio.get_running_loop()
        while True:
            try:
                packet, fds, _ = packets.receive(sock, 2 * MAX_PACKET)
                break
            except BlockingIOError:
                ready: asyncio.Future[None] = loop.create_future()
                loop.add_reader(sock.fileno(), _wake, ready)
                try:
                    await ready
                finally:
                    loop.remove_reader(sock.fileno())
            except ConnectionError:
                packet, fds = b"", []
                break
        if not packet:
            raise Unknown(what=f"the connection to {self.daemon}")
        return packet, fds
