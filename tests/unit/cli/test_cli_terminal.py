"""This side of a container's terminal and pipes: packets, window size, leaving, and the terminal as it was."""

import fcntl
import os
import pty
import signal
import struct
import termios
import threading

import pytest

from volt.container.streams import Streams, copy, may_pass
from volt.container.terminal import Terminal, split_detach


class Session:
    """A terminal of ours on a pty, with the container's side in the test's hands."""

    def __init__(self):
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.terminal = Terminal(self.slave, self.slave)
        self.result = []

    def __enter__(self):
        self.terminal.__enter__()
        self.far = os.dup(self.terminal.far)
        return self

    def __exit__(self, *_):
        self.terminal.__exit__(None, None, None)
        for fd in (self.master, self.slave, self.far):
            if fd >= 0:
                os.close(fd)

    def end(self):
        os.close(self.far)
        self.far = -1


@pytest.fixture
def session():
    with Session() as found:
        yield found


def mode_of(fd):
    return termios.tcgetattr(fd)


def wait_raw(fd):
    """Till the terminal passes on each key as it is typed."""
    while mode_of(fd)[3] & termios.ICANON:
        threading.Event().wait(0.001)


def test_the_first_packet_is_the_window_s_size(session):
    assert os.read(session.far, 100) == b"\1" + struct.pack("!HH", 30, 100)


def test_the_session_is_shown_until_its_end_and_the_mode_is_restored(session):
    before = mode_of(session.slave)
    seen = []

    def container():
        os.read(session.far, 100)
        wait_raw(session.slave)
        os.write(session.master, b"typed\x03")
        seen.append(os.read(session.far, 100))
        os.write(session.far, b"shown")
        session.end()

    thread = threading.Thread(target=container)
    thread.start()
    assert session.terminal.pump() is True
    thread.join()
    assert seen == [b"\0typed\x03"]
    assert os.read(session.master, 100) == b"shown"
    assert mode_of(session.slave) == before


def test_the_detach_keys_leave_it_running(session):
    before = mode_of(session.slave)

    def user():
        os.read(session.far, 100)
        wait_raw(session.slave)
        os.write(session.master, b"ls\x10\x11")

    thread = threading.Thread(target=user)
    thread.start()
    assert session.terminal.pump() is False
    thread.join()
    assert os.read(session.far, 100) == b"\0ls"
    assert mode_of(session.slave) == before


def test_a_new_window_size_is_told(session):
    def container():
        os.read(session.far, 100)
        wait_raw(session.slave)
        fcntl.ioctl(session.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGWINCH)
        sizes.append(os.read(session.far, 100))
        session.end()

    sizes = []
    thread = threading.Thread(target=container)
    thread.start()
    assert session.terminal.pump() is True
    thread.join()
    assert sizes == [b"\1" + struct.pack("!HH", 50, 200)]


def test_an_error_restores_the_mode(session):
    before = mode_of(session.slave)
    os.read(session.far, 100)
    os.close(session.terminal._wake_reader)  # poll can't be asked about it
    with pytest.raises(OSError, match="Bad file"):
        session.terminal.pump()
    session.terminal._wake_reader = os.dup(session.terminal._wake_writer)
    assert mode_of(session.slave) == before


def test_the_end_of_input_that_is_no_terminal_is_told_as_ctrl_d():
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_WRONLY)
    got = []
    with Terminal(reader, null) as terminal:
        far = os.dup(terminal.far)
        os.write(writer, b"exit\n")
        os.close(writer)

        def container():
            got.extend([os.read(far, 100), os.read(far, 100)])
            os.close(far)

        thread = threading.Thread(target=container)
        thread.start()
        assert terminal.pump() is True
        thread.join()
    os.close(reader)
    os.close(null)
    assert got == [b"\0exit\n", b"\0\x04"]


@pytest.mark.parametrize(
    ("typed", "sent", "held"),
    [
        (b"abc", b"abc", b""),
        (b"a\x10", b"a", b"\x10"),
        (b"\x10", b"", b"\x10"),
        (b"\x10x", b"\x10x", b""),
        (b"a\x10\x11b", b"a", b"\x10\x11"),
        (b"\x10\x10\x11", b"\x10", b"\x10\x11"),
        (b"\x11\x10", b"\x11", b"\x10"),
    ],
)
def test_the_detach_keys_are_found_wherever_they_are(typed, sent, held):
    assert split_detach(typed) == (sent, held)


def test_pipes_and_files_are_handed_over_and_nothing_else(tmp_path):
    reader, writer = os.pipe()
    master, slave = pty.openpty()
    null = os.open(os.devnull, os.O_RDWR)
    with open(tmp_path / "f", "w+") as file:
        assert [may_pass(fd) for fd in (reader, writer, file.fileno())] == [True] * 3
        assert [may_pass(fd) for fd in (master, slave, null, 99_999)] == [False] * 4
    for fd in (reader, writer, master, slave, null):
        os.close(fd)


def test_our_own_pipes_are_passed_as_they_are():
    pipes = [os.pipe() for _ in range(3)]
    own = (pipes[0][0], pipes[1][1], pipes[2][1])
    with Streams(interactive=True, own=own) as streams:
        assert streams.passed == list(own)
    with Streams(interactive=False, own=own) as streams:
        assert streams.passed[0] not in own
        assert os.read(streams.passed[0], 1) == b""
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_a_terminal_is_copied_never_handed_over():
    master, slave = pty.openpty()
    mode = termios.tcgetattr(slave)
    mode[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    with Streams(interactive=True, own=(slave, slave, slave)) as streams:
        assert slave not in streams.passed
        assert not any(os.isatty(fd) for fd in streams.passed)
        os.write(streams.passed[1], b"out")
        os.write(streams.passed[2], b"err")
        os.write(master, b"in\n\x04")
        assert os.read(streams.passed[0], 10) == b"in\n"
    said = b""
    while not (b"out" in said and b"err" in said):
        said += os.read(master, 100)
    os.close(master)
    os.close(slave)


def test_a_copy_ends_when_its_reader_is_gone():
    source, feed = os.pipe()
    gone, target = os.pipe()
    os.close(gone)
    os.write(feed, b"x")
    copy(source, target)
    for fd in (source, feed, target):
        os.close(fd)
