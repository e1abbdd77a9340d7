"""casd as a process with clients: a caller that goes leaves nothing, and a kill -9 costs only what it cut off."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from volt_casd.walk import batches
from volt_common.api import cas
from volt_common.client.blocking import Client, PacketClient
from volt_common.errors import Unknown
from volt_common.wire import Kind

ROOT = Path(__file__).parent.parent.parent


class Daemon:
    """casd on sockets of its own, restarted at will."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.run = str(top / "run")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "volt_casd", "--store", str(self.top / "cas"), "--listen", self.run]
        self.process = subprocess.Popen(
            [*command, "--state", str(self.top / "state"), "--idle", "0"],
            env={**os.environ, "PYTHONPATH": f"{ROOT}/common:{ROOT}/services/casd"},
        )
        wait_for(lambda: self.process.poll() is not None or reachable(self.run))

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)

    def status(self) -> cas.StoreStatus:
        with Client("casd", run=self.run, timeout=10) as client:
            return client.call(cas.Status())


def reachable(run: str) -> bool:
    try:
        with Client("casd", run=run, timeout=10) as client:
            client.call(cas.Status())
    except Exception:
        return False
    return True


def wait_for(happened: object) -> None:
    until = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < until, "it did not happen in 30 s"
        time.sleep(0.02)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "state").mkdir()
    found = Daemon(tmp_path)
    found.start()
    yield found
    with contextlib.suppress(ProcessLookupError):
        found.stop(signal.SIGKILL)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    top = tmp_path / "source"
    top.mkdir()
    for index in range(600):
        (top / f"{index}").write_bytes(b"%d" % index * 100)
    (top / "large").write_bytes(bytes(5_000_000))
    return top


def begin(client: PacketClient, source: Path, packets: int) -> tuple[bytes, cas.Build]:
    """Send that many batches of a build, each taken."""
    call = cas.Build(ref="images/x")
    id = client.begin(call, [])
    for number, (nodes, fds) in enumerate(batches(str(source), 100)):
        if number == packets:
            break
        client.more(id, cas.Batch(nodes), list(fds))
        assert client.next(id, call, item_type=cas.Taken)[0] is Kind.ITEM
    return id, call


def objects_of(daemon: Daemon) -> list[Path]:
    return [*(daemon.top / "cas").glob("objects/*/*"), *(daemon.top / "cas").glob("tmp/*")]


def test_a_caller_that_goes_inside_a_build_leaves_nothing(daemon: Daemon, source: Path) -> None:
    with PacketClient("casd", run=daemon.run) as client:
        begin(client, source, 3)
        assert objects_of(daemon)
    wait_for(lambda: not objects_of(daemon))
    assert daemon.status().refs == 0


def test_a_caller_that_goes_inside_a_tar_stream_leaves_nothing(daemon: Daemon) -> None:
    reading, writing = os.pipe()
    with PacketClient("casd", run=daemon.run) as client:
        client.begin(cas.BuildTar(ref="x"), [reading])
        os.write(writing, bytes(512))
    wait_for(lambda: not objects_of(daemon))
    os.close(reading)
    wait_for(lambda: closed(writing))
    assert daemon.status().refs == 0


def closed(writing: int) -> bool:
    """Whether nobody reads this pipe any more."""
    try:
        os.write(writing, b"x")
    except BrokenPipeError:
        return True
    return False


def test_what_one_caller_gives_up_another_keeps(daemon: Daemon, source: Path) -> None:
    with PacketClient("casd", run=daemon.run) as keeps:
        with PacketClient("casd", run=daemon.run) as goes:
            begin(goes, source, 7)
            id, call = begin(keeps, source, 7)
        keeps.more(id, cas.Batch([], last=True), [])
        kind, built, _ = keeps.next(id, call)
    assert kind is Kind.DONE
    with Client("casd", run=daemon.run) as client:
        assert client.call(cas.RefGet(name="images/x")).digest == built.tree
        bad, _ = client.collect(cas.Verify())
        assert bad == []
        assert client.call(cas.Status()).objects == 601


def test_killed_inside_a_build_it_comes_back_with_what_was_acknowledged(daemon: Daemon, source: Path) -> None:
    with PacketClient("casd", run=daemon.run) as client:
        fd = os.open(source / "large", os.O_RDONLY)
        stored, _ = client.call(cas.Put(ref="kept"), [fd])
        id, call = begin(client, source, 3)
        daemon.stop(signal.SIGKILL)
        with pytest.raises(Unknown):
            client.next(id, call)
    daemon.start()
    wait_for(lambda: daemon.status().clean)
    with Client("casd", run=daemon.run) as client:
        assert client.call(cas.RefGet(name="kept")).digest == stored.digest
        assert client.collect(cas.Verify())[0] == []
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o444 for path in objects_of(daemon))
    assert daemon.stop() == 0
    assert not (daemon.top / "cas" / "dirty").exists()


def test_a_stop_lets_a_build_end(daemon: Daemon, source: Path) -> None:
    with PacketClient("casd", run=daemon.run) as client:
        id, call = begin(client, source, 7)
        daemon.process.send_signal(signal.SIGTERM)
        client.more(id, cas.Batch([], last=True), [])
        assert client.next(id, call)[0] is Kind.DONE
    assert daemon.process.wait(30) == 0
    daemon.start()
    assert daemon.status().clean
    with Client("casd", run=daemon.run) as client:
        client.call(cas.RefGet(name="images/x"))
