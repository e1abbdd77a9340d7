"""The broker of a terminal: nobody loses output, and a watcher that goes harms nobody."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from volt_ctr_launch import console


class Session:
    """A broker in a thread, with the terminal's other end and the log at hand."""

    def __init__(self, path: str, first: list[socket.socket]) -> None:
        main, self.slave = os.openpty()
        attributes = termios.tcgetattr(self.slave)
        attributes[1] &= ~termios.OPOST
        attributes[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(self.slave, termios.TCSANOW, attributes)
        self.log, log = os.pipe()
        self.path = path
        self.listener = console.listen(path, os.getuid())
        done, self.done = os.pipe()

        def serve() -> None:
            with contextlib.ExitStack() as closing:
                for descriptor in (main, log, done):
                    closing.callback(os.close, descriptor)
                console.serve(main, log, self.listener, first, done)

        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()

    def attach(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection, theirs:
            connection.connect(self.path)
            socket.send_fds(connection, [b'{"attach":true}'], [theirs.fileno()])
            assert connection.recv(1) == b""
        ours.settimeout(10)
        return ours

    def end(self) -> None:
        for name in ("slave", "done"):
            with contextlib.suppress(OSError):
                os.close(getattr(self, name))
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.listener.close()
        os.close(self.log)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    running = Session(str(tmp_path / "console"), [])
    yield running
    running.end()


def receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (packet := sock.recv(1 << 17)):
        data += packet
    return data


def read(descriptor: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += os.read(descriptor, count - len(data))
    return data


def test_the_first_watcher_gets_what_nobody_saw(session: Session) -> None:
    os.write(session.slave, b"early\n")
    assert read(session.log, 6) == b"early\n"
    with session.attach() as first:
        assert receive(first, 6) == b"early\n"
        with session.attach() as second:
            os.write(session.slave, b"late\n")
            assert receive(first, 5) == b"late\n"
            assert receive(second, 5) == b"late\n"


def test_what_is_typed_arrives_and_a_size_is_set(session: Session) -> None:
    with session.attach() as watcher:
        watcher.send(b"\1" + struct.pack("!HH", 33, 99))
        watcher.send(b"\0ls\n")
        assert read(session.slave, 3) == b"ls\n"
        size = fcntl.ioctl(session.slave, termios.TIOCGWINSZ, bytes(8))
        assert struct.unpack("HHHH", size)[:2] == (33, 99)


def test_the_log_gets_all_while_a_watcher_goes(session: Session) -> None:
    watcher = session.attach()
    os.write(session.slave, b"one\n")
    assert receive(watcher, 4) == b"one\n"
    watcher.close()
    os.write(session.slave, b"two\r\n")
    assert read(session.log, 8) == b"one\ntwo\n"


def test_a_slow_watcher_loses_nothing(session: Session) -> None:
    sent = os.urandom(1 << 20).replace(b"\r", b"x")
    threading.Thread(target=read, args=(session.log, len(sent)), daemon=True).start()
    with session.attach() as watcher:
        os.write(session.slave, b"!")
        assert receive(watcher, 1) == b"!"
        writer = threading.Thread(
            target=lambda: [os.write(session.slave, sent[n : n + 4096]) for n in range(0, len(sent), 4096)]
        )
        writer.start()
        assert receive(watcher, len(sent)) == sent
        writer.join()


def test_packets_that_mean_nothing_do_nothing(session: Session) -> None:
    with session.attach() as watcher:
        for packet in (b"\1", b"\1\0", b"\7junk", b"\0", b"\1" + bytes(100)):
            watcher.send(packet)
        watcher.send(b"\0ok")
        assert read(session.slave, 2) == b"ok"


def test_who_brings_no_packet_socket_is_ignored(session: Session, tmp_path: Path) -> None:
    with open(tmp_path / "file", "w") as file, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(session.path)
        socket.send_fds(connection, [b"x"], [file.fileno()])
        assert connection.recv(1) == b""
    with session.attach() as watcher:
        os.write(session.slave, b"alive\n")
        assert receive(watcher, 6) == b"alive\n"


def test_the_end_of_the_terminal_is_the_end_of_its_watchers(session: Session) -> None:
    with session.attach() as watcher:
        os.write(session.slave, b"last\n")
        os.close(session.slave)
        assert receive(watcher, 100) == b"last\n"


def test_the_end_of_the_command_is_too_though_somebody_keeps_the_terminal(session: Session) -> None:
    with session.attach() as watcher:
        os.write(session.slave, b"last\n")
        os.close(session.done)
        assert receive(watcher, 100) == b"last\n"


def test_the_socket_is_the_daemons_alone(session: Session) -> None:
    assert os.stat(session.path).st_mode & 0o777 == 0o600
