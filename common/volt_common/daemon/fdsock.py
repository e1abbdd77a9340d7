"""The descriptor socket: SOCK_SEQPACKET, one packet a message, descriptors beside it (SCM_RIGHTS).

A connection carries one call at a time. Its end cancels the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from volt_common import packets
from volt_common.daemon.peers import Connections, Peer, peer_of_socket
from volt_common.daemon.serve import Dispatcher, Handler, PeerGone
from volt_common.errors import Malformed
from volt_common.wire import MAX_DESCRIPTORS, MAX_PACKET, Kind, encode_header, split_packet

log = logging.getLogger("volt")


class FdSocket:
    """Accepts while `open`; `close` ends every connection."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        decoder: msgspec.msgpack.Decoder[Any],
        handler: Handler,
        connections: Connections,
        activity: Callable[[], None],
    ) -> None:
        self.dispatcher = dispatcher
        self.decoder = decoder
        self.handler = handler
        self.connections = connections
        self.activity = activity
        self._open: set[_Connection] = set()

    def open(self, listening: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        listening.setblocking(False)
        self._loop.add_reader(listening.fileno(), self._accept)

    def _accept(self) -> None:
        self.activity()
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            sock, _ = self._listening.accept()
            peer = peer_of_socket(sock)
            self.connections.opened(peer.uid)
            if not self.connections.admit(peer.uid):
                self.connections.closed(peer.uid)
                sock.close()
                return
            self._open.add(_Connection(self, sock, peer, self._loop))

    def ended(self, connection: _Connection) -> None:
        self._open.discard(connection)
        self.connections.closed(connection.peer.uid)
        self.activity()

    def stop_accepting(self) -> None:
        self._loop.remove_reader(self._listening.fileno())

    def close(self) -> None:
        for connection in list(self._open):
            connection.close()


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class _Connection:
    def __init__(self, server: FdSocket, sock: socket.socket, peer: Peer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._socket = sock
        self._loop = loop
        self._closed = False
        self._sending = asyncio.Lock()
        self.peer = peer
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_PACKET)
        loop.add_reader(sock.fileno(), self._read)

    @property
    def key(self) -> object:
        return self

    def _read(self) -> None:
        try:
            packet, fds, whole = packets.receive(self._socket)
        except BlockingIOError:
            return
        except OSError:
            packet, fds, whole = b"", [], True
        self._server.activity()
        if not packet and not fds:
            self.close()
            return
        try:
            if not whole:
                raise Malformed(f"a packet has at most {MAX_PACKET} bytes and {MAX_DESCRIPTORS} descriptors")
            _, body = split_packet(packet)
        except Malformed as error:
            log.info("connection of uid %d ended: %s", self.peer.uid, error)
            packets.close_all(fds)
            self.close()
            return
        head = packet[: len(packet) - len(body)]
        self._server.dispatcher.arrive(self, self.peer, head, body, fds, self._server.decoder, self._server.handler)

    async def send(self, kind: Kind, id: bytes, body: bytes, fds: list[int]) -> None:
        packet = encode_header(kind, id) + body
        async with self._sending:
            while True:
                if self._closed:
                    raise PeerGone
                try:
                    packets.send(self._socket, packet, fds)
                    return
                except BlockingIOError:
                    await self._writable()
                except OSError:
                    self.close()
                    raise PeerGone from None

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        fd = self._socket.fileno()
        self._loop.add_writer(fd, _wake, ready)
        try:
            await ready
        finally:
            if not self._closed:
                self._loop.remove_writer(fd)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._server.dispatcher.gone(self)
        self._server.ended(self)
