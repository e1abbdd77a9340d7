"""Verification finds what changed under its name, says which refs it breaks, and moves it away; and the counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.casd.casd_support import fill, object_path, put

from volt_casd.builder import Builder, build_directory
from volt_casd.status import Counts, status
from volt_casd.store import Store
from volt_casd.verify import Verification
from volt_casd.walk import batches
from volt_common.api.cas import BadObject, Built, Form
from volt_common.errors import Interrupted, NotFound


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return fill(tmp_path / "src", {"a": b"one", "d/b": b"two" * 500_000, "c": b"three"})


@pytest.fixture
def built(store: Store, source: Path) -> Built:
    build_directory(store, source, "t/2")
    return build_directory(store, source, "t/1")


def spoil(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def found(store: Store) -> list[BadObject]:
    return [bad for bad in Verification(store).run() if bad is not None]


def digest_of(store: Store, path: bytes) -> bytes:
    return store.ls("t/1", path)[0].digest


def test_a_good_store_is_clean_and_counted(store: Store, built: Built) -> None:
    run = Verification(store)
    assert [bad for bad in run.run() if bad] == []
    assert (run.objects, run.bad) == (4, 0)
    assert run.bytes > 1_500_000


@pytest.mark.parametrize("data", [b"ONE", b"on", b"", b"one more"])
def test_a_changed_object_is_moved_away_and_told_with_its_refs(store: Store, built: Built, data: bytes) -> None:
    digest = digest_of(store, b"a")
    spoil(object_path(store, digest), data)
    (bad,) = found(store)
    assert (bad.digest, bad.refs) == (digest.hex(), ["t/1", "t/2"])
    assert "match" in bad.problem
    assert (Path(store.path) / "quarantine" / f"objects.{digest.hex()}").read_bytes() == data
    with pytest.raises(NotFound):
        store.open(digest)
    (still,) = found(store)
    assert (still.digest, still.problem, still.refs) == (digest.hex(), "it is missing", ["t/1", "t/2"])


def test_bringing_the_content_again_heals(store: Store, built: Built, source: Path) -> None:
    spoil(object_path(store, digest_of(store, b"d/b")), b"bad")
    assert len(found(store)) == 1
    assert build_directory(store, source).new_objects == 1
    assert found(store) == []


def test_a_changed_tree_is_found_even_after_it_was_read(store: Store, built: Built) -> None:
    store.ls("t/1")
    spoil(object_path(store, bytes.fromhex(built.tree), "trees"), b"volt tree 1\n")
    (bad,) = found(store)
    assert (bad.digest, bad.refs) == (built.tree, ["t/1", "t/2"])
    with pytest.raises(NotFound):
        store.ls("t/1")


def test_a_missing_blob_is_told(store: Store) -> None:
    digest = put(store, b"blob", "b")
    object_path(store, digest).unlink()
    assert found(store) == [BadObject(digest.hex(), "it is missing", ["b"])]


def test_a_bad_object_that_no_ref_needs_is_told_too(store: Store) -> None:
    digest = put(store, b"blob")
    spoil(object_path(store, digest), b"x")
    (bad,) = found(store)
    assert bad.refs == []


def test_a_ref_that_cannot_be_read_is_told(store: Store, built: Built) -> None:
    Path(store.refs.path, "t/1").write_bytes(b"{}")
    (bad,) = found(store)
    assert bad.refs == ["t/1"]


def test_what_is_being_written_is_left_alone(store: Store) -> None:
    with store.batch() as batch:
        batch.put(store.objects, b"under way")
        assert found(store) == []
        batch.commit()


def test_a_damaged_view_is_dropped_and_made_again(store: Store, built: Built) -> None:
    tree = bytes.fromhex(built.tree)
    first = store.view(tree, Form.FULL)
    path = Path(store.views.path, store.views.names()[0])
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert found(store) == []
    assert store.views.names() == []
    assert store.view(tree, Form.FULL) == first


def test_it_can_be_cancelled(store: Store, built: Built) -> None:
    with pytest.raises(Interrupted):
        list(Verification(store, lambda: True).run())


def test_the_status_counts_what_is_there(store: Store, built: Built) -> None:
    counts = Counts()
    put(store, b"blob", "b")
    store.view(bytes.fromhex(built.tree), Form.REDIRECT)
    for _ in range(2):
        now = status(store, counts)
        assert (now.objects, now.object_bytes) == (4, 3 + 1_500_000 + 5 + 4)
        assert (now.trees, now.refs, now.views, now.quarantined, now.clean) == (1, 3, 1, 0, True)
        assert now.logical_bytes == 2 * built.bytes + 4
        assert now.free_bytes > 0
    put(store, b"another")
    assert status(store, counts).objects == 5


def test_a_build_does_not_name_what_was_found_bad_while_it_ran(store: Store, built: Built, source: Path) -> None:

    builder = Builder(store, "t/3")
    for nodes, fds in batches(str(source)):
        builder.take(nodes, fds)
    path = object_path(store, digest_of(store, b"a"))
    spoil(path, b"ONE")
    assert len(found(store)) == 1
    with pytest.raises(NotFound):
        builder.finish()
    builder.close()
    with pytest.raises(NotFound):
        store.refs.get("t/3")
