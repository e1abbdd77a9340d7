"""Views: made when asked for, once, and again when what is there cannot be used."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from unit.casd.casd_support import ROOT, build, fill, object_path, put

from volt_casd import views
from volt_casd.builder import build_directory
from volt_casd.store import Store
from volt_common.api.cas import Form
from volt_common.errors import Exhausted, NotFound


@pytest.fixture
def tree(store: Store, tmp_path: Path) -> bytes:
    top = fill(tmp_path / "src", {"a": b"one", "d/b": b"two" * 10_000})
    os.chmod(top, 0o1750)
    os.utime(top, ns=(0, 123_456_789_012))
    return bytes.fromhex(build_directory(store, top).tree)


@pytest.mark.parametrize("form", Form)
def test_a_view_is_described_as_it_lies_there(store: Store, tree: bytes, form: Form) -> None:
    ready = store.view(tree, form)
    fd = store.views.open(tree, form)
    with open(fd, "rb") as file:
        data = file.read()
    assert (ready.size, ready.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (ready.root_mode, ready.root_mtime_ns) == (0o41750, 123_456_789_012)
    assert data[1024:1028] == b"\xe2\xe1\xf5\xe0"
    assert os.listdir(store.staging) == []
    assert store.views.names() == [f"{tree.hex()}.{form.value}"]


def test_many_that_ask_at_once_get_one_image(store: Store, tree: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    start = threading.Barrier(8)
    real = views.write_image
    monkeypatch.setattr(views, "write_image", lambda *args: (made.append(args), real(*args))[1])

    def ask(_: int) -> str:
        start.wait()
        return store.view(tree, Form.FULL).sha256

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    assert len(made) == 1
    assert store.views._locks == {}


@pytest.mark.parametrize("name", ["{}.full.json", "{}.full"])
def test_an_image_that_is_half_there_is_made_again(store: Store, tree: bytes, name: str) -> None:
    first = store.view(tree, Form.FULL)
    path = Path(store.views.path, name.format(tree.hex()))
    for spoil in (path.unlink, lambda: (path.chmod(0o600), path.write_bytes(b"{"))):
        spoil()
        assert store.view(tree, Form.FULL) == first


def test_no_view_of_what_is_not_there(store: Store, tree: bytes) -> None:
    with pytest.raises(NotFound):
        store.view(bytes(32), Form.REDIRECT)
    object_path(store, store.entries(tree)[1].digest).unlink()
    for form in Form:
        with pytest.raises(NotFound):
            store.view(tree, form)
    assert store.views.names() == os.listdir(store.staging) == []


def test_a_full_disk_leaves_no_view(store: Store, tree: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, *rest: object) -> int:
        os.write(fd, b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(views, "write_image", full)
    with pytest.raises(Exhausted, match="disk space"):
        store.view(tree, Form.FULL)
    assert os.listdir(store.staging) == os.listdir(store.views.path) == []


def test_a_view_of_an_empty_tree(store: Store) -> None:
    assert store.view(bytes.fromhex(build(store, [ROOT], []).tree), Form.REDIRECT).size > 0


def test_a_view_changes_nothing_in_the_store(store: Store, tree: bytes) -> None:
    before = sorted(Path(store.path).glob("objects/*/*"))
    for form in Form:
        store.view(tree, form)
    put(store, b"more")
    assert len(sorted(Path(store.path).glob("objects/*/*"))) == len(before) + 1
