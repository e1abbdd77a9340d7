"""A connection to a D-Bus bus that is made again when it breaks, for one service on it.

A bus lets anyone send anyone a signal, so only those of the service's present owner are passed on. `greet` is run
each time the service can be reached anew: at first, after a restart of the bus, and when another process (systemd
after daemon-reexec) takes the name over. Calls wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
from jeepney import DBusAddress, HeaderFields, Message, MessageType, new_method_call  # type: ignore[import-untyped]
from jeepney.io.asyncio import DBusConnection, open_dbus_connection  # type: ignore[import-untyped] # has no py.typed

CALL_SECONDS: Final = 25.0  # as libdbus and sd-bus have it
REACH_SECONDS: Final = 5.0  # how long a call waits for a bus or a service that is being restarted
_PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # between attempts to connect, the last for good
_BUS: Final = "org.freedesktop.DBus"

log = logging.getLogger("volt")


class Lost(Exception):
    """The connection, or the service, went before it answered: whether the call took effect is not known."""


class NotThere(Exception):
    """No bus, or nobody of that name on it."""


class Refused(Exception):
    """The service answered with an error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


class Signal(msgspec.Struct, frozen=True):
    """A signal of the service. The body's types are those of its D-Bus signature."""

    path: str
    member: str
    body: tuple[Any, ...]


class Bus:
    """States: connecting, ready, broken (on its own back to ready), closed."""

    def __init__(
        self,
        address: str,
        service: str,
        matches: Sequence[str],
        on_signal: Callable[[Signal], None],
        greet: Callable[[], Awaitable[None]],
    ) -> None:
        """`address` is D-Bus's (`unix:path=…`) or `SYSTEM`; `matches` are match rules without type and sender."""
        self._address = address
        self._service = service
        self._matches = matches
        self._on_signal = on_signal
        self._greet_caller = greet
        self._conn: DBusConnection | None = None
        self._owner = ""
        self._ready = asyncio.Event()
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def connect(self) -> None:
        """Raises NotThere; then it may be called again."""
        await self._open()
        if not self._owner:
            await self._hang_up()
            raise NotThere(f"nobody on the bus is called {self._service}")
        await self._greet()

    async def close(self) -> None:
        """Give up for good. Calls under way end with Lost."""
        self._closed = True
        conn = self._conn
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await self._hang_up()
        await asyncio.gather(*tasks, return_exceptions=True)
        if conn is not None:
            with contextlib.suppress(OSError):
                await conn.writer.wait_closed()

    async def call(self, path: str, interface: str, member: str, signature: str = "", *arguments: object) -> Any:
        """The reply's arguments. Raises Refused, Lost, NotThere, TimeoutError."""
        try:
            async with asyncio.timeout(REACH_SECONDS):
                await self._ready.wait()
        except TimeoutError:
            raise NotThere(f"{self._service} has been away for {REACH_SECONDS:.0f} s") from None
        return await self.call_now(path, interface, member, signature, *arguments)

    async def call_now(self, path: str, interface: str, member: str, signature: str = "", *arguments: object) -> Any:
        """`call` without waiting for `greet`, which therefore may use it."""
        return await self._exchange(DBusAddress(path, self._service, interface), member, signature, arguments)

    async def _exchange(self, to: DBusAddress, member: str, signature: str, arguments: tuple[object, ...]) -> Any:
        conn = self._conn
        if conn is None:
            raise Lost
        serial = next(conn.outgoing_serial)
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._replies[serial] = reply
        try:
            async with asyncio.timeout(CALL_SECONDS):
                message = new_method_call(to, member, signature or None, arguments)
                with contextlib.suppress(OSError):  # the receiver sees the end too, and ends the reply
                    await conn.send(message, serial=serial)
                answer = await reply
        finally:
            self._replies.pop(serial, None)
        if answer.header.message_type is MessageType.error:
            name = str(answer.header.fields.get(HeaderFields.error_name, ""))
            if name == f"{_BUS}.Error.NoReply":
                raise Lost
            raise Refused(name, str(answer.body[0]) if answer.body else "")
        return answer.body

    async def _ask_bus(self, member: str, signature: str, *arguments: object) -> Any:
        return await self._exchange(DBusAddress("/org/freedesktop/DBus", _BUS, _BUS), member, signature, arguments)

    # -- the connection's life

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                conn = await open_dbus_connection(self._address)
        except (OSError, EOFError, ValueError, TimeoutError, RuntimeError) as error:
            raise NotThere(str(error) or type(error).__name__) from None
        self._conn = conn
        self._spawn(self._receive(conn))
        try:
            rules = [f"{rule},sender='{self._service}'" for rule in self._matches]
            rules.append(f"interface='{_BUS}',member='NameOwnerChanged',sender='{_BUS}',arg0='{self._service}'")
            for rule in rules:
                await self._ask_bus("AddMatch", "s", f"type='signal',{rule}")
            with contextlib.suppress(Refused):  # nobody has it: NameOwnerChanged will say when
                self._owner = str((await self._ask_bus("GetNameOwner", "s", self._service))[0])
        except (Lost, Refused, TimeoutError) as error:
            await self._hang_up()
            raise NotThere(str(error) or "the bus hung up") from None

    async def _receive(self, conn: DBusConnection) -> None:
        try:
            while True:
                self._take(await conn.receive())
        except (EOFError, OSError, ValueError):  # ValueError: bytes that are no message
            pass
        finally:
            if self._conn is conn:
                await self._hang_up()
                if not self._closed:
                    self._spawn(self._connect_again())

    async def _hang_up(self) -> None:
        conn, self._conn = self._conn, None
        self._owner = ""
        self._ready.clear()
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(Lost())
        if conn is not None:
            conn.writer.close()

    async def _connect_again(self) -> None:
        for attempt in range(1 << 62):
            await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            try:
                await self._open()
            except NotThere:
                continue
            if self._owner:
                await self._greet()
            return

    async def _greet(self) -> None:
        owner = self._owner
        try:
            await self._greet_caller()
        except (Lost, TimeoutError):  # what took the connection away also starts the next greeting
            return
        except Refused as error:
            log.warning("D-Bus: %s", error)
        if owner == self._owner:
            self._ready.set()

    # -- what arrives

    def _take(self, message: Message) -> None:
        fields = message.header.fields
        kind = message.header.message_type
        if kind in (MessageType.method_return, MessageType.error):
            reply = self._replies.get(fields.get(HeaderFields.reply_serial, 0))
            if reply is not None and not reply.done():
                reply.set_result(message)
        elif kind is MessageType.signal:
            sender = fields.get(HeaderFields.sender)
            member = str(fields.get(HeaderFields.member))
            if sender == _BUS:
                if member == "NameOwnerChanged" and message.body[0] == self._service:
                    self._owned_by(str(message.body[2]))
            elif sender == self._owner:
                self._on_signal(Signal(str(fields.get(HeaderFields.path)), member, message.body))

    def _owned_by(self, owner: str) -> None:
        if owner != self._owner:
            self._owner = owner
            self._ready.clear()
            if owner:
                self._spawn(self._greet())

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
