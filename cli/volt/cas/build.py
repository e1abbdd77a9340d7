"""`volt cas build`."""

from __future__ import annotations

from volt.daemon import checked, client, would
from volt.image.source import TAR, build, classify
from volt.options import Argument, Asked, Option, Verb
from volt.output import done
from volt.progress import Report
from volt.settings import Settings
from volt_common.api import cas

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row


def run(asked: Asked, settings: Settings) -> int:
    path, ref = asked.one("PATH"), asked.text("--ref")
    if ref is not None:
        checked(cas.RefGet(name=ref))
    kind = TAR if path == "-" else classify(path)
    if settings.dry_run:
        would(f"build a tree of {path}, a {kind}" + (f", as {ref}" if ref else ""))
        return 0
    with Report(settings, f"building {ref or path}") as report:
        built, _, skipped = build(settings, path, kind, report, one_file_system=asked.flag("--one-file-system"))
        if ref is not None:
            with client(settings, "casd") as daemon:
                daemon.call(cas.RefSet(name=ref, kind="tree", digest=built.tree))
    row: Row = {
        "name": ref or built.tree,
        "tree": built.tree,
        "entries": built.entries,
        "files": built.files,
        "bytes": built.bytes,
        "new_objects": built.new_objects,
        "new_bytes": built.new_bytes,
        "skipped": skipped,
    }
    done(settings, row, built.tree)
    return 0


VERB = Verb(
    "Make a tree and print its digest.",
    run,
    examples=("volt cas build ./site --ref sites/main", "volt cas build rootfs.tar.zst"),
    arguments=(Argument("PATH", "a directory, a tar, an OCI layout, or - for a tar on stdin", complete="files"),),
    options=(
        Option("--ref", metavar="NAME", help="a name for it; without one it may be collected"),
        Option("-x", "--one-file-system", help="leave out what is mounted in it"),
    ),
    changes=True,
)
