"""`run`, `exec` and their kin against a daemon of the real protocol: streams, terminals, exit codes, signals."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ENV = {**os.environ, "PYTHONPATH": f"{ROOT}/common:{ROOT}/cli", "TERM": "xterm"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    words = [sys.executable, str(Path(__file__).parent / "ctrd_double.py"), "--listen", str(place), "--idle", "0"]
    daemon = subprocess.Popen([*words, "--no-landlock"], env=ENV, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 30
        while volt(place, "container", "list").returncode != 0:
            assert daemon.poll() is None, daemon.stderr.read()
            assert time.monotonic() < until
        yield place
    finally:
        daemon.terminate()
        daemon.communicate(timeout=30)


def words_of(place, *words):
    return [sys.executable, "-m", "volt", "--host", str(place), *words]


def volt(place, *words, **options):
    return subprocess.run(words_of(place, *words), env=ENV, capture_output=True, text=True, timeout=60, **options)


def sh(script):
    return ["img", "sh", "-c", script]


def test_a_payload_s_streams_and_exit_code_are_the_command_s(run_dir):
    done = volt(run_dir, "run", "--rm", *sh("echo out; echo err >&2; exit 42"), input="")
    assert (done.returncode, done.stdout, done.stderr) == (42, "out\n", "err\n")
    assert volt(run_dir, "container", "list", "-o", "name").stdout == ""


def test_a_signal_is_128_and_its_number(run_dir):
    assert volt(run_dir, "run", "--rm", *sh("kill -KILL $$")).returncode == 137


def test_standard_input_is_given_only_with_i(run_dir):
    assert volt(run_dir, "run", "--rm", "-i", "img", "cat", input="hello\n").stdout == "hello\n"
    assert volt(run_dir, "run", "--rm", "img", "cat", input="hello\n").stdout == ""


def test_a_file_as_output_gets_everything(run_dir, tmp_path):
    with open(tmp_path / "out", "wb") as file:
        words = words_of(run_dir, "run", "--rm", *sh("head -c 3000000 /dev/zero"))
        assert subprocess.run(words, env=ENV, stdout=file, timeout=60).returncode == 0
    assert (tmp_path / "out").stat().st_size == 3_000_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_the_payload_s_to_decide_on(run_dir, number):
    name = number.name.removeprefix("SIG")
    script = f"trap 'exit 7' {name}; echo ready; while :; do sleep 0.05; done"
    words = words_of(run_dir, "run", "--rm", *sh(script))
    with subprocess.Popen(words, env=ENV, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout.readline() == "ready\n"
        command.send_signal(number)
        assert command.wait(timeout=30) == 7


def test_the_third_interrupt_kills(run_dir):
    script = "trap 'echo no' INT; echo ready; while :; do sleep 0.05; done"
    words = words_of(run_dir, "run", "--rm", *sh(script))
    with subprocess.Popen(words, env=ENV, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout.readline() == "ready\n"
        for _ in range(2):
            command.send_signal(signal.SIGINT)
            assert command.stdout.readline() == "no\n"
        command.send_signal(signal.SIGINT)
        assert command.wait(timeout=30) == 137


@pytest.mark.parametrize("words", [["run"], ["run", "-d"], ["run", "-t"]])
def test_a_container_that_can_t_start_leaves_nothing(run_dir, words):
    done = volt(run_dir, *words, "refused", "true")
    assert done.returncode == 5
    assert done.stderr.startswith("volt: run: not allowed: the policy forbids it")
    assert volt(run_dir, "container", "list", "-o", "name").stdout == ""


def test_detached_prints_the_name(run_dir):
    done = volt(run_dir, "run", "-d", "--name", "web", *sh("true"))
    assert (done.returncode, done.stdout) == (0, "web\n")
    assert volt(run_dir, "run", "-d", "--name", "web", *sh("true")).returncode == 4
    assert json.loads(volt(run_dir, "inspect", "web").stdout)["spec"]["args"] == ["sh", "-c", "true"]
    assert volt(run_dir, "container", "list", "-o", "name").stdout == "web\n"
    assert volt(run_dir, "stop", "web", "nobody").returncode == 3
    assert volt(run_dir, "stop", "--dry-run", "web").stdout.startswith("would stop web")
    assert volt(run_dir, "explain", "web").stdout.startswith("unit      unit")
    assert volt(run_dir, "rm", "web").stdout == "web is deleted\n"


def test_exec_has_its_own_streams_and_exit_code(run_dir):
    done = volt(run_dir, "exec", "-i", "web", "sh", "-c", "cat; echo err >&2; exit 9", input="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (9, "in\n", "err\n")


def test_an_interrupted_exec_is_exit_13_and_ends_the_command(run_dir, tmp_path):
    words = words_of(run_dir, "exec", "web", "sh", "-c", f"echo $$; sleep 1000 & wait; touch {tmp_path}/went-on")
    with subprocess.Popen(words, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        pid = int(command.stdout.readline())
        command.send_signal(signal.SIGINT)
        assert command.wait(timeout=30) == 13
        assert "interrupted by SIGINT" in command.stderr.read()
    until = time.monotonic() + 30
    while os.path.exists(f"/proc/{pid}/root") and time.monotonic() < until:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}/root")
    assert not (tmp_path / "went-on").exists()


def test_interrupted_events_are_exit_13(run_dir):
    words = words_of(run_dir, "events", "-o", "json")
    with subprocess.Popen(words, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        assert json.loads(command.stdout.readline())["type"] == "start"
        command.send_signal(signal.SIGTERM)
        assert command.wait(timeout=30) == 13
        assert json.loads(command.stderr.read())["error"]["name"] == "ERR_INTERRUPTED"


def test_a_time_out_is_exit_7(run_dir):
    assert volt(run_dir, "run", "-d", "--name", "slow", *sh("true")).returncode == 0
    assert volt(run_dir, "events", "--timeout", "0.2").returncode == 7
    volt(run_dir, "rm", "slow")


class Screen:
    """A terminal with a user at it."""

    def __init__(self, words):
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.said = b""
        self.command = subprocess.Popen(
            words, env=ENV, stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True
        )

    def until(self, text):
        end = time.monotonic() + 30
        while text not in self.said:
            assert time.monotonic() < end, self.said
            if select.select([self.master], [], [], 0.1)[0]:
                self.said += os.read(self.master, 4096)
        self.said = self.said.partition(text)[2]

    def type(self, text):
        os.write(self.master, text)

    def end(self):
        code = self.command.wait(timeout=30)
        assert termios.tcgetattr(self.slave) == self.before
        os.close(self.master)
        os.close(self.slave)
        return code


@pytest.mark.parametrize("verb", [["run", "--rm", "-it", "img"], ["exec", "-it", "web"]], ids=["run", "exec"])
def test_a_terminal_in_between(run_dir, verb):
    script = "tty -s && stty size; echo ready; read line; echo got=$line; exit 3"
    screen = Screen(words_of(run_dir, *verb, "sh", "-c", script))
    screen.until(b"33 99\r\nready")
    screen.type(b"hello\r")
    screen.until(b"got=hello")
    assert screen.end() == 3


def test_keys_go_to_the_payload_not_to_the_command(run_dir):
    script = "trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.05; done"
    screen = Screen(words_of(run_dir, "run", "--rm", "-it", *sh(script)))
    screen.until(b"ready")
    screen.type(b"\x03")
    screen.until(b"interrupted")
    assert screen.end() == 4


def test_a_new_size_reaches_the_payload(run_dir):
    script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
    screen = Screen(words_of(run_dir, "exec", "-it", "web", "sh", "-c", script))
    screen.until(b"ready")
    fcntl.ioctl(screen.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    screen.command.send_signal(signal.SIGWINCH)
    screen.until(b"40 120")
    assert screen.end() == 0


def test_a_terminated_command_restores_the_terminal(run_dir):
    screen = Screen(words_of(run_dir, "exec", "-it", "web", "sh", "-c", "echo ready; sleep 1000"))
    screen.until(b"ready")
    screen.command.terminate()
    assert screen.end() == 13


def test_a_terminal_without_t_is_copied(run_dir):
    screen = Screen(words_of(run_dir, "run", "--rm", "-i", *sh("tty -s || echo none; read x; echo got=$x; exit 6")))
    screen.until(b"none")
    screen.type(b"line\n")
    screen.until(b"got=line")
    assert screen.end() == 6
