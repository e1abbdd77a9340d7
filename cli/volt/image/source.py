"""What a path holds that is to become a tree, and building it: directory, tar or OCI."""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Iterator

from volt.build import build_directory
from volt.daemon import packets
from volt.image import oci
from volt.progress import Report
from volt.settings import Settings
from volt.walk import Walk
from volt_common.api import cas
from volt_common.client.blocking import OnProgress
from volt_common.errors import Invalid, NotFound
from volt_common.packets import close_all

DIRECTORY, TAR, OCI = "directory", "tar", "oci"

_OCI_NAMES = {"", "blobs", "index.json", "oci-layout", "manifest.json", "repositories"}
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))


def classify(path: str) -> str:
    """What is at `path`. Raises NotFound, Invalid, Denied."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise NotFound(kind="file", name=path) from None
    if stat.S_ISDIR(status.st_mode):
        return OCI if os.path.isfile(f"{path}/oci-layout") and os.path.isfile(f"{path}/index.json") else DIRECTORY
    if stat.S_ISFIFO(status.st_mode):
        return TAR
    if not stat.S_ISREG(status.st_mode):
        raise Invalid(f"{path} is no directory and no file")
    with open(path, "rb") as file:
        head = file.read(512)
    if compression_of(head) or not head:
        return TAR
    if head[257:262] != b"ustar" and not _old_header(head):
        raise Invalid(f"{path} is no tar", hint="Directories, tars (plain, gzip, zstd) and OCI layouts are understood.")
    return OCI if is_oci_archive(path) else TAR


def compression_of(head: bytes) -> str:
    """By the first bytes; empty for none that is known."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def is_oci_archive(path: str) -> bool:
    """Reads the names only until one is there that no OCI archive has: the second, for a root's tar."""
    seen = set()
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./").strip("/.")
                if name == "oci-layout":
                    return True
                if name not in _OCI_NAMES and not name.startswith("blobs/"):
                    return False
                seen.add(name)
    except (tarfile.TarError, EOFError):
        return False  # casd says what is wrong with it
    return "index.json" in seen


def build(
    settings: Settings, path: str, kind: str, report: Report, *, one_file_system: bool = False
) -> tuple[cas.Built, bytes | None, list[str]]:
    """The tree, the OCI configuration if there is one, and what was left out. Raises casd's errors."""
    if kind == DIRECTORY:
        walk = Walk(path, one_file_system=one_file_system)
        with packets(settings, "casd") as daemon:
            built = build_directory(daemon, walk, None, lambda files, size: report(size, 0, f"{files} files"))
        return built, None, [*built.skipped, *(os.fsdecode(name) for name in walk.skipped)]
    if kind == OCI:
        with contextlib.ExitStack() as stack:
            image = oci.open_image(path, stack)
            with packets(settings, "casd") as daemon:
                fds = image.layers(stack)
                built, extra = daemon.call(cas.BuildLayers(), fds, on_progress=report.daemon)
                close_all(extra)
            image.finish()
        return built, image.config, built.skipped
    with _opened(path) as fd:
        return build_tar(settings, fd, report.daemon), None, []


def build_tar(settings: Settings, fd: int, on_progress: OnProgress | None = None) -> cas.Built:
    """From the stream that `fd` reads."""
    with packets(settings, "casd") as daemon:
        built, extra = daemon.call(cas.BuildTar(), [fd], on_progress=on_progress)
        close_all(extra)
    return built


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    if path == "-":
        if os.isatty(0):
            raise Invalid("standard input is a terminal, not a tar", hint="Pipe one in, or name a file.")
        yield 0
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _old_header(head: bytes) -> bool:
    """A tar from before 1988 has no magic, but a sum of the header."""
    if len(head) < 512:
        return False
    try:
        told = int(head[148:156].split(b"\0")[0].strip() or b"-1", 8)
    except ValueError:
        return False
    return told == sum(head[:148]) + sum(head[156:512]) + 8 * 32
