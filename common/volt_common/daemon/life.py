"""The life of a daemon, from its first line to its exit.

sockets from systemd → Landlock → ZeroMQ context → READY=1 → serve → (idle, or SIGTERM) → drain → exit 0.
Landlock comes before the context because it binds only the calling thread and those it starts later.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from volt_common import landlock
from volt_common.api.base import Call, Description
from volt_common.audit import Audit
from volt_common.config import Config, load
from volt_common.daemon import journal
from volt_common.daemon.fdsock import FdSocket
from volt_common.daemon.idlog import IdLog
from volt_common.daemon.notify import activated, notify, watchdog_seconds
from volt_common.daemon.peers import Connections, Roles
from volt_common.daemon.router import Router
from volt_common.daemon.serve import Dispatcher, Request
from volt_common.errors import Invalid, Unknown, VoltError
from volt_common.paths import AUDIT, CONFIG
from volt_common.wire import encode, problem_of

VERSION = "0.1.0"
STOP_AFTER = 0.05  # seconds between the last connection's end and an idle exit's first look
REFUSING_SECONDS = STOP_AFTER  # idle time with a bad configuration: the next call starts a daemon that reads it again


class Sandbox(msgspec.Struct, frozen=True):
    """What a daemon's Landlock lets it reach: paths to read, and paths to change."""

    read: Sequence[str] = ()
    write: Sequence[str] = ()


class Daemon(Protocol):
    """What a daemon brings. `interface` and `descriptors` are the unions of its contract."""

    name: str
    interface: Any
    descriptors: Any
    roles: dict[str, tuple[type[Call[Any]], ...]]

    def sandbox(self) -> Sandbox: ...
    async def start(self, config: Config) -> None:
        """After Landlock, before the first call."""

    async def stop(self) -> None:
        """After the last call."""

    async def reload(self, config: Config) -> None:
        """SIGHUP, with a configuration that is valid."""

    def busy(self) -> bool:
        """True while there is work that no caller waits for; the daemon stays."""

    async def handle(self, call: Any, request: Request) -> msgspec.Struct: ...
    async def handle_packet(self, call: Any, request: Request) -> msgspec.Struct: ...


def run(daemon: Daemon, argv: Sequence[str] | None = None) -> None:
    """A daemon's whole main. Does not return."""
    parser = argparse.ArgumentParser(prog=f"volt-{daemon.name}")
    parser.add_argument("--listen", metavar="DIR", help="make the sockets in DIR; without it systemd passes them")
    parser.add_argument("--state", metavar="DIR", help="where answers and the audit log are kept (with --listen)")
    parser.add_argument("--idle", type=float, metavar="SECONDS", help="exit after so long without work; 0: never")
    parser.add_argument("--no-landlock", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    log = journal.set_up(f"volt-{daemon.name}")
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=True)
    try:
        asyncio.run(_Life(daemon, options, log).live())
    except VoltError as error:
        log.error("%s", error)
        sys.exit(error.exit)
    sys.exit(0)


class _Life:
    def __init__(self, daemon: Daemon, options: argparse.Namespace, log: logging.Logger) -> None:
        self._daemon = daemon
        self._options = options
        self._log = log
        self._connections = Connections()
        self._last = time.monotonic()
        self._stop = asyncio.Event()
        self._refusal: Invalid | None = None

    def _activity(self) -> None:
        self._last = time.monotonic()

    async def live(self) -> None:
        daemon = self._daemon
        config = self._configuration()
        zmq_fd, zmq_path, listening, handed = self._sockets()
        for name, fd in handed.items():
            setattr(daemon, f"{name}_fd", fd)
        state = self._options.state or (self._options.listen or f"/run/volt-{daemon.name}")
        audit_file = os.path.join(self._options.state or AUDIT, f"{daemon.name}.log")
        self._audit = self._open_audit(audit_file)
        box = daemon.sandbox()
        if not self._options.no_landlock:
            read = ["/usr", "/lib", "/lib64", "/etc", "/proc", sys.prefix, sys.base_prefix, *sys.path, *box.read]
            write = [*box.write, state, *([audit_file] if self._audit else [])]
            enforced = landlock.restrict(read, write, optional=[*read, *box.write])
            self._log.debug("landlock: %s", enforced)
        ids = IdLog(os.path.join(state, f"{daemon.name}.ids"), lambda: encode(problem_of(Unknown(what="the call"))))
        self._dispatcher = Dispatcher(daemon.name, Roles(daemon.roles), ids, self._audit, self._describe)
        self._dispatcher.refusal = self._refusal
        await daemon.start(config)
        parts = (self._dispatcher, msgspec.msgpack.Decoder(daemon.interface), daemon.handle)
        self._router = Router(*parts, self._connections, self._activity)
        packets = (self._dispatcher, msgspec.msgpack.Decoder(daemon.descriptors), daemon.handle_packet)
        self._fdsock = FdSocket(*packets, self._connections, self._activity)
        self._router.open(zmq_fd, zmq_path)
        self._fdsock.open(listening)
        self._signals()
        idle = self._options.idle if self._options.idle is not None else config.idle_seconds
        if self._refusal is not None:
            idle = min(idle, REFUSING_SECONDS)
        helpers = [asyncio.create_task(self._watchdog()), asyncio.create_task(self._exit_when_idle(idle))]
        notify("READY=1")
        await self._stop.wait()
        notify("STOPPING=1")
        for helper in helpers:
            helper.cancel()
        await self._end()

    def _configuration(self) -> Config:
        """The file's. A daemon that left because of a bad one would leave its callers waiting on systemd's socket,
        so it stays, and tells each of them what is wrong with the file."""
        try:
            return load(CONFIG)
        except Invalid as error:
            self._log.error("every call is refused: %s", error)
            self._refusal = error
            return Config()

    def _sockets(self) -> tuple[int | None, str, socket.socket, dict[str, int]]:
        """The ZeroMQ descriptor and path, the descriptor socket, and what else systemd passed."""
        given = activated()
        if self._options.listen is None:
            if "zmq" not in given or "fd" not in given:
                raise VoltError(
                    f"volt-{self._daemon.name} was given no sockets",
                    hint="start it through its socket unit, or with --listen DIR",
                )
            zmq_fd = given.pop("zmq")
            with socket.socket(fileno=os.dup(zmq_fd)) as look:
                path = look.getsockname()
            return zmq_fd, path, socket.socket(fileno=given.pop("fd")), given
        os.makedirs(self._options.listen, exist_ok=True)
        base = os.path.join(self._options.listen, self._daemon.name)
        for path in (base + ".sock", base + ".fd"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        listening.bind(base + ".fd")
        listening.listen(128)
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        stream.bind(base + ".sock")
        stream.listen(1024)
        return stream.detach(), base + ".sock", listening, given

    def _open_audit(self, at: str) -> Audit | None:
        """None without a place for it, which only a daemon outside systemd may lack."""
        if self._options.listen is not None and self._options.state is None:
            return None
        return Audit(at, self._daemon.name)

    def _describe(self) -> Description:
        from volt_common.describe import describe_daemon

        return Description(self._daemon.name, VERSION, describe_daemon(self._daemon.name))

    # -- signals

    def _signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(self._reload()))
        loop.add_signal_handler(signal.SIGUSR1, self._dump_tasks)
        if self._audit is not None:
            loop.add_signal_handler(signal.SIGUSR2, self._audit.reopen)

    async def _reload(self) -> None:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            await self._daemon.reload(load(CONFIG))
            self._dispatcher.refusal = None
            self._log.info("configuration read again")
        except VoltError as error:
            self._log.error("the old configuration stays: %s", error)
        notify("READY=1")

    def _dump_tasks(self) -> None:
        faulthandler.dump_traceback(all_threads=True)
        for task in asyncio.all_tasks():
            task.print_stack()

    # -- helpers that run beside

    async def _watchdog(self) -> None:
        every = watchdog_seconds()
        while every is not None:
            notify("WATCHDOG=1")
            await asyncio.sleep(every)

    def _quiet(self) -> bool:
        return self._connections.total <= 0 and self._dispatcher.idle and not self._daemon.busy()

    async def _exit_when_idle(self, seconds: float) -> None:
        """With no peer connected a stop can lose no message: what arrives later waits in systemd's backlog."""
        while seconds > 0:
            left = self._last + seconds - time.monotonic()
            if left > 0:
                await asyncio.sleep(max(left, STOP_AFTER))
            elif self._quiet():
                self._log.debug("idle")
                self._stop.set()
                return
            else:
                self._activity()

    # -- the end

    async def _end(self) -> None:
        self._router.stop_reading()
        self._fdsock.stop_accepting()
        self._dispatcher.cancel_reads()
        await self._dispatcher.drain()
        await self._daemon.stop()
        self._fdsock.close()
        self._router.close()
