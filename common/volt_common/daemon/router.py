"""The ZeroMQ socket: a ROUTER on a listening descriptor, read from asyncio without a thread of ours.

What is not three frames from a peer the kernel vouches for is dropped without a word. Three rules of libzmq
shape this file: its descriptor is edge-triggered, so it is drained, and looked at again after each send; a
ROUTER drops replies to a slow reader unless ROUTER_MANDATORY is set; ZAP is what stops the peers of old
protocol versions, which carry no Peer-Address, and it fails open unless ZAP_ENFORCE_DOMAIN is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

import msgspec
import zmq
from zmq.utils.monitor import parse_monitor_message

from volt_common.daemon.peers import Connections, peer_of_address, peer_of_socket
from volt_common.daemon.serve import Dispatcher, Handler, PeerGone
from volt_common.wire import MAX_MESSAGE, Kind, encode_header

log = logging.getLogger("volt")

ZAP_ENFORCE_DOMAIN: Final = 93
SEND_QUEUE: Final = 32  # messages held for one slow reader before its calls wait
RECEIVE_QUEUE: Final = 64
BURST: Final = 128  # messages taken before other work has its turn
MAX_HELD: Final = 32 << 20  # bytes of replies that wait for slow readers, of all of them
SLOWEST_POLL: Final = 0.05


class Router:
    """Call `open` once; `close` lets replies that are queued leave."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        decoder: msgspec.msgpack.Decoder[Any],
        handler: Handler,
        connections: Connections,
        activity: Callable[[], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._decoder = decoder
        self._handler = handler
        self.connections = connections
        self._activity = activity
        self._uids: dict[int, int] = {}
        self._held = 0
        self._again = False
        self._reading = False

    def open(self, fd: int | None, path: str) -> None:
        """Serve on `fd`, a listening socket bound to `path`, or bind `path` if it is None."""
        self._loop = asyncio.get_running_loop()
        self._context = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        sock = self._socket = self._context.socket(zmq.ROUTER)
        sock.setsockopt(zmq.LINGER, 2000)
        sock.setsockopt(zmq.ROUTER_MANDATORY, 1)
        sock.setsockopt(zmq.SNDHWM, SEND_QUEUE)
        sock.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE)
        sock.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
        sock.setsockopt(zmq.HANDSHAKE_IVL, 5000)
        sock.setsockopt(zmq.BACKLOG, 1024)
        sock.setsockopt_string(zmq.ZAP_DOMAIN, "volt")
        sock.setsockopt(ZAP_ENFORCE_DOMAIN, 1)
        sock.monitor("inproc://monitor", zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._monitor = self._context.socket(zmq.PAIR)
        self._monitor.connect("inproc://monitor")
        if fd is not None:
            sock.setsockopt(zmq.USE_FD, fd)
        sock.bind(f"ipc://{path}")
        self._reading = True
        for source in (self._zap, self._monitor, sock):
            self._loop.add_reader(_number(source, zmq.FD), self._wake)
        self._wake()

    # -- in

    def _wake(self) -> None:
        """Take what has come. Connections first: the limit must know them before their handshake."""
        self._again = False
        if self._socket.closed:
            return
        self._take_monitor()
        self._take_zap()
        if self._reading and self._take_messages():
            self._later()

    def _later(self) -> None:
        if not self._again:
            self._again = True
            self._loop.call_soon(self._wake)

    def _take_monitor(self) -> None:
        while True:
            try:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            fd = event["value"]
            if event["event"] == zmq.EVENT_ACCEPTED:
                uid = _uid_of(fd)
                self._uids[fd] = uid
                self.connections.opened(uid)
            elif event["event"] == zmq.EVENT_DISCONNECTED and fd in self._uids:
                self.connections.closed(self._uids.pop(fd))
            self._activity()

    def _take_zap(self) -> None:
        """Answer handshakes: rfc.zeromq.org/spec/27. The address of an ipc peer is its credentials."""
        while True:
            try:
                request = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            version, sequence, _, address, *_ = [*request, b"", b"", b"", b""]
            self._take_monitor()
            peer = peer_of_address(address.decode("utf-8", "replace"))
            if peer is None:
                status, text = b"400", b"only local peers that the kernel names"
            elif not self.connections.admit(peer.uid):
                status, text = b"400", b"too many connections"
            else:
                status, text = b"200", b""
            self._zap.send_multipart([version, sequence, status, text, b"", b""])

    def _take_messages(self) -> bool:
        """True if more may wait."""
        for _ in range(BURST):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            self._activity()
            if len(frames) != 3:
                continue
            try:
                peer = peer_of_address(str(frames[1].get("Peer-Address")))
            except zmq.ZMQError:
                continue
            if peer is None:
                continue
            sink = _PeerSink(self, frames[0].bytes)
            self._dispatcher.arrive(sink, peer, frames[1].bytes, frames[2].buffer, [], self._decoder, self._handler)
        return True

    # -- out

    async def send(self, identity: bytes, kind: Kind, id: bytes, body: bytes) -> None:
        frames = [identity, encode_header(kind, id), body]
        if self._try(frames):
            return
        if self._held + len(body) > MAX_HELD:
            raise PeerGone
        self._held += len(body)
        try:
            pause = 0.001
            while not self._try(frames):
                await asyncio.sleep(pause)
                pause = min(pause * 2, SLOWEST_POLL)
        finally:
            self._held -= len(body)

    def _try(self, frames: list[bytes]) -> bool:
        """False if the peer's queue is full. Raises PeerGone."""
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                raise PeerGone from None
            raise
        finally:
            if self._reading:
                self._later_if_more()
        return True

    def _later_if_more(self) -> None:
        if not self._again and _number(self._socket, zmq.EVENTS) & zmq.POLLIN:
            self._later()

    # -- end

    def stop_reading(self) -> None:
        """Take no more calls; what waits is sent again by its clients when the connection has ended."""
        self._reading = False

    def close(self) -> None:
        for source in (self._zap, self._monitor, self._socket):
            self._loop.remove_reader(_number(source, zmq.FD))
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()
        self._zap.close(0)
        self._context.term()


class _PeerSink:
    __slots__ = ("_identity", "_router")

    def __init__(self, router: Router, identity: bytes) -> None:
        self._router = router
        self._identity = identity

    @property
    def key(self) -> object:
        return self._identity

    async def send(self, kind: Kind, id: bytes, body: bytes, fds: list[int]) -> None:
        assert not fds, "descriptors travel on the descriptor socket"
        await self._router.send(self._identity, kind, id, body)


def _number(source: zmq.Socket[bytes], option: int) -> int:
    return int(source.getsockopt(option))


def _uid_of(fd: int) -> int:
    """Of a connection libzmq has just accepted; -1 if it has ended meanwhile."""
    with contextlib.suppress(OSError):
        sock = socket.socket(fileno=fd)
        try:
            return peer_of_socket(sock).uid
        finally:
            sock.detach()
    return -1
