"""The log of writes: read as QEMU writes it, and played back to what a disk may hold. No machine is needed."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from vm import write_log
from vm.write_log import DISCARD, FLUSH

SIZE = 1 << 20


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk that QEMU wrote to, and its log."""
    top = tmp_path_factory.mktemp("logged")
    for name in ("disk", "log"):
        (top / name).touch()
    os.truncate(top / "disk", SIZE)
    file = f"file.driver=file,file.discard=unmap,file.filename={top}/disk"
    options = f"driver=blklogwrites,{file},log.driver=file,log.filename={top}/log"
    commands = [
        "write -P 1 0 64k", "flush", "write -P 2 32k 8k", "write -P 3 512k 512", "flush",
        "discard 0 16k", "write -P 4 100k 128k", "write -P 5 64k 4k",
    ]  # fmt: skip
    words = [word for command in commands for word in ("-c", command)]
    run = ["qemu-io", "-d", "unmap", "--image-opts", f"{options},log-sector-size=512", *words]
    subprocess.run(run, check=True, capture_output=True, timeout=60)
    return top


def read(top: Path) -> list[write_log.Entry]:
    return list(write_log.entries(os.open(top / "log", os.O_RDONLY)))


def play(top: Path, end: int | None = None) -> bytes:
    """Every entry up to a place of the log."""
    log, disk = os.open(top / "log", os.O_RDONLY), os.memfd_create("disk")
    os.truncate(disk, SIZE)
    write_log.apply(log, [one for one in write_log.entries(log) if end is None or one.end <= end], disk)
    return os.pread(disk, SIZE, 0)


def test_all_entries_make_the_disk(logged):
    assert play(logged) == (logged / "disk").read_bytes()


def test_flushes_and_discards_are_seen_between_the_writes(logged):
    """qemu-io flushes of itself too, so there are more than were asked for."""
    found = read(logged)
    shape = [one.length if not one.flags else {FLUSH: "flush", DISCARD: "discard"}[one.flags] for one in found]
    assert shape[:5] == [64 << 10, "flush", 8 << 10, 512, "flush"]
    assert [what for what in shape[5:] if what != "flush"] == ["discard", 128 << 10, 4 << 10]
    assert write_log.last_flush(found[:5]) == 5
    assert write_log.last_flush(found[:4]) == 2
    assert write_log.last_flush(found[:1]) == 0


def test_of_what_no_flush_covers_each_block_is_old_or_new(logged):
    found = read(logged)
    log = os.open(logged / "log", os.O_RDONLY)
    before, after = play(logged, found[4].end), play(logged)
    outcomes = set()
    for seed in range(200):
        disk = os.memfd_create("disk")
        os.write(disk, before)
        write_log.apply_part(log, found[5:], disk, random.Random(seed))
        got = os.pread(disk, SIZE, 0)
        outcomes.add(got)
        for at in range(0, SIZE, 4096):
            piece = slice(at, at + 4096)
            assert got[piece] in (before[piece], after[piece])
    assert len(outcomes) > 50
    assert before in outcomes


def test_a_log_cut_anywhere_ends_at_its_last_whole_entry(logged, tmp_path):
    whole = list(write_log.entries(os.open(logged / "log", os.O_RDONLY)))
    for size in (whole[3].end, whole[3].end + 511, whole[6].end - 1, whole[6].data + 1):
        cut = tmp_path / "log"
        cut.write_bytes((logged / "log").read_bytes()[:size])
        assert list(write_log.entries(os.open(cut, os.O_RDONLY))) == [one for one in whole if one.end <= size]
        os.truncate(cut, size + (1 << 16))  # QEMU's file may have a hole where a request was not finished
        assert [one for one in write_log.entries(os.open(cut, os.O_RDONLY)) if one.end <= size] == [
            one for one in whole if one.end <= size
        ]


def test_what_is_no_log_is_refused(tmp_path):
    (tmp_path / "log").write_bytes(bytes(4096))
    with pytest.raises(write_log.Damaged):
        list(write_log.entries(os.open(tmp_path / "log", os.O_RDONLY)))
