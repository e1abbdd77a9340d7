"""What both clients make of replies: the result type of a call, and errors as the classes they were."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, TypeVar, get_args

import msgspec

from volt_common.api.base import Call, Stream
from volt_common.errors import Denied, Malformed, Unreachable, VoltError, of_code
from volt_common.wire import Problem, Progress

R = TypeVar("R")

RESTART_SECONDS = 30.0
"""How long a client waits for a daemon that is being restarted."""

_problem = msgspec.msgpack.Decoder(Problem)
_progress = msgspec.msgpack.Decoder(Progress)


@cache
def decoders(call: type[Call[Any]]) -> tuple[msgspec.msgpack.Decoder[Any], msgspec.msgpack.Decoder[Any]]:
    """Of the items (msgspec.Raw for a plain call) and of the result."""
    for base in call.__orig_bases__:  # type: ignore[attr-defined]  # every generic class has it
        module = vars(sys.modules[call.__module__])
        types = [_resolve(part, module) for part in get_args(base)]
        if getattr(base, "__origin__", None) is Stream:
            return msgspec.msgpack.Decoder(types[0]), msgspec.msgpack.Decoder(types[1])
        if types:
            return msgspec.msgpack.Decoder(), msgspec.msgpack.Decoder(types[0])
    raise TypeError(f"{call} names no result")


def _resolve(part: Any, module: dict[str, Any]) -> Any:
    """A result that is defined after its call is written as a string."""
    name = getattr(part, "__forward_arg__", part if isinstance(part, str) else None)
    return part if name is None else module[name]


def decode(decoder: msgspec.msgpack.Decoder[R], body: bytes | memoryview) -> R:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(f"an answer of another version: {error}") from None


def error_of(body: bytes | memoryview) -> VoltError:
    problem = decode(_problem, body)
    return of_code(problem.code, problem.hint, problem.fields)


def progress_of(body: bytes | memoryview) -> Progress:
    return decode(_progress, body)


def unreachable(daemon: str, error: OSError) -> VoltError:
    """Why a daemon's socket can't be used, and what to do."""
    if isinstance(error, PermissionError):
        who = f"{daemon}'s socket is for root and members of the group volt"
        return Denied(who, hint="use sudo, or join the group")
    if isinstance(error, FileNotFoundError):
        return Unreachable("its socket is not there", daemon=daemon, hint=f"systemctl start volt-{daemon}.socket")
    return Unreachable(error.strerror or str(error), daemon=daemon, hint=f"systemctl status volt-{daemon}.socket")
