"""Reading a file that somebody else may write: under a read lease, so that what is read was there at once.

While a lease (fcntl(2), F_SETLEASE) is held, who opens the file for writing or truncates it waits for us, up
to /proc/sys/fs/lease-break-time seconds. Comparing fstat before and after, the usual way, misses torn reads:
a write moves the times first, and a store through a shared map need not move them at all.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import signal

from volt_common.errors import Denied


class Hold(enum.Enum):
    """What keeps a file steady while it is read."""

    LEASE = "a read lease"
    WRITER = "nothing: somebody has it open for writing, so it must read the same twice"
    NOTHING = "nothing: no lease is to be had here, so its times and size must stay"


def require_readable(fd: int) -> None:
    """Raises Denied unless `fd` was opened for reading: O_PATH or O_WRONLY prove no right to the contents."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_PATH or flags & os.O_ACCMODE == os.O_WRONLY:
        raise Denied("a descriptor that is not open for reading proves no right to read")


def take(fd: int) -> Hold:
    """Try for a read lease; `drop` it afterwards."""
    try:
        # A broken lease is announced by a signal, SIGIO unless told, which kills. SIGURG is ignored.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Hold.WRITER if error.errno == errno.EAGAIN else Hold.NOTHING
    return Hold.LEASE


def kept(fd: int, hold: Hold, before: os.stat_result) -> bool:
    """Whether nothing was written since `take`. Of Hold.WRITER it knows only what fstat says."""
    if hold is Hold.LEASE:
        return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK
    after = os.fstat(fd)
    return (
        after.st_size == before.st_size
        and after.st_mtime_ns == before.st_mtime_ns
        and after.st_ctime_ns == before.st_ctime_ns
    )


def drop(fd: int, hold: Hold) -> None:
    """Let writers in."""
    if hold is Hold.LEASE:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
