"""This terminal joined to a container's: raw mode, window size, and packets over a SOCK_SEQPACKET pair.

Packets up: a zero byte and what was typed, or a one and the window's rows and columns. Packets down are what
the container's terminal shows. The end of the pair is the end of the session.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import termios
from types import FrameType
from typing import Any

DETACH = b"\x10\x11"  # Ctrl-P Ctrl-Q
_CHUNK = 4096  # bytes of one packet of typing; the kernel's own line is as long
_PACKET = 1 << 17


class Terminal:
    """`far` is the descriptor to send; `pump` copies until the session ends."""

    def __init__(self, keyboard: int = 0, screen: int = 1) -> None:
        self._keyboard = keyboard
        self._screen = screen
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._near = near
        self._far: socket.socket | None = far
        self._pending: list[bytes] = []
        self._held = b""  # a Ctrl-P whose next key is not known yet
        self._saved: list[Any] | None = None  # as termios has it
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, object] = {}

    @property
    def far(self) -> int:
        assert self._far is not None
        return self._far.fileno()

    def __enter__(self) -> Terminal:
        self._near.setblocking(False)
        if os.isatty(self._keyboard):
            self._saved = termios.tcgetattr(self._keyboard)
        self._before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._resized)
        self._send_size()
        return self

    def __exit__(self, *_: object) -> None:
        self._cooked()
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        for end in (self._near, self._far):
            if end is not None:
                end.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def pump(self, also: int | None = None) -> bool:
        """Copy until the session ends (True), or the user leaves it (False). When `also` becomes readable,
        the session counts as ended once what it still has to say is shown."""
        if self._far is not None:
            self._far.close()
            self._far = None
        self._raw()
        try:
            return self._copy(also)
        finally:
            self._cooked()

    def _copy(self, also: int | None) -> bool:
        keyboard = True
        while True:
            poll = select.poll()
            poll.register(self._near, select.POLLIN | (select.POLLOUT if self._pending else 0))
            poll.register(self._wake_reader, select.POLLIN)
            if keyboard and not self._pending:  # what can't be sent is not read: the shell keeps it
                poll.register(self._keyboard, select.POLLIN)
            if also is not None:
                poll.register(also, select.POLLIN)
            ready = dict(poll.poll())
            if self._wake_reader in ready:
                os.read(self._wake_reader, 4096)
                self._send_size()
            events = ready.get(self._near.fileno(), 0)
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self._show():
                return True
            if self._pending:
                self._flush()
            if self._keyboard in ready:
                keyboard = self._typed()
                if self._held == DETACH:
                    return False
            if also is not None and also in ready and self._near.fileno() not in ready:
                return True

    def _show(self) -> bool:
        """What the container's terminal says, onto ours; False at its end."""
        try:
            data = self._near.recv(_PACKET)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        if not data:
            return False
        while data:
            data = data[os.write(self._screen, data) :]
        return True

    def _typed(self) -> bool:
        """What was typed, as packets; False at its end."""
        try:
            data = os.read(self._keyboard, _CHUNK)
        except OSError:  # EIO: the terminal is gone
            data = b""
        if not data:
            self._pending.append(b"\0\x04")  # as if Ctrl-D was typed
            self._flush()
            return False
        send, self._held = split_detach(self._held + data)
        if send:
            self._pending.append(b"\0" + send)
            self._flush()
        return True

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._pending:
                try:
                    self._near.send(self._pending[0])
                except ConnectionError:  # the end is read, not written
                    self._pending.clear()
                    return
                del self._pending[0]

    def _resized(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_writer, b"w")

    def _send_size(self) -> None:
        try:
            size = os.get_terminal_size(self._screen)
        except OSError:  # the screen is a file
            return
        self._pending.append(b"\1" + struct.pack("!HH", size.lines, size.columns))
        self._flush()

    def _raw(self) -> None:
        if self._saved is None:
            return
        mode = termios.tcgetattr(self._keyboard)
        mode[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        mode[1] &= ~termios.OPOST
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(self._keyboard, termios.TCSADRAIN, mode)

    def _cooked(self) -> None:
        if self._saved is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._saved)


def split_detach(typed: bytes) -> tuple[bytes, bytes]:
    """What to send of what was typed, and what to hold back: the detach keys, or their first half."""
    at = typed.find(DETACH)
    if at >= 0:
        return typed[:at], DETACH
    if typed.endswith(DETACH[:1]):
        return typed[:-1], DETACH[:1]
    return typed, b""
