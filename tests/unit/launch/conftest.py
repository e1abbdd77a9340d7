"""What the tests of the launchers share: the directories of a host, a root to run from, and processes of their own."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from volt_casd.erofs import write_image
from volt_casd.tree import Entry
from volt_common.api.cas import Form
from volt_ctr_launch.paths import Layout

TREE = "ab" * 32
Config = dict[str, object]


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("the launchers are root's")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A host's directories, empty."""
    os.chmod(tmp_path, 0o755)
    for name in ("containers", "roots", "cas/views", "cas/objects", "run/op"):
        (tmp_path / name).mkdir(parents=True)
    names = (str(tmp_path / name) for name in ("containers", "roots", "cas", "run", "policy.toml", "handover"))
    return Layout(*names)


@pytest.fixture
def valid() -> Config:
    """A config.json that passes every check; a fresh one for each test."""
    return {
        "version": 1,
        "name": "web",
        "id": "12" * 16,
        "created_at": "2026-01-01T00:00:00Z",
        "uid": 1000,
        "image": "debian:12",
        "tree": TREE,
        "view": {"form": "full", "sha256": "cd" * 32, "size": 4096},
        "root": {"mode": 0o755, "uid": 0, "gid": 0, "mtime_ns": 10**18},
        "mode": "container",
        "args": ["/bin/sh"],
        "env": {"PATH": "/usr/bin:/bin"},
        "user": "",
        "workdir": "/",
        "hostname": "web",
        "tty": False,
        "streams": "journal",
        "read_only": False,
        "layer": "overlay",
        "network": "none",
        "binds": [],
        "tmpfs": [],
        "capabilities": [],
        "resources": {"memory_max": None},
        "stop_signal": "SIGTERM",
        "stop_seconds": 10,
        "remove": False,
        "labels": {},
    }


def isolated(work: Callable[[], None]) -> None:
    """Run a test's body in a child, which may change namespaces and ids; what it asserts is asserted here."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            work()
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-60000:])
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as file:
        said = file.read()
    os.waitpid(pid, 0)
    assert not said, said


@pytest.fixture(name="isolated")
def _isolated() -> Callable[[Callable[[], None]], None]:
    return isolated


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of a few programs of this host, with their libraries."""
    root = tmp_path_factory.mktemp("image")
    for directory in ("usr/bin", "etc", "home/app", "root", "proc", "sys", "dev", "run", "tmp"):
        (root / directory).mkdir(parents=True)
    for link in ("bin", "lib", "lib64"):
        (root / "usr" / link).mkdir(exist_ok=True)
        (root / link).symlink_to(f"usr/{link}")
    needed: set[str] = set()
    for program in ("sh", "id", "cat", "sleep", "grep", "stty", "tty"):
        found = shutil.which(program)
        assert found
        needed |= {word for word in subprocess.check_output(["ldd", found], text=True).split() if word[0] == "/"}
        shutil.copy(os.path.realpath(found), root / "usr/bin" / program)
    for library in needed:
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napp:x:1000:\naudio:x:29:app\n")
    (root / "usr/lib/os-release").write_text("ID=test\n")
    return root


def entries_of(directory: Path, objects: Path) -> list[Entry]:
    """The tree of a directory; its files become objects."""
    found = []
    for path in [directory, *sorted(directory.rglob("*"))]:
        seen = path.lstat()
        name = b"" if path == directory else os.fsencode(path.relative_to(directory))
        size, digest, target = 0, b"", b""
        if stat.S_ISLNK(seen.st_mode):
            target = os.fsencode(os.readlink(path))
            size = len(target)
        elif stat.S_ISREG(seen.st_mode) and seen.st_size:
            data = path.read_bytes()
            size, digest = len(data), blake3(data).digest()
            place = objects / digest.hex()[:2] / digest.hex()
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(data)
        found.append(Entry(name, seen.st_mode, 0, 0, 10**18, size, digest, target))
    return found


@pytest.fixture
def view(layout: Layout, files: Path) -> Callable[[str], Config]:
    """Puts the view of `files` in the store, in a form; returns config.json's `view`."""

    def make(form: str) -> Config:
        objects = Path(layout.cas) / "objects"
        path = Path(layout.cas) / "views" / f"{TREE}.{form}"
        entries = entries_of(files, objects)
        with open(path, "wb+") as image:
            write_image(
                image.fileno(),
                entries,
                Form(form),
                lambda digest: os.open(objects / digest.hex()[:2] / digest.hex(), os.O_RDONLY),
            )
        data = path.read_bytes()
        return {"form": form, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}

    return make
