"""Objects and batches: stored once, whole or not at all, and nobody's failure takes what another holds."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3
from unit.casd.casd_support import object_path, put

from volt_casd import batch as batches
from volt_casd.store import Store
from volt_common.errors import Exhausted, NotFound, VoltError


def mode(store: Store, digest: bytes) -> int:
    return stat.S_IMODE(object_path(store, digest).stat().st_mode)


def test_an_object_is_named_by_its_blake3_and_becomes_0444_when_durable(store: Store) -> None:
    with store.batch() as batch:
        stored = batch.put(store.objects, b"hello")
        assert stored == (blake3(b"hello").digest(), 5, True)
        assert mode(store, stored.digest) == 0o400
        assert store.objects.size(stored.digest) is None
        with pytest.raises(NotFound):
            store.open(stored.digest)
        batch.commit()
    assert mode(store, stored.digest) == 0o444
    assert store.objects.read(stored.digest, 100) == b"hello"


def test_an_abandoned_batch_leaves_nothing(store: Store) -> None:
    with store.batch() as batch:
        digest = batch.put(store.objects, b"hello").digest
        incoming = batch.incoming(store.objects, 3 << 20)
        incoming.write(bytes(2 << 20))
        incoming.discard()
    assert not object_path(store, digest).exists()
    assert not os.listdir(store.staging)


def test_the_second_to_bring_an_object_keeps_it_when_the_first_gives_up(store: Store) -> None:
    first, second = store.batch(), store.batch()
    digest = first.put(store.objects, b"shared").digest
    assert not second.put(store.objects, b"shared").new
    first.abort()
    assert object_path(store, digest).exists()
    second.commit()
    assert store.objects.read(digest, 100) == b"shared"


def test_the_second_keeps_it_when_the_first_commits_and_the_second_gives_up(store: Store) -> None:
    first, second = store.batch(), store.batch()
    digest = first.put(store.objects, b"shared").digest
    second.put(store.objects, b"shared")
    first.commit()
    second.abort()
    assert store.objects.read(digest, 100) == b"shared"


def test_an_object_goes_with_its_last_holder_however_often_it_was_put(store: Store) -> None:
    first, second = store.batch(), store.batch()
    for batch in (first, second, first, second):
        digest = batch.put(store.objects, b"shared").digest
    first.abort()
    second.abort()
    assert not object_path(store, digest).exists()


def test_a_failed_sync_damages_the_object_for_every_holder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = store.batch(), store.batch()
    digest = first.put(store.objects, b"shared").digest
    second.put(store.objects, b"shared")

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(batches, "syncfs", fail)
        with pytest.raises(VoltError, match="disk fails"):
            first.commit()
    with pytest.raises(VoltError, match="disk fails"):
        second.commit()
    assert not object_path(store, digest).exists()


def test_many_threads_with_the_same_and_their_own_content_store_each_once(store: Store) -> None:
    contents = [b"%d" % number * 1000 for number in range(40)]
    start = threading.Barrier(8)

    def ingest(number: int) -> int:
        start.wait()
        with store.batch() as batch:
            for data in contents[number % 3 :]:
                batch.put(store.objects, data)
            if number % 2:
                batch.commit()
            return batch.new_objects

    with ThreadPoolExecutor(8) as pool:
        created = sum(pool.map(ingest, range(8)))
    assert created >= len(contents)
    for data in contents:
        assert store.objects.read(blake3(data).digest(), 10_000) == data
    assert store.objects._pending == {}


def test_a_durable_object_of_the_wrong_size_is_not_trusted_but_replaced(store: Store) -> None:
    digest = put(store, b"hello")
    path = object_path(store, digest)
    path.unlink()
    path.write_bytes(b"hel")
    path.chmod(0o444)
    assert put(store, b"hello") == digest
    assert store.objects.read(digest, 100) == b"hello"
    assert (Path(store.path) / "quarantine" / f"objects.{digest.hex()}").read_bytes() == b"hel"


@pytest.mark.parametrize(("leftover", "kept"), [(b"hello", True), (b"hel", False)])
def test_what_nobody_knows_durable_is_hashed_before_it_is_used(store: Store, leftover: bytes, kept: bool) -> None:
    digest = blake3(b"hello").digest()
    path = object_path(store, digest)
    path.write_bytes(leftover)
    path.chmod(0o400)
    with store.batch() as batch:
        assert batch.put(store.objects, b"hello").new is not kept
        batch.commit()
    assert store.objects.read(digest, 100) == b"hello"


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 7, 17 << 20])
def test_an_object_that_comes_in_pieces_is_the_same_as_in_one(store: Store, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    for expected in (0, size):
        with store.batch() as batch:
            incoming = batch.incoming(store.objects, expected)
            for at in range(0, size, 700_001):
                incoming.write(data[at : at + 700_001])
            stored = incoming.finish()
            batch.commit()
        assert stored[:2] == (blake3(data).digest(), size)
        assert store.objects.read(stored.digest, size) == data


def test_holes_stay_holes(store: Store) -> None:
    with store.batch() as batch:
        incoming = batch.incoming(store.objects)
        incoming.write(b"a" * 4096)
        incoming.hole(64 << 20)
        incoming.write(b"z")
        incoming.hole(1 << 20)
        stored = incoming.finish()
        batch.commit()
    hasher = blake3(b"a" * 4096 + bytes(64 << 20) + b"z" + bytes(1 << 20))
    assert stored.digest == hasher.digest()
    status = object_path(store, stored.digest).stat()
    assert status.st_size == stored.size == 4097 + (65 << 20)
    assert status.st_blocks * 512 < 1 << 20


def test_a_write_that_fails_leaves_no_object_and_the_store_usable(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from volt_casd import objects

    def full(fd: int, data: bytes) -> None:
        os.write(fd, data[:2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(objects, "write_all", full)
        with store.batch() as batch, pytest.raises(Exhausted, match="disk space"):
            batch.put(store.objects, b"hello")
    assert not object_path(store, blake3(b"hello").digest()).exists()
    assert store.objects.read(put(store, b"hello"), 100) == b"hello"
