"""casd killed at each step of a build, a put, a ref and a view: what was acknowledged is there, nothing else is."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from blake3 import blake3

from volt_casd.store import Store
from volt_casd.verify import Verification
from volt_common.api.cas import Form
from volt_common.errors import NotFound

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

POINTS = [
    "store.marked",
    "object.created",
    "object.created:40",
    "object.written:3",
    "object.staged",
    "object.placed",
    "batch.before-sync",
    "batch.before-sync:2",
    "batch.after-sync",
    "batch.after-sync:3",
    "object.settled",
    "object.settled:30",
    "batch.settled",
    "build.before-tree",
    "build.before-tree:2",
    "build.committed",
    "build.committed:2",
    "ref.before-write",
    "ref.before-write:4",
    "ref.written",
    "ref.written:2",
    "build.done",
    "view.before-sync",
    "view.before-rename",
    "view.renamed",
    "view.done:2",
    "ref.before-delete",
    "ref.deleted",
]


class Run(NamedTuple):
    """How the work ended, and what it had acknowledged."""

    status: int
    built: dict[str, str]
    deleted: set[str]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three directories that share some of their contents, with a large file, a hole and a hard link."""
    top = tmp_path_factory.mktemp("source")
    for number, name in enumerate(("one", "two", "three")):
        directory = top / name
        directory.mkdir()
        for index in range(30):
            (directory / f"{index}").write_bytes(b"%d" % (index + number * 10) * 100)
        (directory / "large").write_bytes(bytes([number]) * 3_000_000)
        with open(directory / "holes", "wb") as file:
            file.truncate(8 << 20)
        os.link(directory / "0", directory / "same")
    (top / "blob").write_bytes(b"blob" * 1000)
    return top


def work(store: Path, source: Path, failpoint: str = "") -> Run:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}/common:{ROOT}/services/casd",
        "VOLT_FAILPOINT": failpoint,
    }
    command = [sys.executable, str(HERE / "casd_work.py"), str(store), str(source)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    built: dict[str, str] = {}
    deleted = set()
    for line in done.stdout.splitlines():
        what, name, digest = line.split()
        if what == "built":
            built[name] = digest
        elif what == "deleted":
            deleted.add(name)
    return Run(done.returncode, built, deleted)


def check(path: Path, run: Run) -> None:
    """The promises of a store after any stop."""
    with Store(str(path)) as store:
        store.recover()
        assert os.listdir(store.staging) == []
        assert [bad for bad in Verification(store).run() if bad] == []
        for name, digest in run.built.items():
            if name not in run.deleted:
                try:
                    assert store.refs.get(name).digest == digest
                except NotFound:  # the work was killed inside its last step, the deletion of this one
                    assert name == "images/one/1"
                    assert "blobs/b" in run.built
        for name in run.deleted:
            with pytest.raises(NotFound):
                store.refs.get(name)
        for ref in store.refs.under():
            if ref.kind == "tree":
                store.require_whole(store.entries(bytes.fromhex(ref.digest)))
                store.view(bytes.fromhex(ref.digest), Form.FULL)
    assert not (path / "dirty").exists()
    for kind in ("objects", "trees"):
        for found in (path / kind).glob("*/*"):
            assert blake3(found.read_bytes()).hexdigest() == found.name
            assert stat.S_IMODE(found.stat().st_mode) == 0o444
    refs = path / "refs"  # of its directories, the topmost stay
    leftovers = [
        p
        for p in refs.rglob("*")
        if p.name.startswith(".") or (p.is_dir() and p.parent != refs and not list(p.iterdir()))
    ]
    assert leftovers == []


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cas"


def test_the_work_passes_every_point(source: Path, place: Path) -> None:
    run = work(place, source)
    assert run.status == 0
    assert len(run.built) == 4
    check(place, run)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(source: Path, place: Path, point: str) -> None:
    run = work(place, source, f"{point}=kill")
    assert run.status == -signal.SIGKILL, f"the work never came by {point}"
    aside = place.with_name("aside")
    shutil.copytree(place, aside)
    check(aside, run)
    again = work(place, source)  # a new start needs no one's help
    assert again.status == 0
    check(place, again)


@pytest.mark.parametrize("point", ["object.created:5", "object.placed", "batch.before-sync", "ref.before-write"])
def test_a_failing_disk_at(source: Path, place: Path, point: str) -> None:
    run = work(place, source, f"{point}=error")
    assert run.status == 1
    check(place, run)
    assert work(place, source).status == 0


def test_killed_twice_in_the_same_place(source: Path, place: Path) -> None:
    for point in ("object.written:20", "object.written:5", "object.settled:3", "build.committed"):
        run = work(place, source, f"{point}=kill")
        assert run.status == -signal.SIGKILL
    assert work(place, source).status == 0
    check(place, Run(0, {}, set()))


def test_objects_that_a_power_cut_left_short_are_dropped_or_written_again(source: Path, place: Path) -> None:
    """After a power cut what no syncfs covered may be empty, short or zeros, under its final name."""
    run = work(place, source, "batch.before-sync=kill")
    unsure = [p for p in (place / "objects").glob("*/*") if stat.S_IMODE(p.stat().st_mode) == 0o400]
    assert len(unsure) > 20
    for index, path in enumerate(unsure):
        path.chmod(0o600)
        os.truncate(path, (0, path.stat().st_size // 2, path.stat().st_size)[index % 3])
        path.chmod(0o400)
    check(place, run)
    assert work(place, source).status == 0
    check(place, Run(0, {}, set()))
