"""How verbs talk to daemons: with the caller's --host and --timeout, and with values checked before they leave."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TypeVar

import msgspec

from volt.options import Asked
from volt.settings import Settings
from volt_common.client.blocking import Client, PacketClient
from volt_common.errors import Invalid, VoltError

C = TypeVar("C", bound=msgspec.Struct)

_NAME = "is 1 to 63 lower-case letters, digits and, inside, hyphens"
_RULES = {
    "name": _NAME,
    "image": "is NAME, NAME:TAG or cas://DIGEST",
    "hostname": _NAME,
    "user": "is a name or number, or USER:GROUP",
    "workdir": "is an absolute path",
    "target": "is an absolute path",
    "source": "is an absolute path",
    "tmpfs": "is an absolute path",
    "signal": "is a signal's name, such as SIGTERM",
    "stop_signal": "is a signal's name, such as SIGTERM",
    "ref": "is up to 16 parts of letters, digits and _.+-, with a slash between",
    "prefix": "has at most 512 characters",
    "digest": "is 64 hexadecimal digits in lower case",
    "memory_max": "is at least 1M",
    "memory_high": "is at least 1M",
    "cpu_percent": "is a percentage of one core, at least 1",
    "cpu_weight": "lies between 1 and 10000",
    "pids_max": "is at least 1",
    "capabilities": "is a capability's name, such as CAP_NET_ADMIN",
}


def client(settings: Settings, daemon: str) -> Client:
    """For calls without descriptors."""
    _terminate_cleanly()
    return Client(daemon, run=settings.host, timeout=settings.timeout)


def packets(settings: Settings, daemon: str) -> PacketClient:
    """For calls with descriptors. Raises Unreachable, Denied."""
    _terminate_cleanly()
    return PacketClient(daemon, run=settings.host, timeout=settings.timeout)


def checked(call: C) -> C:
    """The same call, if its daemon would take its values. Raises Invalid, saying which can't be."""
    try:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(call), type=type(call))
    except msgspec.ValidationError as error:
        text = str(error)
        fields: list[str] = re.findall(r"\.([a-z_]+)", text.rpartition("`$")[2])
        field = next((f for f in reversed(fields) if f in _RULES), fields[-1] if fields else "")
        if not field:
            raise Invalid(text) from None
        given = _given(call, field)
        if field == "name" and type(call).__module__.endswith(".cas"):
            field = "ref"
        shown = f" {given!r}" if isinstance(given, str | int) else ""
        label = field.replace("_", " ")
        raise Invalid(f"{label}{shown}: it {_RULES[field]}" if field in _RULES else f"{label}: {text}") from None


def _given(value: object, field: str) -> object:
    """The first field of that name in a struct or in the structs it holds."""
    if not isinstance(value, msgspec.Struct):
        return None
    if field in value.__struct_fields__:
        return getattr(value, field)
    return next((found for part in value.__struct_fields__ if (found := _given(getattr(value, part), field))), None)


def each(asked: Asked, settings: Settings, names: Iterable[str], act: Callable[[str], None]) -> int:
    """Act on every name, go on after an error, and return the exit status of the first."""
    from volt.failure import report

    status = 0
    for name in names:
        settings.command = f"{asked.command} {name}"
        try:
            act(name)
        except (VoltError, OSError) as error:
            status = report(error, asked, settings) if not status else (report(error, asked, settings), status)[1]
    return status


def would(text: str) -> None:
    """What --dry-run says."""
    from volt.output import plain

    print(plain(f"would {text}"))


def _terminate_cleanly() -> None:
    """SIGTERM ends this command as Ctrl-C does: the daemon hears of it, and the terminal is restored."""

    def ended(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, ended)
