"""After an unclean stop: staging is emptied, what may be damaged is hashed, and nothing else is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from unit.casd.casd_support import ROOT, build, object_path, problems, put

from volt_casd.store import Store
from volt_common.errors import Interrupted, NotFound


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """A store with a blob, a tree and a mark of an unclean end."""
    with Store(str(tmp_path / "cas")) as store:
        put(store, b"good", "b")
        build(store, [ROOT], [], "t")
    (tmp_path / "cas" / "dirty").write_bytes(b"")
    yield tmp_path / "cas"
    assert problems(tmp_path / "cas") == []


def leave(top: Path, digest: bytes, data: bytes) -> Path:
    """As a crash leaves an object that no syncfs covered."""
    path = object_path(top, digest)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o400)
    return path


def test_objects_of_unknown_worth_are_kept_if_good_and_dropped_if_not(top: Path) -> None:
    good, short, zeros = (blake3(data).digest() for data in (b"whole", b"short", b"zeroed"))
    leave(top, good, b"whole")
    leave(top, short, b"sho")
    leave(top, zeros, bytes(6))
    with Store(str(top)) as store:
        assert not store.clean
        assert store.recover() == (1, 2)
        assert store.clean
        assert store.objects.read(good, 10) == b"whole"
        for digest in (short, zeros):
            with pytest.raises(NotFound):
                store.open(digest)
    assert not (top / "dirty").exists()


def test_an_object_of_a_ref_whose_mode_was_lost_is_kept(top: Path) -> None:
    digest = blake3(b"good").digest()
    object_path(top, digest).chmod(0o400)
    with Store(str(top)) as store:
        store.recover()
        assert store.objects.size(digest) == 4


def test_before_the_check_has_come_by_nothing_unchecked_is_given_out(top: Path) -> None:
    good, bad = blake3(b"whole").digest(), blake3(b"short").digest()
    leave(top, good, b"whole")
    path = leave(top, bad, b"sho")
    with Store(str(top)) as store:
        fd = store.open(good)
        assert os.read(fd, 10) == b"whole"
        os.close(fd)
        with pytest.raises(NotFound):
            store.open(bad)
        assert not path.exists()
        assert put(store, b"short") == bad
        store.recover()
        assert store.objects.read(bad, 10) == b"short"


def test_the_check_leaves_alone_what_is_being_written(top: Path) -> None:
    with Store(str(top)) as store:
        with store.batch() as batch:
            digest = batch.put(store.objects, b"under way").digest
            assert store.recover() == (0, 0)
            batch.commit()
        assert store.objects.read(digest, 10) == b"under way"


def test_without_a_finished_check_the_mark_stays(top: Path) -> None:
    with Store(str(top)) as store:
        with pytest.raises(Interrupted):
            store.recover(lambda: True)
        put(store, b"more")
    assert (top / "dirty").exists()
    with Store(str(top)) as store:
        store.recover()
    assert not (top / "dirty").exists()


def test_staging_and_half_written_refs_go_at_once(top: Path) -> None:
    (top / "tmp" / "x").write_bytes(b"x")
    (top / "tmp" / "d" / "e").mkdir(parents=True)
    (top / "refs" / ".b.1234").write_bytes(b"{")
    (top / "refs" / "made" / "for").mkdir(parents=True)
    with Store(str(top)) as store:
        assert os.listdir(store.staging) == []
        assert sorted(os.listdir(store.refs.path)) == ["b", "t"]
        store.recover()


def test_a_clean_store_is_not_checked(tmp_path: Path) -> None:
    with Store(str(tmp_path / "cas")) as store:
        put(store, b"x")
    with Store(str(tmp_path / "cas")) as store:
        assert store.clean


def test_a_store_closed_over_an_open_batch_is_checked_at_the_next_start(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "cas"))
    batch = store.batch()
    batch.put(store.objects, b"left")
    store.close()
    with Store(str(tmp_path / "cas")) as store:
        assert not store.clean
        assert store.recover() == (1, 0)
    assert problems(tmp_path / "cas") == []
