"""The command's client: one call at a time over a plain socket, with no thread and no event loop."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from volt_common import packets
from volt_common.api.base import Call, Stream
from volt_common.client.replies import RESTART_SECONDS, decode, decoders, error_of, progress_of, unreachable
from volt_common.errors import Malformed, TimedOut, Unknown, Unreachable
from volt_common.wire import (
    MAX_PACKET,
    Kind,
    Progress,
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
OnProgress = Callable[[Progress], None]


def _connect(path: str, kind: socket.SocketKind, daemon: str, until: float) -> socket.socket:
    """Connect, waiting for a daemon whose backlog is full for a moment."""
    while True:
        sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
        try:
            sock.connect(path)
            return sock
        except (BlockingIOError, ConnectionRefusedError) as error:
            sock.close()
            if isinstance(error, ConnectionRefusedError) or time.monotonic() > until:
                raise unreachable(daemon, error) from None
            time.sleep(0.01)
        except OSError as error:
            sock.close()
            raise unreachable(daemon, error) from None


class Client:
    """Calls to one daemon over its ZeroMQ socket.

    `timeout` (seconds, None for none) goes with each call as its deadline. A call whose connection ends is
    sent again with the same id until it is answered: the daemon gives the first answer.
    """

    def __init__(self, daemon: str, run: str = "/run/volt", timeout: float | None = None) -> None:
        self.daemon = daemon
        self._path = f"{run}/{daemon}.sock"
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._receiver = Receiver()
        self._queue: list[list[bytes]] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def call(self, call: Call[R], on_progress: OnProgress | None = None) -> R:
        """The result. Raises the daemon's error, TimedOut, Unreachable."""
        result: R
        for kind, value in self._replies(call, on_progress):
            if kind is Kind.DONE:
                result = value
        return result

    def stream(self, call: Stream[I, R], on_progress: OnProgress | None = None) -> Iterator[I]:
        """The items. A stream that is cut off after its first item raises Unreachable."""
        for kind, value in self._replies(call, on_progress):
            if kind is Kind.ITEM:
                yield value

    def collect(self, call: Stream[I, R], on_progress: OnProgress | None = None) -> tuple[list[I], R]:
        """All items and the result."""
        items: list[I] = []
        result: R
        for kind, value in self._replies(call, on_progress):
            if kind is Kind.ITEM:
                items.append(value)
            else:
                result = value
        return items, result

    def _replies(self, call: Call[Any], on_progress: OnProgress | None) -> Iterator[tuple[Kind, Any]]:
        id = new_id()
        body = encode(call)
        until = None if self._timeout is None else time.monotonic() + self._timeout
        items, result = decoders(type(call))
        give_up = time.monotonic() + RESTART_SECONDS
        begun = finished = False
        try:
            self._send(Kind.CALL, id, body, until)
            while True:
                try:
                    kind, data = self._next(id, until)
                except ConnectionError as error:
                    self.close()
                    if begun:
                        raise Unreachable("the connection ended inside the answer", daemon=self.daemon) from None
                    if time.monotonic() > give_up:
                        raise unreachable(self.daemon, error) from None
                    time.sleep(0.01)
                    self._send(Kind.CALL, id, body, until)
                    continue
                give_up = time.monotonic() + RESTART_SECONDS
                if kind is Kind.PROGRESS:
                    if on_progress is not None:
                        on_progress(progress_of(data))
                elif kind is Kind.ITEM:
                    begun = True
                    yield kind, decode(items, data)
                elif kind is Kind.DONE:
                    finished = True
                    yield kind, decode(result, data)
                    return
                else:
                    finished = True
                    raise error_of(data)
        except TimeoutError:
            raise TimedOut(what=str(call.__struct_config__.tag), seconds=str(self._timeout)) from None
        finally:
            if not finished:
                self._cancel(id)

    def _cancel(self, id: bytes) -> None:
        """Stop the work on the daemon's side too. What it still answers is dropped by its id."""
        with contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.sendall(message((encode_header(Kind.CANCEL, id), b"")))

    def _send(self, kind: Kind, id: bytes, body: bytes, until: float | None) -> None:
        ms = 0 if until is None else max(1, int((until - time.monotonic()) * 1000))
        data = message((encode_header(kind, id, ms), body))
        patience = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                if self._socket is None:
                    self._greet(_connect(self._path, socket.SOCK_STREAM, self.daemon, patience), until)
                assert self._socket is not None
                self._socket.sendall(data)
                return
            except (BrokenPipeError, ConnectionResetError) as error:
                self.close()
                if time.monotonic() > patience:
                    raise unreachable(self.daemon, error) from None
                time.sleep(0.01)

    def _greet(self, sock: socket.socket, until: float | None) -> None:
        self._socket = sock
        self._receiver = Receiver()
        self._queue = []
        sock.sendall(HELLO)
        while not self._receiver.ready:
            self._receive(until)

    def _receive(self, until: float | None) -> None:
        """Take what has come, or wait for it. Raises ConnectionError, TimeoutError."""
        assert self._socket is not None
        if until is not None:
            left = until + 1.0 - time.monotonic()  # the daemon's own answer of the deadline comes first
            self._socket.settimeout(max(left, 0.001))
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError("the connection ended")
        self._queue += self._receiver.feed(data)

    def _next(self, id: bytes, until: float | None) -> tuple[Kind, bytes]:
        """The next reply to `id`. Raises ConnectionError, TimeoutError."""
        while True:
            while self._queue:
                parts = self._queue.pop(0)
                if len(parts) != 2:
                    raise Malformed(f"an answer of {len(parts)} frames")
                header = decode_header(parts[0])
                if header.id == id:
                    return Kind(header.kind), parts[1]
            self._receive(until)


class PacketClient:
    """Calls to one daemon over its descriptor socket, one at a time."""

    def __init__(self, daemon: str, run: str = "/run/volt", timeout: float | None = None) -> None:
        self.daemon = daemon
        self._timeout = timeout
        until = time.monotonic() + RESTART_SECONDS
        self._socket = _connect(f"{run}/{daemon}.fd", socket.SOCK_SEQPACKET, daemon, until)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_PACKET)

    def __enter__(self) -> PacketClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """To poll for the next reply."""
        return self._socket.fileno()

    def call(
        self,
        call: Call[R],
        fds: list[int] | None = None,
        on_item: Callable[[Any], None] | None = None,
        on_progress: OnProgress | None = None,
    ) -> tuple[R, list[int]]:
        """The result and the descriptors with it, which are the caller's to close."""
        id = self.begin(call, fds or [])
        while True:
            kind, value, got = self.next(id, call, on_item, on_progress)
            if kind is Kind.DONE:
                return value, got

    def begin(self, call: Call[Any], fds: list[int]) -> bytes:
        """Send a call; its id. `next` has its replies."""
        id = new_id()
        ms = 0 if self._timeout is None else max(1, int(self._timeout * 1000))
        self._send(join_packet(encode_header(Kind.CALL, id, ms), encode(call)), fds)
        return id

    def more(self, id: bytes, body: msgspec.Struct, fds: list[int]) -> None:
        """A further packet of the call `id`."""
        self._send(join_packet(encode_header(Kind.MORE, id), encode(body)), fds)

    def cancel(self, id: bytes) -> None:
        self._send(encode_header(Kind.CANCEL, id), [])

    def next(
        self,
        id: bytes,
        call: Call[Any],
        on_item: Callable[[Any], None] | None = None,
        on_progress: OnProgress | None = None,
        item_type: type[Any] | None = None,
    ) -> tuple[Kind, Any, list[int]]:
        """The next ITEM (decoded as `item_type`, else plain) or DONE, with its descriptors. Raises the
        daemon's error."""
        items, result = decoders(type(call))
        if item_type is not None:
            items = msgspec.msgpack.Decoder(item_type)
        while True:
            packet, fds = self._receive()
            header, body = split_packet(packet)
            if header.id != id:
                packets.close_all(fds)
                continue
            kind = Kind(header.kind)
            if kind is Kind.PROGRESS:
                if on_progress is not None:
                    on_progress(progress_of(body))
            elif kind is Kind.ITEM:
                value = decode(items, body)
                if on_item is not None:
                    on_item(value)
                return kind, value, fds
            elif kind is Kind.DONE:
                return kind, decode(result, body), fds
            else:
                packets.close_all(fds)
                raise error_of(body)

    def ready(self, seconds: float = 0.0) -> bool:
        """True if `next` would not wait."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def _send(self, packet: bytes, fds: list[int]) -> None:
        while True:
            try:
                packets.send(self._socket, packet, fds)
                return
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:  # too many descriptors in flight, the daemon takes them
                    time.sleep(0.005)
                    continue
                if isinstance(error, (BrokenPipeError, ConnectionResetError)):
                    return  # the reason may stand in a reply that waits to be read
                raise unreachable(self.daemon, error) from None

    def _receive(self) -> tuple[bytes, list[int]]:
        self._socket.settimeout(None if self._timeout is None else self._timeout + 1.0)
        try:
            packet, fds, _ = packets.receive(self._socket, 2 * MAX_PACKET)
        except TimeoutError:
            raise TimedOut(what=f"a call of {self.daemon}", seconds=str(self._timeout)) from None
        except ConnectionError:
            packet, fds = b"", []
        if not packet:
            raise Unknown(what=f"the connection to {self.daemon}", hint="it was restarted; look, then try again")
        return packet, fds
