"""The broker of a container's terminal: one process in the unit that has the pseudo-terminal's other end.

Packets of a watcher (SOCK_SEQPACKET): 0 and typed bytes, or 1 and rows, columns as two big-endian 16-bit numbers. To
a watcher: output as it is. The end means that the session ended, or that the watcher has detached.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import termios

from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.handover import check_packet_socket

_KEPT = 65536
_PACKET = 16384
_TYPED = 65536


def listen(path: str, owner: int) -> socket.socket:
    """The socket at which volt-ctrd brings watchers: one packet with one descriptor each."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(before)
    os.chown(path, owner, -1)
    sock.listen(16)
    return sock


class Broker:
    """Copies between a terminal and those who watch it. A watcher that does not read holds the output back, as a
    terminal with Ctrl-S does; one that goes is forgotten."""

    def __init__(
        self,
        main: int,
        log: int,
        listener: socket.socket | None,
        watchers: list[socket.socket],
        done: int = -1,
        user: int = -1,
    ) -> None:
        self._main = main
        self._user = user
        self._done = done
        self._log = log
        self._listener = listener
        self._kept = b""  # output that nobody has seen
        self._seen = bool(watchers)
        self._arriving: dict[int, socket.socket] = {}
        self._watchers = {sock.fileno(): sock for sock in watchers}
        self._behind: dict[int, bytes] = {}  # output that a watcher has not taken
        self._typed = b""  # what the terminal has not taken
        os.set_blocking(main, False)

    def run(self) -> None:
        """Until the terminal hangs up and everybody has got the rest."""
        open_ = True
        while open_ or self._behind:
            poll = select.poll()
            if open_:
                # Not read while a watcher is behind; POLLHUP comes regardless, and must not spin then.
                if not self._behind:
                    poll.register(self._main, select.POLLIN | (select.POLLOUT if self._typed else 0))
                elif self._typed:
                    poll.register(self._main, select.POLLOUT)
            for sock in (*self._arriving.values(), *([self._listener] if self._listener else [])):
                poll.register(sock, select.POLLIN)
            for number, sock in self._watchers.items():
                readable = select.POLLIN if len(self._typed) < _TYPED else 0
                poll.register(sock, readable | (select.POLLOUT if number in self._behind else 0))
            if open_ and self._done >= 0:
                poll.register(self._done, 0)  # POLLHUP: the command has ended, though somebody may keep the terminal
            for number, events in poll.poll():
                if number == self._done:
                    self._drain()
                    open_ = False
                elif number == self._main:
                    open_ = self._terminal(events) and open_
                elif self._listener and number == self._listener.fileno():
                    self._accept()
                elif number in self._arriving:
                    self._take_watcher(number)
                else:
                    self._watcher(number, events)
        for sock in self._watchers.values():
            sock.close()

    def _terminal(self, events: int) -> bool:
        if events & select.POLLOUT and self._typed:
            with contextlib.suppress(BlockingIOError):
                self._typed = self._typed[os.write(self._main, self._typed) :]
        if events & (select.POLLIN | select.POLLHUP) and not self._behind:
            try:
                data = os.read(self._main, _PACKET)
            except BlockingIOError:
                return True
            except OSError:  # EIO: the last user of the other end has gone
                return False
            if not data:
                return False
            self._output(data)
        return True

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._main, _PACKET):
                self._output(data)

    def _output(self, data: bytes) -> None:
        _write_log(self._log, data.replace(b"\r\n", b"\n"))
        if not self._seen:
            self._kept = (self._kept + data)[-_KEPT:]
        for number in list(self._watchers):
            self._send(number, data)

    def _send(self, number: int, data: bytes) -> None:
        sock = self._watchers[number]
        data = self._behind.pop(number, b"") + data
        while data:
            try:
                sock.send(data[:_PACKET], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._behind[number] = data
                return
            except OSError:
                self._drop(number)
                return
            data = data[_PACKET:]

    def _watcher(self, number: int, events: int) -> None:
        if events & select.POLLOUT and number in self._behind:
            self._send(number, b"")
        if number not in self._watchers or not events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            return
        try:
            packet = self._watchers[number].recv(1 << 17)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._drop(number)
        elif packet[0] == 0:
            self._typed += packet[1:]
            if self._typed:
                with contextlib.suppress(OSError):
                    self._typed = self._typed[os.write(self._main, self._typed) :]
        elif packet[0] == 1 and len(packet) == 5:
            self._resize(packet)

    def _resize(self, packet: bytes) -> None:
        rows, columns = struct.unpack("!HH", packet[1:5])
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            if self._user >= 0:
                signal.pidfd_send_signal(self._user, signal.SIGWINCH)

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            self._arriving[sock.fileno()] = sock

    def _take_watcher(self, number: int) -> None:
        """A packet with a watcher's descriptor; the connection that brought it ends."""
        with self._arriving.pop(number) as sock:
            try:
                _, rights, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
            except OSError:
                return
        found = array.array("i")
        for level, kind, payload in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found.frombytes(payload[: len(payload) // 4 * 4])
        for descriptor in found:
            try:
                watcher = check_packet_socket(descriptor)
            except (Refusal, OSError):
                continue
            self._watchers[watcher.fileno()] = watcher
            kept, self._kept, self._seen = self._kept, b"", True
            self._send(watcher.fileno(), kept)

    def _drop(self, number: int) -> None:
        self._behind.pop(number, None)
        self._watchers.pop(number).close()


def _write_log(log: int, data: bytes) -> None:
    if log < 0:
        return
    rest = memoryview(data)
    with contextlib.suppress(OSError):
        while rest:
            rest = rest[os.write(log, rest) :]


def serve(
    main: int,
    log: int,
    listener: socket.socket | None,
    watchers: list[socket.socket],
    done: int = -1,
    user: int = -1,
) -> None:
    """Run a broker till the end of its terminal, or of what has the other end of the pipe `done`. `log` also gets
    the output; -1: nothing does. `user` is the pidfd of a process that is to hear of a new size though the terminal
    is not its controlling one."""
    Broker(main, log, listener, watchers, done, user).run()
