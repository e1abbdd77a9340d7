"""The three descriptors that a payload without a terminal reads and writes.

Pipes and regular files of our own are handed over as they are. A terminal never is: whoever holds it could
type into it (TIOCSTI) and read what is typed at the shell. A thread copies between it and a pipe instead.
"""

from __future__ import annotations

import contextlib
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Thread

JOIN_SECONDS = 2.0
"""How long after the payload's end a background process of it may hold up the last of the output."""


class Streams:
    """`passed` are the descriptors to send: stdin, stdout, stderr."""

    def __init__(self, *, interactive: bool, own: tuple[int, int, int] = (0, 1, 2)) -> None:
        self.passed: list[int] = []
        self._ours: list[int] = []  # of `passed`, those that we opened
        self._copies: list[Thread] = []
        self._input(own[0], interactive)
        for number in own[1:]:
            self._output(number)

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *_: object) -> None:
        self.handed_over()
        for thread in self._copies:
            thread.join(JOIN_SECONDS)

    def handed_over(self) -> None:
        """Close our copies, so that the last writer's end is the end."""
        for fd in self._ours:
            os.close(fd)
        self._ours.clear()

    def _input(self, own: int, interactive: bool) -> None:
        if not interactive:
            self._give(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        elif may_pass(own):
            self.passed.append(own)
        else:
            reader, writer = os.pipe()
            self._give(reader)
            _beside(lambda: copy(own, writer, close_target=True))

    def _output(self, own: int) -> None:
        if may_pass(own):
            self.passed.append(own)
            return
        reader, writer = os.pipe()
        self._give(writer)
        self._copies.append(_beside(lambda: copy(reader, own)))

    def _give(self, fd: int) -> None:
        self.passed.append(fd)
        self._ours.append(fd)


def _beside(work: Callable[[], None]) -> Thread:
    from threading import Thread  # not where everything can be passed as it is

    thread = Thread(target=work, daemon=True)
    thread.start()
    return thread


def may_pass(fd: int) -> bool:
    """A pipe or a regular file. Not a terminal, not a device, not a socket: a payload can't open /dev/stdout
    on one."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:  # closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def copy(source: int, target: int, *, close_target: bool = False) -> None:
    """Until either end is gone."""
    with contextlib.suppress(OSError):
        while data := os.read(source, 1 << 16):
            while data:
                data = data[os.write(target, data) :]
    if close_target:
        with contextlib.suppress(OSError):
            os.close(target)
