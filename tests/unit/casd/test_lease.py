"""Reading what others may write: whole, or not at all."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from pathlib import Path

import pytest
from unit.casd.casd_support import opened

from volt_casd import ingest, lease
from volt_casd.ingest import Reader
from volt_casd.lease import Hold
from volt_casd.objects import Stored
from volt_casd.store import Store
from volt_common.errors import Changed, Invalid


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "f"
    found.write_bytes(b"before")
    return found


def take(store: Store, fd: int) -> Stored:
    with store.batch() as batch:
        return Reader(batch, store.objects).store_file(fd, "f")


def test_a_lease_is_taken_and_given_back(path: Path) -> None:
    with opened(path) as fd:
        hold = lease.take(fd)
        assert hold is Hold.LEASE
        assert fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK
        assert lease.kept(fd, hold, os.fstat(fd))
        lease.drop(fd, hold)
        assert fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_UNLCK


def test_a_writer_that_comes_meanwhile_waits_and_is_noticed_and_kills_nobody(path: Path) -> None:
    with opened(path) as fd:
        hold = lease.take(fd)
        before = os.fstat(fd)
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        assert not lease.kept(fd, hold, before)
        lease.drop(fd, hold)
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def test_who_has_it_open_for_writing_or_mapped_prevents_a_lease(path: Path) -> None:
    with opened(path) as fd:
        with opened(path, os.O_RDWR) as writer:
            assert lease.take(fd) is Hold.WRITER
            with mmap.mmap(writer, 0):
                os.close(os.dup(writer))
                assert lease.take(fd) is Hold.WRITER
        assert lease.take(fd) is Hold.LEASE


def test_a_file_that_is_open_for_writing_and_stays_the_same_is_stored(store: Store, path: Path) -> None:
    with opened(path) as fd, opened(path, os.O_RDWR):
        assert take(store, fd).size == 6


def test_a_file_that_changes_each_time_it_is_read_is_changed(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path) as fd, opened(path, os.O_RDWR) as writer:
        real = os.preadv

        def torn(fd: int, buffers: list[memoryview], offset: int) -> int:
            count = real(fd, buffers, offset)
            os.pwrite(writer, os.urandom(6), 0)
            return count

        monkeypatch.setattr(os, "preadv", torn)
        with pytest.raises(Changed, match="f changed while it was read"):
            take(store, fd)
    assert not list(Path(store.path).glob("objects/*/*"))


def test_a_change_through_a_map_of_a_large_file_is_seen(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(3 << 20))
    with opened(path) as fd, opened(path, os.O_RDWR) as writer, mmap.mmap(writer, 0) as shared:
        real = ingest.hash_file

        def changed(fd: int) -> bytes:
            shared[0] = (shared[0] + 1) % 256
            return real(fd)

        monkeypatch.setattr(ingest, "hash_file", changed)
        with pytest.raises(Changed):
            take(store, fd)
    assert os.listdir(store.staging) == []


def test_without_leases_growth_and_new_times_are_seen(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "take", lambda fd: Hold.NOTHING)
    real = os.preadv

    def growing(fd: int, buffers: list[memoryview], offset: int) -> int:
        with open(path, "ab") as file:
            file.write(b"x")
        return real(fd, buffers, offset)

    with opened(path) as fd:
        assert take(store, fd).size == 6
        monkeypatch.setattr(os, "preadv", growing)
        with pytest.raises(Changed):
            take(store, fd)


def test_a_file_whose_size_is_not_its_length_is_changed_not_empty(store: Store) -> None:
    with opened("/proc/self/status") as fd, pytest.raises((Changed, Invalid)):
        take(store, fd)


def test_a_writer_waits_no_longer_than_the_read(store: Store, path: Path) -> None:
    opened_for_writing = threading.Event()

    def write() -> None:
        os.close(os.open(path, os.O_WRONLY))
        opened_for_writing.set()

    with opened(path) as fd:
        hold = lease.take(fd)
        thread = threading.Thread(target=write)
        thread.start()
        lease.drop(fd, hold)
        assert opened_for_writing.wait(10)
        thread.join()
