"""Refs: durable names, changed one at a time, listed by prefix."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from volt_casd.refs import Refs
from volt_common.errors import Conflict, Corrupt, Invalid, NotFound, VoltError

A, B = "a" * 64, "b" * 64


@pytest.fixture
def refs(tmp_path: Path) -> Refs:
    return Refs(str(tmp_path), now=lambda: 42)


def names(refs: Refs, prefix: str = "") -> list[str]:
    return [ref.name for ref in refs.under(prefix)]


def test_a_ref_says_what_was_set_and_when(refs: Refs) -> None:
    made = refs.set("images/debian/12", "tree", A, 7)
    assert refs.get("images/debian/12") == made
    assert (made.kind, made.digest, made.size, made.set_at) == ("tree", A, 7, 42)


def test_setting_again_replaces(refs: Refs) -> None:
    refs.set("x", "blob", A, 1)
    refs.set("x", "tree", B, 2)
    assert refs.get("x").digest == B


@pytest.mark.parametrize("name", ["", "/x", "x/", "a//b", "..", "a/../b", ".x", "a/.x", "x\n", "é", "a b", "a" * 129])
def test_what_is_no_name_is_refused(refs: Refs, name: str) -> None:
    for call in (refs.get, refs.delete, lambda n: refs.set(n, "blob", A, 1)):
        with pytest.raises(Invalid):
            call(name)


@pytest.mark.parametrize("prefix", ["..", "../refs", "a/../../x"])
def test_a_prefix_does_not_leave_the_directory_either(refs: Refs, prefix: str) -> None:
    with pytest.raises(Invalid):
        names(refs, prefix)


def test_a_prefix_ends_at_a_slash(refs: Refs) -> None:
    for name in ("images/a", "images/b/c", "images-old/a", "z"):
        refs.set(name, "blob", A, 1)
    assert names(refs) == ["images-old/a", "images/a", "images/b/c", "z"]
    assert names(refs, "images") == names(refs, "images/") == ["images/a", "images/b/c"]
    assert names(refs, "images/a") == ["images/a"]
    assert names(refs, "image") == names(refs, "nothing/here") == []


def test_a_name_cannot_also_be_a_directory_of_names(refs: Refs) -> None:
    refs.set("a/b", "blob", A, 1)
    with pytest.raises(Conflict, match="directory of other refs"):
        refs.set("a", "blob", A, 1)
    with pytest.raises(Conflict, match="below the name of another"):
        refs.set("a/b/c", "blob", A, 1)
    assert names(refs) == ["a/b"]
    for name in ("a", "a/b/c"):
        with pytest.raises(NotFound):
            refs.get(name)


def test_deleting_takes_directories_left_empty_along(refs: Refs) -> None:
    refs.set("a/b/c", "blob", A, 1)
    refs.set("a/d", "blob", A, 1)
    refs.delete("a/b/c")
    assert sorted(os.listdir(refs.path + "/a")) == ["d"]
    refs.delete("a/d")
    assert os.listdir(refs.path) == ["a"]  # the topmost stays, and is in nobody's way
    assert refs.names() == []
    refs.set("a", "blob", A, 1)
    with pytest.raises(NotFound):
        refs.delete("a/d")
    with pytest.raises(NotFound):
        refs.delete("nothing")


def test_a_directory_that_cannot_be_read_is_no_empty_one(refs: Refs, monkeypatch: pytest.MonkeyPatch) -> None:
    refs.set("a/b", "blob", A, 1)

    def fail(_path: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(VoltError, match="reading refs"):
        list(refs.names())


def test_compare_and_set(refs: Refs) -> None:
    with pytest.raises(Conflict, match="absent"):
        refs.set("x", "blob", A, 1, expect=B)
    refs.set("x", "blob", A, 1, expect="")
    with pytest.raises(Conflict, match="aaaa"):
        refs.set("x", "blob", B, 1, expect="")
    refs.set("x", "blob", B, 1, expect=A)
    with pytest.raises(Conflict):
        refs.delete("x", expect=A)
    refs.delete("x", expect=B)
    with pytest.raises(NotFound):
        refs.delete("x", expect=B)


def test_of_many_that_compare_and_set_at_once_one_wins(refs: Refs) -> None:
    start = threading.Barrier(8)

    def attempt(number: int) -> bool:
        start.wait()
        try:
            refs.set("x", "blob", f"{number:064x}", 1, expect="")
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_a_damaged_file_is_named(refs: Refs) -> None:
    refs.set("x", "blob", A, 1)
    Path(refs.path, "x").write_bytes(b'{"kind":')
    with pytest.raises(Corrupt, match="x is damaged"):
        refs.get("x")
    refs.set("x", "blob", A, 1)
    assert refs.get("x").digest == A


def test_files_being_written_are_no_refs_and_leftovers_go(refs: Refs) -> None:
    refs.set("a/x", "blob", A, 1)
    Path(refs.path, "a", ".x.tmp").write_bytes(b"")
    Path(refs.path, "empty", "deep").mkdir(parents=True)
    assert names(refs) == ["a/x"]
    refs.clear_leftovers()
    assert sorted(p.name for p in Path(refs.path).rglob("*")) == ["a", "x"]
