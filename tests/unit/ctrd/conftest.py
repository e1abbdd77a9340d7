"""What the tests of ctrd share: a store, and the directories of a host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from volt_ctrd.files import Places


@pytest.fixture(scope="session")
def store_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The directory with the sockets of a store that has a few images."""
    run = str(tmp_path_factory.mktemp("run"))
    program = str(Path(__file__).with_name("fake_casd.py"))
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, program, "--listen", run, "--idle", "0", "--no-landlock"]
    daemon = subprocess.Popen(command, env=environment)
    until = time.monotonic() + 20
    while not _answers(f"{run}/casd.fd"):
        assert daemon.poll() is None
        assert time.monotonic() < until
    yield run
    daemon.terminate()
    daemon.wait(20)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        return sock.connect_ex(path) == 0


@pytest.fixture
def places(tmp_path: Path, store_run: str) -> Places:
    """A host of one's own: empty directories, and the store's sockets."""
    for name in ("containers", "roots", "launch", "launch/op", "run"):
        os.mkdir(tmp_path / name)
    run = str(tmp_path / "run")
    for name in ("casd.sock", "casd.fd"):
        os.symlink(f"{store_run}/{name}", f"{run}/{name}")
    return Places(
        containers=str(tmp_path / "containers"),
        roots=str(tmp_path / "roots"),
        launch=str(tmp_path / "launch"),
        policy=str(tmp_path / "policy.toml"),
        run=run,
    )
