"""The launchers run a container with the real systemd-nspawn, and a command in it. systemd's part is the test's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import struct
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from volt_ctr_launch import cgroup, ended, execute, files, op, start, stop
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.paths import Layout

Config = dict[str, object]
MakeView = Callable[[str], Config]
GROUP = "volt-unit-test"


@pytest.fixture(autouse=True)
def able() -> None:
    for program in (Layout().nspawn, Layout().init):
        if not os.path.exists(program):
            pytest.skip(f"{program} is not installed")
    if not os.access(cgroup.mount_point(), os.W_OK) or not os.path.exists(f"{cgroup.mount_point()}/cgroup.procs"):
        pytest.skip("no cgroup v2 that can be written")


def until_empty(group: str) -> None:
    """Wait till no process is left in a cgroup, as systemd does."""
    with contextlib.suppress(FileNotFoundError), open(f"{group}/cgroup.events") as events:
        watch = select.poll()
        watch.register(events, select.POLLPRI)
        while "populated 0" not in events.read():
            watch.poll()
            events.seek(0)


class Unit:
    """volt-container@web.service, as systemd runs it."""

    def __init__(self, layout: Layout, tmp: Path, group: str) -> None:
        self.layout = layout
        self.group = group
        self.output, writer = os.pipe()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(tmp / f"notify-{writer}"))
        self.pid = os.fork()
        if self.pid == 0:
            try:
                Path(group, "cgroup.procs").write_text("0")
                os.setsid()
                os.environ["NOTIFY_SOCKET"] = str(tmp / f"notify-{writer}")
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(writer, 1)
                os.dup2(writer, 2)
                start.run(layout, "web")
            except Refusal as refusal:
                os.write(2, refusal.message.encode())
                os._exit(refusal.exit_code)
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(99)
        os.close(writer)
        self.ready = threading.Event()
        self.answering = threading.Thread(target=self._answer, daemon=True)
        self.answering.start()

    def _answer(self) -> None:
        """systemd's part of sd_notify: it takes the message, and lets the barrier go."""
        while True:
            data, descriptors, _, _ = socket.recv_fds(self.notify, 4096, 1)
            for descriptor in descriptors:
                os.close(descriptor)
            if not data:
                return
            if b"READY=1" in data:
                self.ready.set()

    def until_ready(self) -> dict[str, object]:
        """Returns running.json."""
        assert self.ready.wait(20)
        return files.read_own(f"{self.layout.launch('web')}/running.json")

    def finish(self) -> tuple[str, dict[str, object]]:
        """Waits for its end, as ExecStopPost= does; what it wrote, and its exit."""
        with open(self.output, "rb") as file:
            written = file.read().decode()
        status = os.waitpid(self.pid, 0)[1]
        until_empty(f"{self.group}/relay")
        result = {"EXIT_CODE": "exited", "EXIT_STATUS": str(os.waitstatus_to_exitcode(status))}
        if os.WIFSIGNALED(status):
            result = {"EXIT_CODE": "killed", "EXIT_STATUS": signal.Signals(os.WTERMSIG(status)).name[3:]}
        ended.run(self.layout, "web", result)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.notify.getsockname())
        self.answering.join(10)
        self.notify.close()
        end = files.read_own(f"{self.layout.root('web')}/state.json")["exit"]
        assert isinstance(end, dict)
        # nspawn on a host whose /run is on disk; none that systemd has booted
        return re.sub(r"Attempted to remove disk file system under.*\n\n?", "", written), end


@pytest.fixture
def run(
    layout: Layout, valid: Config, view: MakeView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Unit]]:
    """Starts the container web with keys of its configuration changed."""
    group = f"{cgroup.mount_point()}/{GROUP}-{os.getpid()}"
    os.mkdir(group)
    shown = view("redirect")
    units = []
    # The ExecStopPost= process is in the unit's cgroup; this one is not.
    monkeypatch.setattr(cgroup, "of_unit", lambda: group)

    def begin(**changes: object) -> Unit:
        os.makedirs(f"{layout.containers}/web", exist_ok=True)
        Path(layout.containers, "web/config.json").write_text(json.dumps(valid | {"view": shown} | changes))
        units.append(Unit(layout, tmp_path, group))
        return units[-1]

    yield begin
    cgroup.kill(group)
    for unit in units:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(unit.pid, 0)
    until_empty(group)
    for path, _, _ in os.walk(group, topdown=False):
        os.rmdir(path)


def test_a_command_runs_as_root_of_its_own_ids_and_its_code_is_kept(run: Callable[..., Unit], layout: Layout) -> None:
    unit = run(args=["sh", "-c", "id; echo error >&2; cat /proc/self/uid_map; echo more >/dev/stdout; exit 3"])
    unit.until_ready()
    written, end = unit.finish()
    assert "uid=0(root) gid=0(root)" in written
    assert "error" in written
    assert "more" in written
    assert re.search(r"0 +524288 +65536", written)
    assert (end["code"], end["reason"]) == (3, "exit")
    assert sorted(os.listdir(layout.run)) == [".filters", ".web.lock", "op"]


@pytest.mark.parametrize("value", ["a\"b'c\\d  e;#%h $X` ü=\t", "one\ntwo\r\n", ""])
def test_a_variable_arrives_as_it_is(run: Callable[..., Unit], value: str) -> None:
    unit = run(args=["sh", "-c", 'printf "[%s]" "$VALUE"'], env={"PATH": "/bin", "VALUE": value})
    assert unit.finish()[0] == f"[{value}]"


def test_a_user_has_its_groups_and_no_capability(run: Callable[..., Unit]) -> None:
    unit = run(args=["sh", "-c", "id; grep CapEff /proc/self/status; echo $HOME"], user="app")
    written, end = unit.finish()
    assert "uid=1000(app) gid=1000(app) groups=1000(app),29(audio)" in written
    assert "CapEff:\t0000000000000000" in written
    assert "/home/app" in written
    assert end["code"] == 0


@pytest.mark.parametrize(("args", "code"), [(["nope"], 127), (["/etc/passwd"], 126)])
def test_what_cannot_run_is_told_by_its_code(run: Callable[..., Unit], args: list[str], code: int) -> None:
    written, end = run(args=args).finish()
    assert (end["code"], end["reason"]) == (code, "start-failure")
    assert args[0] in written


def test_stop_asks_first_and_kills_then(run: Callable[..., Unit], layout: Layout) -> None:
    unit = run(args=["sleep", "100"])
    unit.until_ready()
    stop.run(layout, "web")
    assert unit.finish()[1]["code"] == 143
    unit = run(args=["sh", "-c", "trap : TERM; echo deaf; while :; do sleep 0.1; done"], stop_seconds=0)
    unit.until_ready()
    assert os.read(unit.output, 100) == b"deaf\n"
    stop.run(layout, "web")
    end = unit.finish()[1]
    assert (end["code"], end["signal"], end["reason"]) == (137, 9, "signal")


def test_a_terminal_has_a_name_inside(run: Callable[..., Unit]) -> None:
    # nspawn begins to forward a terminal, and gives it its size, when the payload may run already.
    script = 'tty; until [ "$(stty size)" = "24 80" ]; do sleep 0.01; done; stty size; exit 9'
    written, end = run(args=["sh", "-c", script], tty=True).finish()
    assert "/dev/pts/0\n24 80" in written.replace("\r", ""), end
    assert end["code"] == 9


class TestOperations:
    def request(self, layout: Layout, **what: object) -> dict[str, object]:
        path = Path(layout.containers, "web", "op-0123456789abcdef.json")
        path.write_text(json.dumps({"version": 1} | what))
        with contextlib.suppress(Refusal):
            op.run(layout, "web", "0123456789abcdef")
        return files.read_own(f"{layout.run}/op/web-0123456789abcdef.json")

    def test_a_container_is_paused_signalled_and_deleted(self, run: Callable[..., Unit], layout: Layout) -> None:
        unit = run(args=["sleep", "100"])
        running = unit.until_ready()
        payload = f"{running['cgroup']}/payload"
        assert self.request(layout, op="pause") == {"ok": True}
        assert cgroup.is_frozen(payload)
        assert self.request(layout, op="resume") == {"ok": True}
        assert not cgroup.is_frozen(payload)
        assert self.request(layout, op="delete")["code"] == "CONFLICT"
        assert self.request(layout, op="signal", signal="SIGKILL") == {"ok": True}
        assert unit.finish()[1]["signal"] == 9
        assert self.request(layout, op="signal", signal="SIGTERM")["code"] == "CONFLICT"
        assert self.request(layout, op="delete") == {"ok": True}
        assert sorted(os.listdir(layout.roots)) == [".ids.lock", ".views"]
        assert len(os.listdir(layout.views)) == 1  # for who comes soon
        assert sorted(os.listdir(layout.run)) == [".filters", "op"]
        assert self.request(layout, op="delete") == {"ok": True}

    @pytest.mark.parametrize(
        "what", [{"op": "chown"}, {"op": "delete", "path": "/"}, {"op": "signal"}, {"op": "signal", "signal": "0"}, {}]
    )
    def test_a_request_that_is_none_is_refused(self, layout: Layout, what: dict[str, object]) -> None:
        os.mkdir(f"{layout.containers}/web")
        assert self.request(layout, **what)["code"] == "INVALID"


class TestExec:
    def execute(
        self, layout: Layout, request: dict[str, object], descriptors: list[int]
    ) -> tuple[list[dict[str, object]], int]:
        """volt-ctrd's part of one exec: hand over, listen. The reports, and the launcher's exit status."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(layout.handover)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(layout.handover)
            listener.listen()
            pid = os.fork()
            if pid == 0:
                listener.close()
                for descriptor in descriptors:
                    os.close(descriptor)
                code = 99
                try:
                    code = execute.run(layout, "web", "0123456789abcdef")
                except Refusal as refusal:
                    code = refusal.exit_code
                finally:
                    os._exit(code)
            connection, _ = listener.accept()
        asked = json.loads(connection.recv(4096))
        assert asked == {"unit": "exec", "name": "web", "id": "0123456789abcdef"}
        whole = {"ok": True, "env": {}, "user": "", "workdir": "", "tty": False} | request
        socket.send_fds(connection, [json.dumps(whole).encode()], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        reports = []
        with contextlib.suppress(ConnectionResetError), connection:
            while packet := connection.recv(65536):
                reports.append(json.loads(packet))
        return reports, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def piped(self, layout: Layout, stdin: bytes = b"", **request: object) -> tuple[str, str, list[dict[str, object]]]:
        given, ours = [], []
        for number in range(3):
            reader, writer = os.pipe()
            given.append(writer if number else reader)
            ours.append(reader if number else writer)
        with open(ours[0], "wb") as file:
            file.write(stdin)
        reports, _ = self.execute(layout, request, given)
        with open(ours[1]) as out, open(ours[2]) as err:
            return out.read(), err.read(), reports

    @pytest.fixture
    def running(self, run: Callable[..., Unit], layout: Layout) -> Iterator[dict[str, object]]:
        unit = run(args=["sleep", "1000"], env={"PATH": "/usr/bin", "FROM": "config"})
        yield unit.until_ready()
        stop.run(layout, "web")
        unit.finish()

    def test_it_is_confined_exactly_as_the_payload(self, running: dict[str, object], layout: Layout) -> None:
        lines = r"^(Cap|Seccomp|NoNewPrivs)"
        script = (
            f"grep -E '{lines}' /proc/self/status; echo; grep -E '{lines}' /proc/1/status; echo; cat /proc/self/cgroup"
        )
        out, _, reports = self.piped(layout, args=["sh", "-c", script])
        own, payload, groups = out.split("\n\n")
        assert own == payload
        assert "Seccomp:\t2" in own
        assert "CapEff:\t0000000000000000" not in own
        assert "0::/exec-0123456789abcdef" in groups
        assert reports[-1] == {"exit": 0, "signal": 0, "reason": "exit"}

    def test_streams_are_apart_and_belong_to_the_command(self, running: dict[str, object], layout: Layout) -> None:
        script = "cat; echo out > /dev/stdout; echo err > /dev/stderr; echo $FROM $MORE $HOME; id; exit 5"
        env = {"MORE": "exec"}
        out, err, reports = self.piped(layout, b"typed\n", args=["sh", "-c", script], user="app", env=env)
        assert out.startswith(
            "typed\nout\nconfig exec /home/app\nuid=1000(app) gid=1000(app) groups=1000(app),29(audio)"
        )
        assert err == "err\n"
        assert [set(report) for report in reports] == [{"started"}, {"exit", "signal", "reason"}]
        assert reports[-1]["exit"] == 5

    @pytest.mark.parametrize(
        ("request_", "code"),
        [
            ({"args": ["nope"]}, 127),
            ({"args": ["/etc/passwd"]}, 126),
            ({"args": ["sh"], "user": "nobody-here"}, 126),
            ({"args": ["sh"], "workdir": "/nope"}, 126),
        ],
    )
    def test_what_cannot_run_is_told(
        self, running: dict[str, object], layout: Layout, request_: dict[str, object], code: int
    ) -> None:
        reports = self.piped(layout, **request_)[2]
        assert [report["error"] for report in reports] == ["INVALID"]
        assert reports[0]["exit"] == code

    def test_a_signal_is_told(self, running: dict[str, object], layout: Layout) -> None:
        reports = self.piped(layout, args=["sh", "-c", "kill -9 $$"])[2]
        assert reports[-1] == {"exit": 137, "signal": 9, "reason": "signal"}

    def test_a_terminal_is_the_containers_own(self, running: dict[str, object], layout: Layout) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.send(b"\1" + struct.pack("!HH", 33, 99))
        ours.send(b"\0hello\n")
        script = "read word; tty; stty size; echo got $word; exit 4"
        reports, _ = self.execute(layout, {"args": ["sh", "-c", script], "tty": True}, [theirs.detach()])
        said = b""
        with ours:
            ours.settimeout(10)
            while packet := ours.recv(65536):
                said += packet
        assert b"/dev/pts/0\r\n33 99\r\ngot hello\r\n" in said
        assert reports[-1]["exit"] == 4

    def test_what_is_no_request_is_refused(self, running: dict[str, object], layout: Layout) -> None:
        for request in ({"args": []}, {"args": ["sh"], "privileged": True}, {"args": ["sh"], "user": "-1"}):
            assert self.piped(layout, **request)[2][0]["error"] == "INVALID"

    def test_a_directory_is_no_stream(self, running: dict[str, object], layout: Layout) -> None:
        given = [os.open("/", os.O_RDONLY), os.open(os.devnull, os.O_WRONLY), os.open(os.devnull, os.O_WRONLY)]
        reports, _ = self.execute(layout, {"args": ["sh", "-c", "cd /proc/self/fd/0"]}, given)
        assert reports[0]["error"] == "INVALID"

    def test_a_callers_terminal_is_not_the_commands(self, running: dict[str, object], layout: Layout) -> None:
        main, slave = os.openpty()
        given = [os.open(os.devnull, os.O_RDONLY), slave, os.dup(slave)]
        reports, _ = self.execute(layout, {"args": ["sh", "-c", "tty <&1; echo said"]}, given)
        assert reports[-1]["exit"] == 0
        said = os.read(main, 4096)
        assert b"not a tty" in said
        assert b"said" in said
        os.close(main)

    def test_the_end_of_the_connection_is_the_end_of_the_command(
        self, running: dict[str, object], layout: Layout
    ) -> None:
        reader, writer = os.pipe()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(layout.handover)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(layout.handover)
            listener.listen()
            pid = os.fork()
            if pid == 0:
                os.close(reader)
                os.close(writer)
                listener.close()
                os._exit(execute.run(layout, "web", "0123456789abcdef"))
            connection, _ = listener.accept()
        connection.recv(4096)
        null = os.open(os.devnull, os.O_RDWR)
        request = {"ok": True, "args": ["sleep", "100"], "env": {}, "user": "", "workdir": "", "tty": False}
        socket.send_fds(connection, [json.dumps(request).encode()], [null, writer, null])
        os.close(writer)
        os.close(null)
        assert "started" in json.loads(connection.recv(4096))
        connection.close()
        assert os.read(reader, 1) == b""  # nobody is left who could write
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 137
        os.close(reader)


def test_a_foreground_run_reaches_caller_and_journal(run: Callable[..., Unit], layout: Layout) -> None:
    reader, writer = os.pipe()
    source, feeder = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(layout.handover)
        listener.listen()
        unit = run(args=["sh", "-c", "cat; echo done; echo bad >&2"], streams="handover")
        connection, _ = listener.accept()
        asked = json.loads(connection.recv(4096))
        assert asked["unit"] == "run"
        null = os.open(os.devnull, os.O_WRONLY)
        socket.send_fds(connection, [b'{"ok": true}'], [source, writer, null])
        connection.close()
    for descriptor in (source, writer, null):
        os.close(descriptor)
    os.write(feeder, b"typed\n")
    os.close(feeder)
    written, end = unit.finish()
    with open(reader) as file:
        assert file.read() == "typed\ndone\n"
    assert sorted(written.split()) == ["bad", "done", "typed"]
    assert end["code"] == 0
