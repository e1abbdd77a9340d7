"""`volt image build`: a Debian root by mmdebstrap, straight into the store."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import tempfile

from volt.daemon import would
from volt.image.source import build_tar
from volt.image.store import check_name, publish
from volt.options import Argument, Asked, Option, Verb
from volt.output import done, size_text
from volt.progress import Report
from volt.settings import Settings
from volt_common.api import cas
from volt_common.errors import MissingDependency, VoltError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row

_LAST_BYTES = 4096


def run(asked: Asked, settings: Settings) -> int:
    image = asked.one("IMAGE")
    check_name(image)
    command = mmdebstrap(asked)
    if settings.dry_run:
        would(f"run {shlex.join(command)} and import what it writes as {image}")
        return 0
    with Report(settings, f"building {image}") as report:
        built = _stream(settings, command, report)
        publish(settings, image, built.tree, None)
    row: Row = {
        "name": image,
        "tree": built.tree,
        "files": built.files,
        "bytes": built.bytes,
        "new_bytes": built.new_bytes,
    }
    done(settings, row, f"{image}: {built.files} files, {size_text(built.bytes)}")
    return 0


def mmdebstrap(asked: Asked) -> list[str]:
    """Its command line; the tar goes to standard output."""
    command = ["mmdebstrap", "--format=tar", f"--variant={asked.text('--variant') or 'minbase'}"]
    packages = [name for text in asked.texts("--include") for name in text.split(",") if name]
    if packages:
        command.append("--include=" + ",".join(packages))
    if asked.text("--arch"):
        command.append(f"--architectures={asked.text('--arch')}")
    return [*command, "--", asked.text("--suite") or "bookworm", "-", *asked.texts("--mirror")]


def _stream(settings: Settings, command: list[str], report: Report) -> cas.Built:
    """What the command writes, as a tree; of no use unless the command then ends well."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
        except FileNotFoundError:
            raise MissingDependency(what=command[0], hint=f"apt install {command[0]}") from None
        assert process.stdout is not None
        try:
            failure: VoltError | None = None
            try:
                built = build_tar(settings, process.stdout.fileno(), report.daemon)
            except VoltError as error:
                failure = error
            if failure is None:
                while process.stdout.read(1 << 16):  # the padding behind the end of the archive
                    continue
            process.stdout.close()
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if code > 0 or (code and failure is None):
            raise VoltError(f"{command[0]} failed ({code}): {_last_line(said.fileno())}", hint=_hint())
        if failure is not None:
            raise failure
        return built


def _last_line(fd: int) -> str:
    """Of what it said: the error, as a rule."""
    size = os.fstat(fd).st_size
    text = os.pread(fd, _LAST_BYTES, max(0, size - _LAST_BYTES)).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    with contextlib.suppress(StopIteration):
        return next(line for line in reversed(lines) if line.startswith("E:"))
    return lines[-1] if lines else "it said nothing"


def _hint() -> str:
    return "" if os.geteuid() == 0 else "It needs root, or a user with a range in /etc/subuid."


VERB = Verb(
    "Make a Debian image with mmdebstrap.",
    run,
    examples=(
        "volt image build debian --suite bookworm",
        "volt image build web:1 --suite trixie --include nginx-light",
    ),
    arguments=(Argument("IMAGE", "its name, NAME or NAME:TAG"),),
    options=(
        Option("--suite", metavar="SUITE", help="bookworm, trixie, or what the mirror has (bookworm)"),
        Option("--variant", metavar="VARIANT", help="how much: essential, apt, minbase, standard (minbase)"),
        Option("--include", metavar="PACKAGES", repeat=True, help="further packages, with commas between"),
        Option("--mirror", metavar="URL", repeat=True, help="an archive, or a line of sources.list"),
        Option("--arch", metavar="ARCH", help="another architecture than this machine's"),
    ),
    changes=True,
)
