"""One tree from the layers of an OCI image, lowest first (image-spec, layer.md).

A layer is read whole by itself, then laid over what the layers below made:

- `.wh.NAME` hides NAME of the layers below, with all under it; `.wh..wh..opq` hides all that its
  directory has from below. Neither touches its own layer, wherever in the archive it stands.
- A directory over a directory brings its metadata and keeps the children; a directory that the layer only
  uses keeps the metadata too. Anything over anything else takes its place, with all that was under it.
- A hard link may name a path of the layers below.
- Nothing is resolved: a path that goes through a symlink or file of a layer below, unless its own layer
  puts a directory there, is refused as Invalid. An engine that extracts would follow such a link, perhaps
  to somewhere else than the image's author meant.
"""

from __future__ import annotations

import stat
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from volt_casd.tar.build import Progress, StoreFile, TreeBuilder
from volt_casd.tar.inodes import Names, Tally, entries, implied_directory
from volt_casd.tar.limits import Budget, Limits
from volt_casd.tar.names import clean, parent, shown
from volt_casd.tar.reader import members
from volt_casd.tar.window import Readable
from volt_casd.tree import Entry
from volt_common.errors import Invalid

WHITEOUT: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
_AUFS: Final = b".wh..wh."  # the rest of aufs' own files, which tell of no path


def read_layers(
    streams: Iterable[Readable],
    store_file: StoreFile,
    on_progress: Progress | None = None,
    *,
    limits: Limits | None = None,
) -> tuple[list[Entry], list[str]]:
    """The canonical entries of the image's root, and up to 20 notes on what no tree can hold.

    A layer may lack its end-of-archive block, as some writers leave it out: that it is whole is known by
    its digest. The limits are for all layers together. Raises Invalid, naming the layer from 1, and
    Exhausted.
    """
    budget = Budget(limits or Limits())
    tally = Tally()
    names: Names = {b"": implied_directory()}
    files = size = 0

    def progress(layer_files: int, layer_bytes: int) -> None:
        if on_progress is not None:
            on_progress(files + layer_files, size + layer_bytes)

    for number, stream in enumerate(streams, 1):
        builder = TreeBuilder(store_file, budget, tally, progress, below=names)
        try:
            hidden, opaque = _read_layer(stream, builder, budget.limits)
            names = _over(names, builder.names, hidden, opaque)
        except Invalid as error:
            raise Invalid(f"layer {number}: {error.message}", hint=error.hint) from error
        files += builder.files
        size += builder.bytes
    return entries(names), tally.skipped


def _read_layer(stream: Readable, builder: TreeBuilder, limits: Limits) -> tuple[set[bytes], set[bytes]]:
    """The layer's members into the builder; what it hides: paths, and the contents of directories."""
    hidden: set[bytes] = set()
    opaque: set[bytes] = set()
    for member, body in members(stream, limits, end=False):
        if WHITEOUT not in member.path:
            builder.add(member, body)
            continue
        path = clean(member.path)
        directory, name = parent(path), path[path.rfind(b"/") + 1 :]
        if any(part.startswith(_AUFS) for part in directory.split(b"/")):
            continue
        if any(part.startswith(WHITEOUT) for part in directory.split(b"/")):
            raise Invalid(f"{shown(path)} lies below a whiteout")
        if not name.startswith(WHITEOUT):
            builder.add(member, body)
            continue
        builder.require_parents(path)
        builder.charge(path)
        if name == OPAQUE:
            opaque.add(directory)
        elif not name.startswith(_AUFS):
            gone = name[len(WHITEOUT) :]
            if gone in (b"", b".", b".."):
                raise Invalid(f"the whiteout {shown(path)} names nothing")
            hidden.add(directory + b"/" + gone if directory else gone)
    return hidden, opaque


def _over(lower: Names, upper: Names, hidden: set[bytes], opaque: set[bytes]) -> Names:
    """`lower`, which is used up, with a layer laid over it."""
    roots = hidden | opaque
    for path, inode in upper.items():
        if not inode.is_directory and (under := lower.get(path)) is not None and under.is_directory:
            roots.add(path)
    _remove_below(lower, roots)
    for path in hidden:
        lower.pop(path, None)
    for path, inode in upper.items():
        if inode.implied and (under := lower.get(path)) is not None:
            if not under.is_directory:
                what = "symlink" if stat.S_ISLNK(under.mode) else "file"
                raise Invalid(f"a member is written through {shown(path)}, a {what} of a layer below")
            continue
        lower[path] = inode
    return lower


def _remove_below(names: Names, roots: set[bytes]) -> None:
    """Everything under the roots, but not themselves."""
    if not roots:
        return
    if b"" in roots:
        root = names[b""]
        names.clear()
        names[b""] = root
        return
    ordered = sorted(names)
    end = b""
    for prefix in sorted(root + b"/" for root in roots):
        if prefix < end:  # inside the one before: its paths are gone already
            continue
        end = prefix[:-1] + b"0"  # the byte after "/"
        for at in range(bisect_left(ordered, prefix), bisect_left(ordered, end)):
            del names[ordered[at]]
