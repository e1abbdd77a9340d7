"""A daemon of the skeleton, started for a test and ended with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


ECHO = (str(HERE / "echo_daemon.py"),)


class Served:
    """A running daemon, the echo unless said otherwise. Its sockets are the test's, as systemd would hold them, so
    that it can be ended and started again without a client noticing more than a closed connection."""

    def __init__(self, directory: Path, options: tuple[str, ...] = (), program: tuple[str, ...] = ECHO) -> None:
        self.run = directory / "run"
        self.state = directory / "state"
        self.run.mkdir()
        self.state.mkdir()
        self._options = options
        self._program = program
        self._sockets = []
        for name, kind in (("casd.sock", socket.SOCK_STREAM), ("casd.fd", socket.SOCK_SEQPACKET)):
            sock = socket.socket(socket.AF_UNIX, kind)
            sock.bind(str(self.run / name))
            os.chmod(self.run / name, 0o666)
            sock.listen(1024)
            self._sockets.append(sock)
        os.chmod(directory, 0o755)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        zmq, fd = (sock.fileno() for sock in self._sockets)
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        where = self.state / "notify"
        where.unlink(missing_ok=True)
        notify.bind(str(where))
        notify.settimeout(20)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "common"), *sys.path]),
            "NOTIFY_SOCKET": str(where),
        }
        # The shell stays one process: LISTEN_PID must be the pid that looks at it.
        script = f'exec 3<&{zmq} 4<&{fd}; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=zmq:fd exec "$@"'
        command = [sys.executable, *self._program, "--state", str(self.state), *self._options]
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command], pass_fds=(zmq, fd), env=environment, stdin=subprocess.DEVNULL
        )
        try:
            assert b"READY=1" in notify.recv(4096)
        finally:
            notify.close()

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def wait_for_end(self, seconds: float) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def memory(self) -> int:
        """Resident bytes."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def effects(self) -> list[str]:
        path = self.state / "effects"
        return path.read_text().split() if path.exists() else []

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    one = Served(tmp_path)
    one.start()
    yield one
    assert one.alive() or one.process is not None
    one.close()


@pytest.fixture
def make_served(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(*options: str) -> Served:
        directory = tmp_path / f"d{len(made)}"
        directory.mkdir()
        made.append(Served(directory, options))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()
