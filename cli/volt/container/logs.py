"""`volt logs`: the journal of a container's unit, read by journalctl with the caller's rights."""

from __future__ import annotations

import subprocess
import sys

from volt.containers import ROOTS, root_names, state_of, unit_of
from volt.options import Argument, Asked, Option, Verb, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.settings import Settings


def run(asked: Asked, settings: Settings) -> int:
    name = asked.one("NAME")
    command = journalctl(name, asked, settings)
    try:
        if settings.output == "json" or asked.flag("--timestamps"):
            code, wrote = _lines(command, settings)
        else:
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                code, wrote = _copy(process)
    except FileNotFoundError:
        from volt_common.errors import MissingDependency

        raise MissingDependency(what="journalctl", hint="It comes with systemd.") from None
    if code == 0 and not wrote:
        _known(name)
    return 1 if code else 0


def journalctl(name: str, asked: Asked, settings: Settings) -> list[str]:
    """The command line. Only what processes of the unit wrote, not what systemd says about it."""
    if not name or not all(c.isascii() and (c.isalnum() or c == "-") for c in name):
        from volt_common.errors import NotFound

        raise NotFound(kind="container", name=name)
    form = "json" if settings.output == "json" or asked.flag("--timestamps") else "cat"
    command = ["journalctl", "--quiet", "--no-pager", "--all", "--output", form, f"_SYSTEMD_UNIT={unit_of(name)}"]
    tail = asked.text("--tail")
    if tail not in (None, "all") and asked.number("--tail") is None:
        raise usage("--tail takes a number or all")
    command += ["--lines", tail or "all"]
    if form == "json":
        command += ["--output-fields", "MESSAGE,PRIORITY"]
    for key in ("--since", "--until"):
        value = asked.text(key)
        if value is not None:
            command += [key, _time(value)]
    if asked.flag("--follow"):
        command.append("--follow")
    return command


def line(entry: dict[str, object], *, json_form: bool) -> str:
    """One journal entry as this verb prints it."""
    from volt.output import as_json

    micros = int(str(entry.get("__REALTIME_TIMESTAMP", 0)))
    message = entry.get("MESSAGE")
    if isinstance(message, list):  # bytes that are no UTF-8 come as numbers
        message = bytes(message).decode(errors="replace")
    text = "" if message is None else str(message)
    stamp = timestamp(micros)
    if json_form:
        return as_json({"time": stamp, "message": text}).replace("\n ", "").replace("\n", "")
    return f"{stamp} {text}"


def timestamp(micros: int) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(micros // 1_000_000)) + f".{micros // 1000 % 1000:03d}Z"


def _lines(command: list[str], settings: Settings) -> tuple[int, bool]:
    import json

    wrote = False
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for data in process.stdout:
            print(line(json.loads(data), json_form=settings.output == "json"), flush=True)
            wrote = True
    return process.returncode, wrote


def _copy(process: subprocess.Popen[bytes]) -> tuple[int, bool]:
    wrote = False
    assert process.stdout is not None
    while data := process.stdout.read1(1 << 16):  # type: ignore[attr-defined]  # a BufferedReader, typed as IO
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        wrote = True
    return process.wait(), wrote


def _time(text: str) -> str:
    """`10m` is ten minutes ago; anything else is journalctl's to read."""
    return f"-{text}" if text[:1].isdigit() and text[-1:] in "smhd" else text


def _known(name: str) -> None:
    """Nothing was logged: say so only if there is nothing that could have. Raises NotFound."""
    if state_of(name) or name in root_names(ROOTS):
        return
    from volt.systembus import list_units
    from volt_common.errors import NotFound, VoltError

    try:
        if list_units([unit_of(name)]):
            return
    except VoltError:
        return
    import os

    if os.path.isdir(ROOTS) and not os.access(ROOTS, os.R_OK):
        return  # who may not list what is there can't tell an empty log from a wrong name
    raise NotFound(kind="container", name=name)


VERB = Verb(
    "What a container wrote, from the journal.",
    run,
    examples=("volt logs web", "volt logs -f --tail 20 web", "volt logs --since 10m -o json web"),
    arguments=(Argument("NAME", "of the container", complete="containers"),),
    options=(
        Option("-f", "--follow", help="go on with what is written from now on"),
        Option("-n", "--tail", metavar="LINES", help="only the last so many"),
        Option("--since", metavar="TIME", help="10m, today, 2026-01-31 12:00"),
        Option("--until", metavar="TIME", help="as --since"),
        Option("-t", "--timestamps", help="when each line was written, in UTC"),
    ),
    detail=(
        "journalctl reads it with your own rights: root, and members of systemd-journal or adm, see\n"
        "everything. A name's journal holds its earlier containers too; --since leaves them out."
    ),
)
