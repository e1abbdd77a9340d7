"""A private message bus, and on it a small systemd: enough of org.freedesktop.systemd1 to be started, stopped,
watched, restarted and lost. The bus is the real dbus-daemon."""

import asyncio
import contextlib
import fnmatch
import shutil
import signal
from collections import Counter

import pytest
from jeepney import (
    DBusAddress,
    HeaderFields,
    MessageType,
    new_error,
    new_method_call,
    new_method_return,
    new_signal,
)
from jeepney.io.asyncio import open_dbus_connection

from volt_common.unit import escape, unescape

SERVICE = "org.freedesktop.systemd1"
MANAGER = "/org/freedesktop/systemd1"
UNITS = MANAGER + "/unit/"

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
<allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
<allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/></policy></busconfig>
"""


def job(state):
    return state["Job"][1][0]


class PrivateBus:
    """A dbus-daemon that can be restarted on the same socket."""

    def __init__(self, directory):
        self.path = directory / "bus"
        self.address = f"unix:path={self.path}"
        self.config = directory / "bus.conf"
        self.config.write_text(CONFIG.format(path=self.path))
        self.process = None

    async def start(self):
        command = ["dbus-daemon", f"--config-file={self.config}", "--nofork", "--nopidfile", "--print-address"]
        self.process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        await self.process.stdout.readline()

    async def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
            self.process._transport.close()
            self.process = None
            self.path.unlink(missing_ok=True)


class FakeSystemd:
    """What a test sets: `refuse[member] = (error, text)`, `silent` members get no answer, `hold` units' jobs wait for
    `finish`, `early` sends a job's end before the call's answer. What it may look at: `calls`, `count`."""

    def __init__(self, address):
        self.address = address
        self.units = {}
        self.jobs = {}
        self.next_job = 1
        self.calls = []
        self.count = Counter()
        self.refuse = {}
        self.silent = set()
        self.hold = set()
        self.early = False
        self.result = "done"
        self.heard = asyncio.Condition()

    async def start(self):
        self.conn = await open_dbus_connection(self.address)
        bus = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
        await self.conn.send(new_method_call(bus, "RequestName", "su", (SERVICE, 4)))
        while (await self.conn.receive()).header.message_type is not MessageType.method_return:
            pass
        self.task = asyncio.create_task(self._serve())

    async def stop(self):
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, EOFError, OSError):
            await self.task
        self.conn.writer.close()
        with contextlib.suppress(OSError):
            await self.conn.writer.wait_closed()

    async def asked(self, member, times=1):
        """Returns when a method has been called so often."""
        async with self.heard:
            await self.heard.wait_for(lambda: self.count[member] >= times)

    async def set(self, unit, active="active", sub="running", **properties):
        """Load a unit, or change it."""
        known = unit in self.units
        state = self.units.setdefault(unit, {"LoadState": ("s", "loaded"), "Job": ("(uo)", (0, "/"))})
        state.update({"ActiveState": ("s", active), "SubState": ("s", sub)}, **properties)
        if not known:
            await self.emit(MANAGER, SERVICE + ".Manager", "UnitNew", "so", unit, UNITS + escape(unit))
            return
        changed = {key: state[key] for key in ("ActiveState", "SubState", "Job")}
        path = UNITS + escape(unit)
        await self.emit(
            path, "org.freedesktop.DBus.Properties", "PropertiesChanged", "sa{sv}as", SERVICE + ".Unit", changed, []
        )

    async def unload(self, unit):
        self.units.pop(unit, None)
        await self.emit(MANAGER, SERVICE + ".Manager", "UnitRemoved", "so", unit, UNITS + escape(unit))

    async def finish(self, unit, result="done", active=None):
        id = self.jobs.pop(unit)
        if unit in self.units:
            self.units[unit]["Job"] = ("(uo)", (0, "/"))
        if active:
            await self.set(unit, active)
        await self.emit(MANAGER, SERVICE + ".Manager", "JobRemoved", "uoss", id, f"{MANAGER}/job/{id}", unit, result)

    async def emit(self, path, interface, member, signature, *body):
        await self.conn.send(new_signal(DBusAddress(path, interface=interface), member, signature, body))

    async def _serve(self):
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = await self.conn.receive()
                if message.header.message_type is MessageType.method_call:
                    await self._answer(message)

    async def _answer(self, message):
        member = message.header.fields[HeaderFields.member]
        path = message.header.fields[HeaderFields.path]
        self.calls.append((member, message.body))
        after = None
        if member in self.refuse:
            name, text = self.refuse[member]
            reply = new_error(message, name, "s", (text,))
        elif member in ("StartUnit", "StopUnit"):
            unit = message.body[0]
            if unit not in self.jobs:
                self.jobs[unit] = self.next_job
                self.next_job += 1
                await self.set(unit, "activating" if member == "StartUnit" else "deactivating")
                self.units[unit]["Job"] = ("(uo)", (self.jobs[unit], f"{MANAGER}/job/{self.jobs[unit]}"))
            reply = new_method_return(message, "o", (f"{MANAGER}/job/{self.jobs[unit]}",))
            if unit not in self.hold:
                ends = "failed" if self.result == "failed" else "active" if member == "StartUnit" else "inactive"
                after = lambda: self.finish(unit, self.result, ends)  # noqa: E731
        elif member == "GetAll":
            unit = unescape(path.removeprefix(UNITS))
            loaded = self.units.get(unit)
            plain = {"LoadState": ("s", "loaded"), "ActiveState": ("s", "inactive"), "SubState": ("s", "dead")}
            reply = new_method_return(message, "a{sv}", (loaded or plain,))
            if loaded is None:
                after = lambda: self.unload(unit)  # noqa: E731 - reading loads it, and then it goes again
        elif member == "ListUnitsByPatterns":
            rows = [
                (
                    unit,
                    "",
                    "loaded",
                    *(state[key][1] for key in ("ActiveState", "SubState")),
                    "",
                    "/",
                    job(state),
                    "",
                    "/",
                )
                for unit, state in self.units.items()
                if any(fnmatch.fnmatchcase(unit, pattern) for pattern in message.body[1])
            ]
            reply = new_method_return(message, "a(ssssssouso)", (rows,))
        else:
            reply = new_method_return(message)
        if after is not None and self.early:
            await after()
        if member not in self.silent:
            await self.conn.send(reply)
        if after is not None and not self.early:
            await after()
        async with self.heard:
            self.count[member] += 1
            self.heard.notify_all()


@pytest.fixture
async def bus(tmp_path):
    if shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is not installed (Debian: dbus-daemon)")
    private = PrivateBus(tmp_path)
    await private.start()
    yield private
    await private.stop()


@pytest.fixture
async def fake(bus):
    systemd = FakeSystemd(bus.address)
    await systemd.start()
    yield systemd
    await systemd.stop()
