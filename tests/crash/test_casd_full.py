"""casd on a disk that runs full, of bytes or of inodes: a typed error, nothing half stored, and it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than 16 MiB in one file, and more than 800 files, each of more than a page."""
    top = tmp_path_factory.mktemp("source")
    for name in ("small", "many", "large"):
        (top / name).mkdir()
    for index in range(20):
        (top / "small" / f"{index}").write_bytes(b"%d" % index * 3000)
    for index in range(2000):
        (top / "many" / f"{index}").write_bytes(b"%06d" % index * 1500)
    with open(top / "large" / "f", "wb") as file:
        for _ in range(40):
            file.write(os.urandom(1 << 20))
    for name in ("many", "large"):
        subprocess.run(["tar", "-C", str(top / name), "-cf", str(top / f"{name}.tar"), "."], check=True)
    return top


def test_a_small_tmpfs(source: Path, tmp_path: Path) -> None:
    on_mount(source, tmp_path, 'mount -t tmpfs -o size=12m,mode=700 none "$1"')


def test_a_small_journaled_file_system(source: Path, tmp_path: Path) -> None:
    if not Path("/dev/loop-control").exists():
        pytest.skip("this host has no loop devices")
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-N", "4096", str(image)], check=True)
    on_mount(source, tmp_path, f'mount -o loop {image} "$1"')


def test_no_inodes_left(source: Path, tmp_path: Path) -> None:
    on_mount(source, tmp_path, 'mount -t tmpfs -o size=1g,nr_inodes=1200,mode=700 none "$1"', "casd_inodes_work.py")


def on_mount(source: Path, tmp_path: Path, mount: str, script: str = "casd_full_work.py") -> None:
    """The work on a file system that only it sees, and that goes with it."""
    place = tmp_path / "small"
    place.mkdir()
    shell = f'{mount} && exec "$2" "$3" "$1" "$4"'
    arguments = [place, sys.executable, HERE / script, source]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", shell, "sh", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}/common:{ROOT}/services/casd"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "ok\n", done.stderr
