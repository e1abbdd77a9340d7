"""Benchmarks: a machine with Volt and its peers, and tables at the end of the run. No time is ever asserted.

VOLT_SUITE (bookworm) is the machine's Debian; VOLT_BENCH_MACHINE names one that is up already, VOLT_BENCH_ROUNDS
(15) is how often everything runs. What a table compares ran in turns, in the same minute.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LAB = str(ROOT / "tests/lab/lab")
PEERS = "casync,crun,ostree,podman,runc"
IMAGE = "debian:bench"
TREE = "/root/tree"  # the image's root for the peers, without device nodes: ostree refuses them
ROUNDS = int(os.environ.get("VOLT_BENCH_ROUNDS", "15"))

_tables: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(900))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for table in _tables:
        terminalreporter.write_line("\n" + table)


class Bench:
    """A lab machine to measure in."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, *command: str, input: str = "", timeout: float = 120) -> str:
        """A command's output; it must succeed."""
        done = subprocess.run(
            [LAB, "run", "--name", self.name, "--", *command],
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def sh(self, script: str, timeout: float = 120) -> str:
        return self.run("bash", "-euo", "pipefail", "-s", input=script, timeout=timeout)

    def python(self, script: str, timeout: float = 120) -> str:
        """A script for the interpreter that Volt is installed in, with Volt's modules."""
        site = "import sys, glob; sys.path.extend(glob.glob('/usr/lib/volt/lib/python3*/site-packages'))\n"
        return self.run("/usr/lib/volt/bin/python3", "-I", "-", input=site + script, timeout=timeout)

    def race(
        self, racers: dict[str, str], rounds: int = ROUNDS, prepare: dict[str, str] | None = None, clean: str = ""
    ) -> dict[str, list[float]]:
        """Wall seconds of command lines, run in turns. `prepare` scripts run before each, untimed."""
        before = prepare or {}
        asked = {
            "rounds": rounds,
            "warm": 1,
            "racers": [
                {"name": name, "prepare": before.get(name, ""), "run": shlex.split(line), "clean": clean}
                for name, line in racers.items()
            ],
        }
        script = (ROOT / "tests/bench/race.py").read_text()
        found: dict[str, list[float]] = json.loads(
            self.run("python3", "-I", "-c", script, input=json.dumps(asked), timeout=850)
        )
        return found


def machine_line(bench: Bench) -> str:
    """What was measured on, and how busy it was: the host's load, since a lab machine shares it."""
    inside = bench.sh(". /etc/os-release; set -- $(systemctl --version); echo $PRETTY_NAME, systemd $2")
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{inside.strip()}; {os.cpu_count()} cores, Linux {os.uname().release}, load {load}"


class Report:
    """Makes tables for the end of the run."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def race(self, title: str, found: dict[str, list[float]], against: list[str], note: str = "") -> None:
        """Times in milliseconds, and each as a multiple of the rows in `against`."""
        heads = ["", "median ms", "min ms", *(f"× {peer}" for peer in against)]
        rows = []
        middle = {name: statistics.median(times) for name, times in found.items()}
        for name, times in found.items():
            ratios = [f"{middle[name] / middle[peer]:.2f}" for peer in against]
            rows.append([name, f"{middle[name] * 1000:.1f}", f"{min(times) * 1000:.1f}", *ratios])
        runs = min(len(times) for times in found.values())
        self.table(f"{title} ({runs} runs each, in turns)", heads, rows, note)

    def table(self, title: str, heads: list[str], rows: list[list[str]], note: str = "") -> None:
        widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
        lines = [title, machine_line(self._bench), ""]
        for row in [heads, *rows]:
            cells = [
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        _tables.append("\n".join([*lines, *([note] if note else [])]))


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """The machine, with an image in Volt's store and the same tree as a directory."""
    given = os.environ.get("VOLT_BENCH_MACHINE")
    suite = os.environ.get("VOLT_SUITE", "bookworm")
    name = given or f"bench{os.getpid()}"
    try:
        if not given:
            up = [LAB, "up", "--suite", suite, "--name", name, "--include", PEERS]
            subprocess.run(up, check=True, stdin=subprocess.DEVNULL)
        one = Bench(name)
        made = subprocess.run(
            [str(ROOT / "scripts/debian-root"), suite], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True
        )
        tar = made.stdout.decode().strip()
        subprocess.run([LAB, "push", "--name", name, tar, "/root/image.tar"], check=True, timeout=120)
        one.sh(
            f"volt image import {IMAGE} /root/image.tar; "
            f"[ -d {TREE} ] || (mkdir {TREE}; tar -x -p --xattrs --xattrs-include='*' --exclude='./dev/*' "
            f"-C {TREE} -f /root/image.tar)"
        )
        yield one
    finally:
        if not given:
            subprocess.run([LAB, "down", "--name", name], stdin=subprocess.DEVNULL, timeout=120)


@pytest.fixture
def report(bench: Bench) -> Report:
    return Report(bench)
