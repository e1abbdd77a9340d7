"""A container's standard streams: pipes of its own, and small processes that copy them.

A payload may open /dev/stdout, which the kernel refuses on a socket to the journal and on a pipe of another owner: so
it gets pipes that belong to it. What it writes goes to the journal, and to the caller of a foreground run as well.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import stat
import struct
import termios
from collections.abc import Callable, Sequence

from volt_ctr_launch import cgroup, console
from volt_ctr_launch.config import Config
from volt_ctr_launch.paths import Layout
from volt_ctr_launch.record import Record

_CHUNK = 65536
_CAT = "/usr/bin/cat"


class Streams(Record):
    """What the payload gets as 0, 1 and 2; `own` are those whose inode is to belong to it."""

    stdin: int
    stdout: int
    stderr: int
    own: tuple[int, ...]


def prepare(layout: Layout, config: Config, unit: str, owner: int) -> Streams:
    """The streams of a run that nobody watches: start what copies them to the journal, in `relay` of the unit's cgroup.
    `owner` is volt-ctr, who may attach."""
    return _terminal(layout, config, unit, owner) if config.tty else _pipes(unit)


def _pipes(unit: str) -> Streams:
    own = []
    for number in (1, 2):
        reader, writer = os.pipe()
        own.append(writer)
        fork(unit, [reader, number], _cat(reader, number))
        os.close(reader)
    return Streams(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), own[0], own[1], tuple(own))


def _terminal(layout: Layout, config: Config, unit: str, owner: int) -> Streams:
    """A pseudo-terminal for nspawn, which makes the container's own; a broker has the other end."""
    listener = console.listen(f"{layout.launch(config.name)}/console", owner)
    main, slave = open_terminal()
    nspawn = os.pidfd_open(os.getpid())
    fork(unit, [main, 1, listener.fileno(), nspawn], lambda: console.serve(main, 1, listener, [], user=nspawn))
    os.close(main)
    os.close(nspawn)
    listener.close()
    return Streams(slave, slave, slave, ())


def open_terminal() -> tuple[int, int]:
    """Both ends of a pseudo-terminal of the usual size. It is not to become nspawn's controlling one: the end of a
    session takes with it what nobody has read yet."""
    main, slave = os.openpty()
    fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    return main, slave


def fork(unit: str, keep: Sequence[int], work: Callable[[], object]) -> None:
    """Run `work` in a child in the unit's `relay` that has only the descriptors `keep`. It ignores SIGTERM: what the
    container wrote last is still on its way when systemd ends the unit; it ends by itself. It is a grandchild, which
    systemd reaps: nspawn expects no children but its own."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if unit:
            cgroup.enter(f"{unit}/relay")
        close_others([2, *keep])
        work()
    except OSError as error:
        os.write(2, f"copying a container's streams: {error}\n".encode())
    finally:
        os._exit(0)


def close_others(keep: Sequence[int]) -> None:
    """Close every descriptor that is not in `keep`."""
    start = 0
    for descriptor in sorted(set(keep)):
        if start < descriptor:  # an empty range that begins at 0 closes everything (CPython 3.11)
            os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, max(map(int, os.listdir("/proc/self/fd"))) + 1)


def _cat(reader: int, writer: int) -> Callable[[], None]:
    """A container that runs for months has a copier of half a megabyte, not one of Python."""

    def run() -> None:
        os.dup2(reader, 0)
        os.dup2(writer, 1)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execv(_CAT, ["cat"])

    return run


def copier(source: int, sinks: list[int], gone: int = -1) -> Callable[[], None]:
    """Copies until the source ends or the first sink has gone. The others may go: a caller that hangs up does not
    stop what the journal gets. `gone` is the pidfd of the process with which all end that write: after it what is there
    is copied, and no end of the source waited for, which somebody outside may have been given."""

    def run() -> None:
        left = list(sinks)
        watch = select.poll()
        watch.register(source, select.POLLIN)
        watch.register(sinks[0], 0)  # POLLERR: nobody reads it any more
        if gone >= 0:
            watch.register(gone, select.POLLIN)
        while True:
            events = dict(watch.poll())
            if sinks[0] in events or source not in events:
                return
            try:
                data = os.read(source, _CHUNK)
            except BlockingIOError:
                continue
            except OSError:  # EIO: a terminal that hung up
                return
            if not data:
                return
            for sink in list(left):
                if not _write_all(sink, data):
                    left.remove(sink)
            if sinks[0] not in left:
                return

    return run


def _write_all(sink: int, data: bytes) -> bool:
    """False if nobody reads it. Waits where the caller's descriptor does not block."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(sink, rest) :]
        except BlockingIOError:
            ready = select.poll()
            ready.register(sink, select.POLLOUT)
            ready.poll()
        except OSError:
            return False
    return True


def is_anonymous_pipe(descriptor: int) -> bool:
    """Whether it is a pipe of pipe(2): one that has a name may not change its owner."""
    reader, writer = os.pipe()
    own = os.fstat(reader).st_dev
    os.close(reader)
    os.close(writer)
    found = os.fstat(descriptor)
    return stat.S_ISFIFO(found.st_mode) and found.st_dev == own


def become_standard(streams: Streams) -> None:
    """Put the streams at 0, 1 and 2 of this process."""
    for target, source in enumerate((streams.stdin, streams.stdout, streams.stderr)):
        os.dup2(source, target)
    for descriptor in {streams.stdin, streams.stdout, streams.stderr} - {0, 1, 2}:
        os.close(descriptor)


def give(streams: Streams, uid: int, gid: int) -> None:
    """Make the payload's user the owner of its pipes."""
    for descriptor in streams.own:
        os.fchown(descriptor, uid, gid)
