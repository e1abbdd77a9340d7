"""One request from its bytes to its last reply, the same for both kinds of socket.

The order is fixed: header, kind, typed decode, access, deadline, id, handler. Every failure on the way is a
typed error to the caller; a fault of ours is logged under the request's id and answered as INTERNAL.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from volt_common.api.base import Call, Describe, Description
from volt_common.audit import Audit
from volt_common.daemon.idlog import Answer, IdLog
from volt_common.daemon.peers import Peer, Roles
from volt_common.errors import Denied, Exhausted, Internal, Interrupted, Malformed, TimedOut, Unknown, VoltError
from volt_common.packets import close_all
from volt_common.wire import Header, Kind, Progress, decode_header, encode, problem_of

MAX_PER_PEER = 256  # calls of one connection under way at once
MAX_IN_FLIGHT = 2048  # of all
MAX_QUEUED_MORE = 4  # MORE packets a call has not taken yet
DRAIN_SECONDS = 20.0

log = logging.getLogger("volt")

Handler = Callable[[Any, "Request"], Awaitable[msgspec.Struct]]


class PeerGone(Exception):
    """Nobody is left to answer."""


class Sink(Protocol):
    """Where the replies of one connection go."""

    @property
    def key(self) -> object:
        """Equal for all messages of one connection."""

    async def send(self, kind: Kind, id: bytes, body: bytes, fds: list[int]) -> None:
        """Waits while the peer is slow. Raises PeerGone."""


class Request:
    """A call under way, as its handler sees it."""

    def __init__(self, sink: Sink, peer: Peer, header: Header, fds: list[int]) -> None:
        self._sink = sink
        self.peer = peer
        self.id = header.id
        self.deadline_ms = header.deadline_ms
        self.fds = fds
        self.reply_fds: list[int] = []
        self.task: asyncio.Task[None] | None = None
        self.cancelled_by: VoltError | None = None
        self._more: asyncio.Queue[tuple[bytes, list[int]]] = asyncio.Queue()

    def take_fds(self) -> list[int]:
        """The call's descriptors, now the handler's to close."""
        fds, self.fds = self.fds, []
        return fds

    async def item(self, body: msgspec.Struct) -> None:
        await self._sink.send(Kind.ITEM, self.id, encode(body), [])

    async def progress(self, done: int, total: int, text: str) -> None:
        await self._sink.send(Kind.PROGRESS, self.id, encode(Progress(done, total, text)), [])

    async def more(self) -> tuple[bytes, list[int]]:
        """The next MORE packet: its body, and its descriptors, now the handler's to close."""
        return await self._more.get()

    def offer(self, body: bytes, fds: list[int]) -> None:
        """A MORE packet has arrived. Raises Exhausted if the handler is too far behind."""
        if self._more.qsize() >= MAX_QUEUED_MORE:
            raise Exhausted(f"at most {MAX_QUEUED_MORE} packets may be unanswered", resource="room")
        self._more.put_nowait((body, fds))

    def cancel(self, why: VoltError) -> None:
        if self.task is not None and self.cancelled_by is None:
            self.cancelled_by = why
            self.task.cancel()

    def close(self) -> None:
        while not self._more.empty():
            self.fds += self._more.get_nowait()[1]
        close_all(self.fds + self.reply_fds)
        self.fds, self.reply_fds = [], []


def op_of(call: Call[Any]) -> str:
    return str(call.__struct_config__.tag)


class Dispatcher:
    """All requests of a daemon, from all its sockets."""

    def __init__(
        self, daemon: str, roles: Roles, ids: IdLog, audit: Audit | None, describe: Callable[[], Description]
    ) -> None:
        self._daemon = daemon
        self._roles = roles
        self._ids = ids
        self._audit = audit
        self._describe = describe
        self._calls: dict[tuple[object, bytes], Request] = {}
        self._per_peer: Counter[object] = Counter()
        self._replies: set[asyncio.Task[None]] = set()
        self.refusal: VoltError | None = None  # what every call is answered, while the configuration can't be used

    @property
    def idle(self) -> bool:
        return not self._calls and not self._replies

    def arrive(
        self,
        sink: Sink,
        peer: Peer,
        header_bytes: bytes,
        body: bytes | memoryview,
        fds: list[int],
        decoder: msgspec.msgpack.Decoder[Any],
        handler: Handler,
    ) -> None:
        """Take a message. It owns `fds` from here on."""
        id = bytes(16)
        try:
            header = decode_header(header_bytes)
            id = header.id
            if header.kind == Kind.CALL:
                self._call(sink, peer, header, body, fds, decoder, handler)
                return
            running = self._calls.get((sink.key, header.id))
            if header.kind == Kind.CANCEL:
                close_all(fds)
                if running is not None:
                    running.cancel(Interrupted(signal="its caller"))
            elif header.kind == Kind.MORE:
                if running is None:
                    raise Malformed("a MORE of no call under way")
                running.offer(bytes(body), fds)
            else:
                raise Malformed(f"kind {header.kind} does not go this way")
        except VoltError as error:
            close_all(fds)
            self._refuse(sink, id, error)

    def _call(
        self,
        sink: Sink,
        peer: Peer,
        header: Header,
        body: bytes | memoryview,
        fds: list[int],
        decoder: msgspec.msgpack.Decoder[Any],
        handler: Handler,
    ) -> None:
        try:
            call: Call[Any] = decoder.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Malformed(str(error)) from None
        wanted = type(call).descriptors
        if wanted is not None and len(fds) != wanted:
            raise Malformed(f"{op_of(call)} takes {wanted} descriptors, not {len(fds)}")
        try:
            self._roles.check(peer, call)
        except Denied as error:
            self._write_audit(peer, header.id, call, "denied", error.message)
            raise
        if self.refusal is not None:
            raise self.refusal
        if (sink.key, header.id) in self._calls:
            raise Malformed("this id is under way on this connection")
        if len(self._calls) >= MAX_IN_FLIGHT or self._per_peer[sink.key] >= MAX_PER_PEER:
            raise Exhausted("too many calls at once", resource="room", hint="wait for answers before asking more")
        request = Request(sink, peer, header, fds)
        self._calls[sink.key, header.id] = request
        self._per_peer[sink.key] += 1
        request.task = asyncio.get_running_loop().create_task(self._run(sink, request, call, handler))

    async def _run(self, sink: Sink, request: Request, call: Call[Any], handler: Handler) -> None:
        try:
            answer = await self._answer(request, call, handler)
            # Shielded by nothing: a CANCEL that comes now finds the work done and changes nothing.
            await sink.send(Kind(answer.kind), request.id, answer.body, request.reply_fds)
        except (PeerGone, asyncio.CancelledError):
            pass
        finally:
            request.close()
            self._calls.pop((sink.key, request.id), None)
            self._per_peer[sink.key] -= 1
            if self._per_peer[sink.key] <= 0:
                del self._per_peer[sink.key]

    async def _answer(self, request: Request, call: Call[Any], handler: Handler) -> Answer:
        if not type(call).mutates:
            return await self._handle(request, call, handler)
        key = (request.peer.uid, request.id)
        known = self._ids.known(key)
        if isinstance(known, Answer):
            return known
        if known is not None:
            return await asyncio.shield(known)
        try:
            self._ids.begin(key)
        except OSError as error:
            return Answer(Kind.ERROR, encode(problem_of(Exhausted(str(error.strerror), resource="space in /run"))))
        answer = Answer(Kind.ERROR, encode(problem_of(Unknown(what=op_of(call)))))
        try:
            answer = await self._handle(request, call, handler)
        finally:
            self._ids.finish(key, answer)
        return answer

    async def _handle(self, request: Request, call: Call[Any], handler: Handler) -> Answer:
        seconds = request.deadline_ms / 1000 if request.deadline_ms else None
        error: VoltError
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                if isinstance(call, Describe):
                    result: msgspec.Struct = self._describe()
                else:
                    result = await handler(call, request)
            body = encode(result)
        except VoltError as failure:
            error = failure
        except PeerGone:
            if not type(call).mutates:
                raise
            error = Interrupted(signal="the end of its connection")
        except TimeoutError as failure:
            if not limit.expired():
                error = self._fault(request, call, failure)
            else:
                error = TimedOut(what=op_of(call), seconds=str(seconds))
        except asyncio.CancelledError:
            if request.cancelled_by is None:
                raise
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            error = request.cancelled_by
        except Exception as failure:  # noqa: BLE001 - the edge of a task: logged with its request's id
            error = self._fault(request, call, failure)
        else:
            if type(call).mutates:
                self._write_audit(request.peer, request.id, call, "success", "")
            return Answer(Kind.DONE, body)
        if type(call).mutates:
            self._write_audit(request.peer, request.id, call, error.code, error.message)
        return Answer(Kind.ERROR, encode(problem_of(error)))

    def _fault(self, request: Request, call: Call[Any], failure: Exception) -> VoltError:
        fields = {"VOLT_REQUEST": request.id.hex(), "VOLT_OPERATION": op_of(call)}
        log.error("%s failed (request %s)", op_of(call), request.id.hex(), exc_info=failure, extra={"volt": fields})
        return Internal(daemon=self._daemon, id=request.id.hex())

    def _write_audit(self, peer: Peer, id: bytes, call: Call[Any], result: str, why: str) -> None:
        if self._audit is None:
            return
        resource = getattr(call, type(call).resource, None) if type(call).resource else None
        try:
            detail = {"why": why} if why else {}
            self._audit.write(peer.uid, peer.pid, op_of(call), str(resource or ""), result, id, detail)
        except OSError as error:
            log.error("the audit log can't be written: %s", error)

    def _refuse(self, sink: Sink, id: bytes, error: VoltError) -> None:
        """Answer a message that never became a call. A peer that does not read its replies gets no queue."""
        if len(self._replies) >= MAX_PER_PEER:
            return

        async def reply() -> None:
            with contextlib.suppress(PeerGone):
                await sink.send(Kind.ERROR, id, encode(problem_of(error)), [])

        task = asyncio.get_running_loop().create_task(reply())
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    def gone(self, key: object) -> None:
        """The connection `key` has ended: nobody waits for its calls."""
        for (owner, _), request in list(self._calls.items()):
            if owner == key:
                request.cancel(Interrupted(signal="the end of its connection"))

    async def drain(self) -> None:
        """Let calls end; those that do not in time are cancelled, and say so. Streams without an end of
        their own (events, waits) are cancelled at once by the daemon's `stop`."""
        await self._wait(DRAIN_SECONDS)
        for request in list(self._calls.values()):
            request.cancel(Interrupted(signal="the daemon's stop"))
        await self._wait(2.0)
        for task in [r.task for r in self._calls.values() if r.task is not None] + list(self._replies):
            task.cancel()

    def cancel_reads(self) -> None:
        """End the calls that change nothing: their clients ask the next daemon again."""
        for request in list(self._calls.values()):
            key = (request.peer.uid, request.id)
            if not isinstance(self._ids.known(key), asyncio.Future) and request.task is not None:
                request.task.cancel()

    async def _wait(self, seconds: float) -> None:
        tasks = [r.task for r in self._calls.values() if r.task is not None] + list(self._replies)
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
