"""The disk as a power cut would have left it, from the log of its writes (QEMU's blklogwrites, Linux' dm-log-writes).

The log has a superblock (magic, version, entries, sector size) in its first sector; then entries, each a sector
with (sector, sectors, flags, length of data), followed by what was written. QEMU logs a request when it is done
and before the guest hears of it, so an entry before a FLUSH was on the disk when that flush ended. Two things
this can't tell: a write that was under way *while* a flush was counts as covered by it; and a disk that lies.
https://docs.kernel.org/admin-guide/device-mapper/log-writes.html

    write_log.py LOG                            the entries
    write_log.py LOG BASE END [SEED]            change BASE, the disk at the log's beginning, to what it was when
                                                the log had END bytes and the power went
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SUPER = struct.Struct("<QQQI")
HEADER = struct.Struct("<QQQQ")
ATOM = 4096  # of a write that no flush covers each such piece is there or not: no disk tears a sector
PUNCH_HOLE, KEEP_SIZE = 2, 1  # fallocate(2)

_libc = ctypes.CDLL(None, use_errno=True)


class Entry(NamedTuple):
    """A request: where it goes on the disk, and where its data is in the log, in bytes. `end`: of its entry."""

    offset: int
    length: int
    flags: int
    data: int
    end: int


class Damaged(Exception):
    """It is no log of writes."""


def entries(log: int) -> Iterator[Entry]:
    """Each in turn; QEMU killed amid an entry ends them. The superblock's count is not used: it may be an old one."""
    magic, version, _, sector = SUPER.unpack(os.pread(log, SUPER.size, 0))
    if (magic, version) != (MAGIC, 1) or sector not in (512, 4096):
        raise Damaged(f"magic {magic:#x}, version {version}, sectors of {sector}")
    size = os.fstat(log).st_size
    at = sector
    while at + sector <= size:
        place, count, flags, marked = HEADER.unpack(os.pread(log, HEADER.size, at))
        if not flags and not count:
            return  # a hole: this one was never finished
        if flags & ~(FLUSH | FUA | DISCARD | MARK):
            raise Damaged(f"flags {flags:#x} at byte {at}")
        data = at + sector
        carried = marked if flags & MARK else 0 if flags & DISCARD else count * sector
        at = data + -(-carried // sector) * sector
        if at > size:
            return
        yield Entry(place * sector, count * sector, flags, data, at)


def last_flush(log: Sequence[Entry]) -> int:
    """How many of the entries are covered by a flush: all before the last one."""
    return next((number for number in range(len(log), 0, -1) if log[number - 1].flags & FLUSH), 0)


def apply(log: int, some: Sequence[Entry], disk: int) -> None:
    """Write the entries to the disk, all of them whole."""
    for entry in some:
        _write(log, entry, disk, [(0, entry.length)])


def apply_part(log: int, some: Sequence[Entry], disk: int, chance: random.Random) -> int:
    """Write a random part of entries that no flush covers; how many bytes that left out.

    How much is left out differs from cut to cut: a little, as much as not, nearly all, or all.
    """
    share = chance.choice((0.05, 0.5, 0.95, 1.0))
    lost = 0
    for entry in some:
        step = entry.length or 1 if entry.flags & DISCARD else ATOM
        pieces = [(at, min(step, entry.length - at)) for at in range(0, entry.length, step)]
        kept = pieces if entry.flags & FUA else [piece for piece in pieces if chance.random() >= share]
        lost += sum(length for _, length in pieces) - sum(length for _, length in kept)
        _write(log, entry, disk, kept)
    return lost


def _write(log: int, entry: Entry, disk: int, pieces: Sequence[tuple[int, int]]) -> None:
    if entry.flags & MARK:
        return
    for at, length in pieces:
        if not entry.flags & DISCARD:
            while length:  # one call may copy less
                done = os.pwrite(disk, os.pread(log, min(length, 1 << 20), entry.data + at), entry.offset + at)
                at, length = at + done, length - done
        elif length:
            _punch(disk, entry.offset + at, length)


def _punch(disk: int, offset: int, length: int) -> None:
    if _libc.fallocate(disk, PUNCH_HOLE | KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main(words: Sequence[str]) -> None:
    log = os.open(words[0], os.O_RDONLY)
    if len(words) == 1:
        for entry in entries(log):
            names = [name for name in ("FLUSH", "FUA", "DISCARD", "MARK") if entry.flags & globals()[name]]
            print(entry.end, entry.offset, entry.length, *names)
        return
    disk = os.open(words[1], os.O_RDWR)
    found = [entry for entry in entries(log) if entry.end <= int(words[2])]
    covered = last_flush(found)
    apply(log, found[:covered], disk)
    lost = apply_part(log, found[covered:], disk, random.Random("".join(words[3:])))
    print(f"{covered} requests covered by a flush, {len(found) - covered} after it, {lost} bytes of these lost")


if __name__ == "__main__":
    main(sys.argv[1:])
