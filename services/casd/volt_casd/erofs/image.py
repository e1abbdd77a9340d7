"""Puts an image together: file data, inodes, directory blocks, and the superblock when all is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Final

from blake3 import blake3

from volt_casd.erofs.inode import Body, Contents, Inodes
from volt_casd.erofs.layout import CHUNKED, FLAT_PLAIN, superblock
from volt_casd.erofs.writer import CHUNK_BITS, CHUNKED_MIN, Writer
from volt_casd.tree import Entry
from volt_common.api.cas import Form

_PIECE: Final = 1 << 20


def write_image(out: int, entries: Sequence[Entry], form: Form, open_object: Callable[[bytes], int]) -> int:
    """Write the image of a tree; returns its size in bytes.

    `out` is a regular file open for writing, or a memfd; what it held is lost, and on an error what it
    holds is no image. The entries may come in any order. `open_object` gives a readable descriptor of the
    object with a digest, which is closed here; the redirect form never calls it.

    In the redirect form `trusted.overlay.*` of the tree is escaped, as overlayfs takes one level off
    (Linux 6.7). The full form holds it as it is: who puts an overlay on that form must not obey it.

    Raises Invalid (an entry that an image cannot hold, by its path), Corrupt (an object of another size
    than its entry's, or unreadable), Exhausted (no space), and what `open_object` raises.
    """
    writer = Writer(out, open_object)
    data = _Data(writer)
    inodes = Inodes(sorted(entries, key=attrgetter("path")), form, data)
    inodes.place()
    meta_block = writer.block
    metadata, directory_blocks = inodes.finish(meta_block)
    # The metadata says all but the bytes of the files beside it, which their digests stand for.
    uuid = blake3(data.digests)
    for piece in chain(_gathered(metadata, writer), directory_blocks):
        uuid.update(piece)
        writer.add(piece)
    blocks = writer.block
    writer.finish(
        superblock(
            root_nid=inodes.root_nid,
            inodes=inodes.count,
            blocks=blocks,
            meta_block=meta_block,
            chunked=inodes.chunked,
            uuid=uuid.digest(16),
        )
    )
    return writer.position


def _gathered(parts: Iterable[bytes | Contents], writer: Writer) -> Iterator[bytes]:
    """The parts with small objects read in, joined to pieces that are worth a call each."""
    held: list[bytes] = []
    size = 0
    for part in parts:
        data = writer.contents(*part) if isinstance(part, Contents) else part
        held.append(data)
        size += len(data)
        if size > _PIECE:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


class _Data:
    """File data and long link targets, in blocks of their own; equal objects are stored once."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._stored: dict[bytes, Body] = {}

    @property
    def digests(self) -> bytes:
        """Of the files stored, in their order."""
        return b"".join(self._stored)

    def file(self, digest: bytes, size: int) -> Body:
        """Store a file unless an equal one is."""
        body = self._stored.get(digest)
        if body is None:
            if size < CHUNKED_MIN:
                body = Body(FLAT_PLAIN, self._writer.store(digest, size), size)
            else:
                body = Body(CHUNKED, CHUNK_BITS, size, self._writer.store_chunks(digest, size))
            self._stored[digest] = body
        elif body.size != size:
            raise ValueError(f"another file with the same digest has {body.size} bytes, and this one {size}")
        return body

    def target(self, target: bytes) -> Body:
        """Store the target of a symbolic link that is too long to stand beside its inode."""
        block = self._writer.block
        self._writer.add(target)
        self._writer.pad()
        return Body(FLAT_PLAIN, block, len(target))
