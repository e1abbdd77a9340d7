"""The edge of the command: an exception becomes one line (or one object) on stderr, and an exit status."""

from __future__ import annotations

import errno
import sys

from volt.settings import Settings
from volt_common.errors import (
    Denied,
    Exhausted,
    Interrupted,
    NetworkFailed,
    NotFound,
    TimedOut,
    Unreachable,
    Usage,
    VoltError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.options import Asked

_RESOURCES = {
    errno.ENOSPC: "disk space",
    errno.EDQUOT: "disk quota",
    errno.ENOMEM: "memory",
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.EAGAIN: "processes",
}


def report(error: BaseException, asked: Asked, settings: Settings | None) -> int:
    """Print what went wrong; returns the exit status."""
    if settings is None:  # the command line itself could not be read, or only in part
        settings = Settings(asked.command)
        settings.output = asked.text("--output") or "table"
        settings.debug = asked.flag("--debug")
    if settings.debug:
        import traceback

        traceback.print_exception(error)
    known = known_error(error)
    say(known, settings)
    # A payload that could not be executed: 126 and 127 are its own exit status, as a shell gives them.
    code = known.fields.get("exit_code")
    return int(code) if code in (126, 127, "126", "127") else known.exit


def known_error(error: BaseException) -> VoltError:
    """The error of the tree that `error` is, or stands for."""
    if isinstance(error, VoltError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(signal=str(error) or "SIGINT")
    if isinstance(error, OSError):
        return _system(error)
    return VoltError(f"a fault in the command itself: {type(error).__name__}: {error}", hint="--debug shows where.")


def say(error: VoltError, settings: Settings) -> None:
    """One line on stderr, `volt: <what>: <why>. <hint>`, or the error object with -o json."""
    hint = error.hint or _hint(error, settings)
    try:
        if settings.output == "json":
            import json

            told = {"code": error.code, "name": f"ERR_{error.code}", "message": error.message, "hint": hint}
            print(json.dumps({"error": told}, ensure_ascii=False), file=sys.stderr)
        else:
            print(line(error, settings.command, hint), file=sys.stderr)
    except (OSError, ValueError):  # stderr is closed: the exit status has to do
        return


def line(error: VoltError, what: str, hint: str) -> str:
    """The error line; whatever came from elsewhere can't break it in two or paint the terminal."""
    from volt.output import plain

    parts = ["volt", *([what] if what else []), error.message.rstrip(". ")]
    text = ": ".join(parts) + "."
    if hint:
        text += " " + hint.rstrip()
    return plain(text, newline=" ")


def _hint(error: VoltError, settings: Settings) -> str:
    """What to do next, where the error does not say so itself."""
    daemon = error.fields.get("daemon", "")
    if isinstance(error, Unreachable) and daemon:
        return f"`systemctl status volt-{daemon}.socket` and `volt doctor` say more."
    if isinstance(error, NotFound):
        kind = error.fields.get("kind", "")
        listing = {"container": "`volt ps -a`", "image": "`volt image list`", "ref": "`volt cas refs`"}.get(str(kind))
        return f"{listing} shows what there is." if listing else ""
    if isinstance(error, Usage) and settings.command:
        return f"See `volt {settings.command} --help`."
    return ""


def _system(error: OSError) -> VoltError:
    name = _filename(error)
    why = error.strerror or str(error) or type(error).__name__
    said = f"{name}: {why}" if name else why
    match error.errno:
        case errno.ENOENT:
            return NotFound(kind="file", name=name) if name else VoltError(said)
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return Denied(said)
        case errno.ECONNREFUSED | errno.ENOTCONN | errno.ECONNRESET:
            return Unreachable(daemon=name or "the peer", message=why)
        case errno.ETIMEDOUT:
            return TimedOut(what=name or "the call", seconds="its limit of")
        case errno.ENETUNREACH | errno.EHOSTUNREACH | errno.ENETDOWN:
            return NetworkFailed(said)
        case number if number in _RESOURCES:
            return Exhausted(resource=_RESOURCES[number], message=said)
    return VoltError(said)


def _filename(error: OSError) -> str:
    name = error.filename
    if isinstance(name, bytes):
        return name.decode(errors="backslashreplace")
    return str(name) if isinstance(name, str) else ""
