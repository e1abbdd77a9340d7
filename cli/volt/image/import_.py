"""`volt image import`: an image from a directory, a tar, or an OCI layout."""

from __future__ import annotations

from volt.daemon import would
from volt.image.source import DIRECTORY, OCI, TAR, build, classify
from volt.image.store import check_name, publish
from volt.options import Argument, Asked, Option, Verb, usage
from volt.output import cell, done, size_text
from volt.progress import Report
from volt.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row


def run(asked: Asked, settings: Settings) -> int:
    image, path = asked.one("IMAGE"), asked.one("PATH")
    check_name(image)
    kind = asked.text("--type") or "auto"
    if kind == "auto":
        kind = TAR if path == "-" else classify(path)
    if path == "-" and kind not in (TAR, OCI):
        raise usage("what comes on standard input is a tar or an OCI archive")
    if settings.dry_run:
        would(f"import {path}, a {kind}, as {image}")
        return 0
    with Report(settings, f"importing {image}") as report:
        built, config, skipped = build(settings, path, kind, report, one_file_system=asked.flag("--one-file-system"))
        publish(settings, image, built.tree, config)
    row: Row = {
        "name": image,
        "tree": built.tree,
        "entries": built.entries,
        "files": built.files,
        "bytes": built.bytes,
        "new_objects": built.new_objects,
        "new_bytes": built.new_bytes,
        "skipped": skipped,
    }
    if skipped and not settings.quiet and not settings.structured:
        print(f"not stored, as images hold no sockets: {cell(skipped[:5])}" + (" …" if len(skipped) > 5 else ""))
    text = f"{image}: {built.files} files, {size_text(built.bytes)}, of which {size_text(built.new_bytes)} are new"
    done(settings, row, text)
    return 0


VERB = Verb(
    "Make an image of a directory, a tar or an OCI layout.",
    run,
    examples=(
        "volt image import debian ./rootfs",
        "volt image import debian:12 rootfs.tar.zst",
        "volt image import web:1.2 ./oci-layout",
        "ssh host tar -C / -c etc | volt image import copy -",
    ),
    arguments=(
        Argument("IMAGE", "its name, NAME or NAME:TAG"),
        Argument("PATH", "a directory, tar, OCI layout or OCI archive, or - for a tar on stdin", complete="files"),
    ),
    options=(
        Option("--type", metavar="TYPE", choices=("auto", DIRECTORY, TAR, OCI), help="what PATH is"),
        Option("-x", "--one-file-system", help="of a directory: leave out what is mounted in it"),
    ),
    changes=True,
    detail=(
        "A directory is read with your own rights: owners, modes, times, extended attributes, hard\n"
        "links and devices are kept. Tars may be plain, or packed with gzip or zstd. The configuration\n"
        "of an OCI image (entrypoint, environment, user) is kept with it and used by `volt run`."
    ),
)
