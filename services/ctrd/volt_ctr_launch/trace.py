"""A process looked at between the set-up that nspawn gave it and the payload's first instruction, with ptrace(2)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
from collections.abc import Callable, Iterator

from volt_ctr_launch.kernel import ptrace

_CONT, _DETACH, _SEIZE, _INTERRUPT, _GET_FILTER = 7, 17, 0x4206, 0x4207, 0x420C
_O_TRACEEXEC, _EVENT_EXEC = 0x10, 4
_WALL = 0x40000000  # the tracee is nobody's child that wait(2) would find otherwise


@contextlib.contextmanager
def stopped_at_payload(pid: int, setup: str, held: Callable[[], None]) -> Iterator[None]:
    """Holds a process that is done with the program `setup` (a path) and has executed the next: at that very exec if
    it is yet to come. nspawn names its leader before it has confined it (systemd 257), or just after (252).

    `held` is called as soon as the process can't end unseen. Raises ProcessLookupError, without having called it, for
    one that was over before.
    """
    _seize(pid)
    try:
        # From here on an exec stops it, so one look tells whether it has happened.
        if _same_file(f"/proc/{pid}/exe", setup):
            held()
            _wait(pid, _EVENT_EXEC)
        else:
            ptrace(_INTERRUPT, pid)
            _wait(pid, None)
            held()
        yield
    finally:
        with contextlib.suppress(OSError):
            ptrace(_DETACH, pid)


def _seize(pid: int) -> None:
    try:
        ptrace(_SEIZE, pid, 0, _O_TRACEEXEC)
    except PermissionError:
        with open(f"/proc/{pid}/stat", "rb") as file:
            if file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X"):
                raise
        raise ProcessLookupError(errno.ESRCH, "it has ended") from None


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samestat(os.stat(one), os.stat(other))
    except FileNotFoundError:  # it is ending: its memory has gone
        raise ProcessLookupError(errno.ESRCH, "it has ended") from None


def _wait(pid: int, event: int | None) -> None:
    """Wait for a stop: at an event, or any. Signals that arrive meanwhile are passed on."""
    while True:
        status = os.waitpid(pid, _WALL)[1]
        if not os.WIFSTOPPED(status):
            raise ProcessLookupError(errno.ESRCH, "it ended before its payload began")
        happened = status >> 16
        if event is None or happened == event:
            return
        number = os.WSTOPSIG(status)
        ptrace(_CONT, pid, 0, 0 if happened or number == signal.SIGTRAP else number)


def filters(pid: int) -> list[bytes]:
    """The seccomp filters of a stopped process, oldest first: instructions of 8 bytes each.

    Needs CAP_SYS_ADMIN and a kernel with CONFIG_CHECKPOINT_RESTORE (every Debian kernel has it).
    """
    found: list[bytes] = []
    while True:
        try:
            count = ptrace(_GET_FILTER, pid, len(found))
        except OSError as error:
            # ENOENT: no filter of that number; EINVAL: none at all
            if error.errno == errno.ENOENT or (error.errno == errno.EINVAL and not found):
                return found
            raise
        buffer = ctypes.create_string_buffer(count * 8)
        ptrace(_GET_FILTER, pid, len(found), ctypes.addressof(buffer))
        found.append(buffer.raw)
