"""Power that goes during builds: what casd acknowledged is there and whole, and nothing half-done is.

QEMU killed is no power cut: the host still holds what the guest never flushed. So every write is logged
(blklogwrites), and the disk that the next boot gets is put together from the log: all that a flush covers, and of
later writes a random part. VOLT_POWER_CUTS (default 3; a full run takes 20) says how often the machine is cut and
booted again; each run is also cut on paper at POINTS more places, looked at by this host's kernel.

VOLT_CUT_SETUP is a shell script for the machine before the first cut, such as one that takes a sync out of casd, to
see this test fail. VOLT_CUT_SEED repeats the choices, though not the machine's timing.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from vm import write_log
from vm.conftest import LAB, VirtualMachine, down, up

from volt_casd.store import Store
from volt_casd.verify import Verification
from voltlab import machine as record

CUTS = int(os.environ.get("VOLT_POWER_CUTS", "3"))
POINTS = 4
SUITE = os.environ.get("VOLT_SUITES", "bookworm").split(",")[0]
CAS = "/var/lib/volt/cas"
WORKER = Path(__file__).with_name("power_worker.py")

LOOK = """
import os
from volt_common.api import cas
from volt_common.client.blocking import Client
with Client("casd") as casd:
    while not casd.call(cas.Status()).clean:
        os.sched_yield()
    for ref in casd.stream(cas.RefList(prefix="cut")):
        print(ref.name, ref.digest)
"""

Refs = dict[str, str]  # name: digest


class Change(NamedTuple):
    """A change of a ref. `log`: the log's size when the host heard of the acknowledgement; 0: it never did."""

    name: str
    digest: str
    log: int


class Expected(NamedTuple):
    """What must be there, and the one name of which both the old and the new may be."""

    refs: Refs
    doubt: str


def expect(before: Refs, changes: list[Change], end: int) -> Expected:
    """After the power went when the log had `end` bytes."""
    refs = dict(before)
    for change in changes:
        if not change.log or change.log > end:
            return Expected(refs, change.name)
        refs[change.name] = change.digest
        if change.digest == "-":
            del refs[change.name]
    return Expected(refs, "")


def compare(found: Refs, expected: Expected) -> None:
    """The one in doubt is whole, as the store's verification says; any other is what was acknowledged."""
    assert {n: d for n, d in found.items() if n != expected.doubt} == {
        n: d for n, d in expected.refs.items() if n != expected.doubt
    }


class Lab:
    """The machine, its disk, the disk as it was when the log began, and a place to try others."""

    def __init__(self, name: str, work: Path) -> None:
        self.name = name
        self.base = work / "base"
        self.trial = work / "trial"
        self.place = work / "mounted"
        self.place.mkdir()
        self.machine = VirtualMachine(name, SUITE)

    @property
    def disk(self) -> Path:
        return self.directory / "disk.ext4"

    @property
    def log(self) -> Path:
        return self.directory / "writes.log"

    @property
    def directory(self) -> Path:
        known = record.find(self.name)
        assert known is not None
        return known.directory

    def cut(self) -> None:
        subprocess.run([LAB, "power-cut", "--name", self.name], check=True, stdin=subprocess.DEVNULL, timeout=60)

    def boot(self) -> None:
        """From `base`, with an empty log."""
        copy(self.base, self.disk)
        self.log.unlink(missing_ok=True)
        up(self.name, SUITE, "--log-writes")

    @contextmanager
    def mounted(self, disk: Path) -> Iterator[str]:
        """The store on a disk, after the journal's replay."""
        subprocess.run(["mount", "-o", "loop,nosuid,nodev", disk, self.place], check=True)
        try:
            yield f"{self.place}{CAS}"
        finally:
            subprocess.run(["umount", self.place], check=True)


def copy(source: Path, target: Path) -> None:
    """To a new file: a loop device that somebody on this host still holds open stays with the old one, and a mount
    would find it again, with what it remembers."""
    target.unlink(missing_ok=True)
    subprocess.run(["cp", "--sparse=auto", "--reflink=auto", "--", source, target], check=True)


def check(path: str, expected: Expected) -> None:
    """A store at rest keeps its promises."""
    with Store(path) as store:
        store.recover()
        assert os.listdir(store.staging) == []
        assert [bad for bad in Verification(store).run() if bad] == []
        assert os.listdir(f"{path}/quarantine") == []
        compare({ref.name: ref.digest for ref in store.refs.under("cut")}, expected)


def check_booted(machine: VirtualMachine, expected: Expected) -> Refs:
    """The same by the machine's own casd; the refs that are there."""
    done = machine.python(LOOK)
    assert done.returncode == 0, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines())
    compare(found, expected)
    done = machine.volt("cas", "verify")
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.sh(f"ls -A {CAS}/tmp {CAS}/quarantine").split() == [f"{CAS}/quarantine:", f"{CAS}/tmp:"]
    return found


def work(lab: Lab, seed: str, count: int, delay: float) -> list[Change]:
    """Let the worker make `count` changes, and cut the power a moment later; the changes, in order."""
    command = [LAB, "run", "--name", lab.name, "--", "/usr/lib/volt/bin/python3", "-I", "/root/power_worker.py", seed]
    changes: list[Change] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as worker:
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            said = io.BufferedReader(worker.stdout)
            while True:
                words = said.readline().decode().split()
                assert words, "the worker ended by itself"
                if words[0] == "done":
                    changes.append(Change(words[2], words[3], lab.log.stat().st_size))
                worker.stdin.write(b"\n")
                if words[0] == "begin" and len(changes) == count:
                    break
            try:
                worker.wait(delay)  # it is amid this change, or has made it
            except subprocess.TimeoutExpired:
                pass
            lab.cut()
            return [*changes, Change(words[2], "", 0)]
        finally:
            worker.kill()


def places(changes: list[Change], log: list[write_log.Entry], chance: random.Random) -> list[int]:
    """Where to cut: just after an acknowledgement, or anywhere since the first one. In the log's order."""
    acknowledged = [change.log for change in changes if change.log]
    anywhere = [entry.end for entry in log if entry.end > acknowledged[0]]
    return sorted(chance.choice(acknowledged if number % 2 else anywhere) for number in range(POINTS + 1))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    name = f"cut{os.getpid()}"
    one = Lab(name, tmp_path_factory.mktemp("cuts"))
    try:
        up(name, SUITE, "--log-writes")
        one.machine.push(WORKER, "/root/power_worker.py")
        one.machine.sh(os.environ.get("VOLT_CUT_SETUP", ":"))
        one.machine.sh("systemctl stop volt-casd; sync")
        one.cut()
        copy(one.disk, one.base)
        yield one
    finally:
        if record.find(name):  # what the console said, for whoever reads of a failure
            print(*(one.directory / "log").read_text(errors="replace").splitlines()[-60:], sep="\n")
        down(name)
        for path in (one.base, one.trial):
            path.unlink(missing_ok=True)


@pytest.mark.timeout(CUTS * 600 + 600)
def test_power_cuts(lab: Lab) -> None:
    chance = random.Random(os.environ.get("VOLT_CUT_SEED") or random.randrange(1 << 32))
    expected = Expected({}, "")
    checked = acknowledged = dropped = 0
    for cut in range(CUTS):
        lab.boot()
        before = check_booted(lab.machine, expected)
        changes = work(lab, f"{chance.random()}", chance.randint(10, 30), chance.random())
        acknowledged += sum(1 for change in changes if change.log)
        log = os.open(lab.log, os.O_RDONLY)
        base = os.open(lab.base, os.O_RDWR)
        found = list(write_log.entries(log))
        if cut == 0:
            see_a_missing_flush(lab, log, found, before, changes)
        applied = 0
        *points, last = places(changes, found, chance)
        for number, end in enumerate([*points, last]):
            passed = [entry for entry in found if entry.end <= end]
            covered = max(applied, write_log.last_flush(passed))
            write_log.apply(log, found[applied:covered], base)
            applied = covered
            expected = expect(before, changes, end)
            disk = lab.base
            if number < len(points):
                copy(lab.base, lab.trial)
                disk = lab.trial
            target = os.open(disk, os.O_RDWR)
            dropped += write_log.apply_part(log, passed[covered:], target, chance)
            os.close(target)
            if disk == lab.trial:
                with lab.mounted(disk) as store:
                    check(store, expected)
                checked += 1
        os.close(log)
        os.close(base)
        print(f"cut {cut + 1}: {len(found)} requests, {acknowledged} changes acknowledged, {dropped} bytes lost so far")
    lab.boot()
    check_booted(lab.machine, expected)
    lab.cut()
    print(f"{CUTS} cuts booted, {checked} more mounted, {acknowledged} acknowledged changes, {dropped} bytes lost")


def see_a_missing_flush(lab: Lab, log: int, found: list[write_log.Entry], before: Refs, changes: list[Change]) -> None:
    """The check fails when a disk forgets all since the acknowledgement before the last."""
    *_, one, two = [change for change in changes if change.log]
    copy(lab.base, lab.trial)
    target = os.open(lab.trial, os.O_RDWR)
    passed = [entry for entry in found if entry.end <= one.log]
    write_log.apply(log, passed[: write_log.last_flush(passed)], target)
    os.close(target)
    old, new = expect(before, changes, one.log).refs, expect(before, changes, two.log).refs
    with lab.mounted(lab.trial) as store:
        check(store, Expected(old, two.name))
        if old != new:
            with pytest.raises(AssertionError):
                check(store, Expected(new, ""))
