"""A machine with real systemd and Volt installed for each Debian suite, and one image in its store.

The machines are this run's own: they are named for the process, brought up when first asked for, and ended with
the session. VOLT_SUITES (default: bookworm,trixie) says which; VOLT_KEEP=1 leaves them up to be looked at.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LAB = str(ROOT / "tests/lab/lab")
IMAGE = "debian:test"


class Machine:
    """A lab machine."""

    def __init__(self, name: str, suite: str) -> None:
        self.name = name
        self.suite = suite

    def run(
        self, *command: str, user: str = "", input: str | bytes | None = None, timeout: float = 60, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root or `user`; its streams are text."""
        who = ["--user", user] if user else []
        data = input.encode() if isinstance(input, str) else input
        done = subprocess.run(
            [LAB, "run", "--name", self.name, *who, "--", *command],
            input=data if data is not None else b"",
            capture_output=True,
            timeout=timeout,
        )
        result = subprocess.CompletedProcess(
            command, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check:
            assert result.returncode == 0, f"{command}: {result.returncode}\n{result.stdout}{result.stderr}"
        return result

    def volt(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return self.run("volt", *words, **options)  # type: ignore[arg-type]

    def sh(self, script: str, **options: object) -> str:
        """A script's output; it must succeed."""
        return self.run("sh", "-ec", script, check=True, **options).stdout  # type: ignore[arg-type]

    def python(self, script: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        """A script for the interpreter that Volt is installed in, with Volt's modules."""
        site = "import sys, glob; sys.path.extend(glob.glob('/usr/lib/volt/lib/python3*/site-packages'))\n"
        return self.run("/usr/lib/volt/bin/python3", "-I", "-c", site + script, *arguments, **options)  # type: ignore[arg-type]

    def push(self, source: Path | str, target: str) -> None:
        subprocess.run([LAB, "push", "--name", self.name, str(source), target], check=True, timeout=120)

    def wait(self, script: str, seconds: float = 30) -> None:
        """Until the shell script succeeds."""
        until = time.monotonic() + seconds
        while (last := self.run("sh", "-c", script)).returncode != 0:
            assert time.monotonic() < until, f"it did not happen: {script}\n{last.stdout}{last.stderr}"
            time.sleep(0.05)

    def clean(self) -> None:
        """No container, no failed unit, daemons as after boot."""
        names = self.volt("ps", "-a", "-o", "name").stdout.split()
        if names:
            self.volt("rm", "--force", *names, timeout=120)
        self.run("systemctl", "reset-failed")


EVERYWHERE = ("test_main_job.py", "test_kills.py")


def _suites() -> list[str]:
    return os.environ.get("VOLT_SUITES", "bookworm,trixie").split(",")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The default is what a quarter of an hour on two cores allows."""
    if "VOLT_SUITES" in os.environ:
        return
    left_out = [item for item in items if "[trixie" in item.name and item.path.name not in EVERYWHERE]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(scope="session")
def debian_root() -> Callable[[str], Path]:
    """The tar of a minimal Debian root."""

    def make(suite: str) -> Path:
        done = subprocess.run(
            [str(ROOT / "scripts/debian-root"), suite], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True
        )
        return Path(done.stdout.decode().strip())

    return make


@pytest.fixture(scope="session", params=_suites())
def machine(request: pytest.FixtureRequest, debian_root: Callable[[str], Path]) -> Iterator[Machine]:
    suite = request.param
    name = f"t{os.getpid()}-{suite}"
    subprocess.run([LAB, "up", "--suite", suite, "--name", name], check=True, stdin=subprocess.DEVNULL)
    one = Machine(name, suite)
    try:
        one.push(debian_root(suite), "/root/image.tar")
        assert one.volt("image", "import", IMAGE, "/root/image.tar", timeout=120).returncode == 0
        one.sh("useradd -m member -G volt; useradd -m outsider")
        yield one
    finally:
        if not os.environ.get("VOLT_KEEP"):
            subprocess.run([LAB, "down", "--name", name], stdin=subprocess.DEVNULL, timeout=120)


@pytest.fixture
def clean(machine: Machine) -> Iterator[Machine]:
    """The machine, with no container before the test and none after it."""
    machine.clean()
    yield machine
    machine.clean()
