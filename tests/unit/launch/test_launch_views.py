"""The kernel mounts nothing but root's own copy of a view, whose hash was checked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from volt_ctr_launch import views
from volt_ctr_launch.config import View
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.paths import Layout

TREE = "ab" * 32
DATA = b"view" * 4096 + bytes(3 << 20) + b"end"


@pytest.fixture
def source(layout: Layout) -> Path:
    """A view in the store; the container is web."""
    os.makedirs(layout.root("web"))
    path = Path(layout.cas) / "views" / f"{TREE}.full"
    path.write_bytes(DATA)
    return path


VIEW = View("full", hashlib.sha256(DATA).hexdigest(), len(DATA))


def copies(layout: Layout) -> list[str]:
    return os.listdir(layout.views) if os.path.exists(layout.views) else []


def test_a_copy_is_roots_alone_and_equal(layout: Layout, source: Path) -> None:
    with open(views.fetch(layout, "web", TREE, VIEW), "rb") as file:
        assert file.read() == DATA
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o400
    assert os.stat(layout.views).st_mode & 0o777 == 0o700


def test_a_copy_that_is_there_is_used_though_the_store_has_another_by_now(layout: Layout, source: Path) -> None:
    os.close(views.fetch(layout, "web", TREE, VIEW))
    source.write_bytes(b"x" * len(DATA))
    with open(views.fetch(layout, "web", TREE, VIEW), "rb") as file:
        assert file.read() == DATA


@pytest.mark.parametrize("data", [DATA[:-1] + b"x", DATA[:-1], DATA + b"x", b""])
def test_other_bytes_are_refused_and_leave_nothing(layout: Layout, source: Path, data: bytes) -> None:
    source.write_bytes(data)
    with pytest.raises(Refusal):
        views.fetch(layout, "web", TREE, VIEW)
    assert copies(layout) == []


def test_what_is_no_file_of_the_stores_is_refused(layout: Layout, source: Path, tmp_path: Path) -> None:
    source.unlink()
    with pytest.raises(Refusal) as caught:
        views.fetch(layout, "web", TREE, VIEW)
    assert caught.value.code == "NOT_FOUND"
    (tmp_path / "secret").write_bytes(DATA)
    source.symlink_to(tmp_path / "secret")
    with pytest.raises(Refusal):
        views.fetch(layout, "web", TREE, VIEW)
    source.unlink()
    os.mkfifo(source)
    with pytest.raises(Refusal):
        views.fetch(layout, "web", TREE, VIEW)
    source.unlink()
    source.write_bytes(DATA)
    os.chown(source, 1000, 1000)
    with pytest.raises(Refusal):
        views.fetch(layout, "web", TREE, VIEW)


def test_a_copy_goes_with_its_last_container(layout: Layout, source: Path) -> None:
    os.makedirs(layout.root("other"))
    for name in ("web", "other"):
        os.close(views.fetch(layout, name, TREE, VIEW))
    os.unlink(f"{layout.root('web')}/view")
    views.drop_unused(layout)
    assert copies(layout) == [views.file_name(TREE, VIEW)]
    os.unlink(f"{layout.root('other')}/view")
    Path(layout.views, ".copy").write_bytes(b"cut off")
    views.drop_unused(layout)
    assert copies(layout) == [views.file_name(TREE, VIEW)]  # not yet: who ran one command runs another
    os.utime(f"{layout.views}/{views.file_name(TREE, VIEW)}", (0, 0))
    views.drop_unused(layout)
    assert copies(layout) == []
