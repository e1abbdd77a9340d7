"""`volt cas ls`."""

from __future__ import annotations

import os
import stat
import time

from volt.daemon import checked, client
from volt.image.names import tree_ref
from volt.options import LIST, Argument, Asked, Option, Verb
from volt.output import Column, plain, show
from volt.settings import Settings
from volt_common.api import cas
from volt_common.errors import Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row, Value

_TYPES = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}


def _time(value: Value) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(value // 1_000_000_000)) if isinstance(value, int) else ""


COLUMNS = (
    Column("permissions", "MODE"),
    Column("uid", right=True),
    Column("gid", right=True),
    Column("size", right=True),
    Column("mtime_ns", "MODIFIED", form=_time),
    Column("digest", "OBJECT", wide=True, form=lambda value: str(value or "")[:16]),
    Column("links", wide=True, right=True),
    Column("shown", "NAME"),
)


def row(entry: cas.Entry) -> Row:
    """An entry, its bytes as text: what is no UTF-8 is kept as surrogates and printed as \\xNN."""
    name = os.fsdecode(entry.path) or "."
    target = os.fsdecode(entry.target)
    return {
        "name": plain(name),
        "type": entry.type,
        "permissions": stat.filemode(_TYPES.get(entry.type, 0) | entry.mode),
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
        "digest": entry.digest,
        "target": plain(target),
        "device": f"{entry.major}:{entry.minor}" if entry.type in ("char", "block") else "",
        "links": entry.links,
        "xattrs": {name: value.hex() for name, value in entry.xattrs.items()},
        "shown": plain(name) + (f" -> {plain(target)}" if target else ""),
    }


def split(text: str) -> tuple[str, str]:
    """TREE and PATH of `TREE[:PATH]`. An image may be called NAME:TAG, so a path starts with a slash."""
    tree, colon, path = text.partition(":/")
    return tree, path.strip("/") if colon else ""


def resolve(settings: Settings, text: str) -> str:
    """The digest of a tree given as a digest, a ref, or an image's name. Raises NotFound."""
    digest = text.removeprefix("cas://")
    if len(digest) == 64 and not set(digest) - set("0123456789abcdef"):
        return digest
    with client(settings, "casd") as daemon:
        for name in (text, tree_ref(text)):
            try:
                return daemon.call(checked(cas.RefGet(name=name))).digest
            except (NotFound, Invalid):  # an image's name with a tag is no ref's name
                continue
    raise NotFound(kind="image or ref", name=text, hint="`volt cas refs` shows what there is.")


def run(asked: Asked, settings: Settings) -> int:
    tree, path = split(asked.one("TREE[:/PATH]"))
    call = cas.Ls(tree=resolve(settings, tree), path=os.fsencode(path), recursive=asked.flag("--recursive"))
    with client(settings, "casd") as daemon:
        show(settings, COLUMNS, [row(entry) for entry in daemon.stream(checked(call))], asked)
    return 0


VERB = Verb(
    "What is in a tree.",
    run,
    examples=("volt cas ls debian:12", "volt cas ls debian:12:/etc", "volt cas ls -R images/debian/12"),
    arguments=(Argument("TREE[:/PATH]", "an image, a ref or a digest, and a path in it", complete="images"),),
    options=(Option("-R", "--recursive", help="and all below it"), *LIST),
)
