"""volt-exec@NAME-ID: one command in a running container, confined as the payload is.

The parent stays outside: it tells volt-ctrd how the command goes, and kills it when volt-ctrd closes the connection.
The child goes in by the order of `_enter`; what it needs of Python is loaded before, since afterwards every path is
the container's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
from collections.abc import Callable

from volt_ctr_launch import cgroup, checks, confinement, console, inside, streams
from volt_ctr_launch.confinement import Confinement
from volt_ctr_launch.errors import Refusal, invalid
from volt_ctr_launch.fields import Fields
from volt_ctr_launch.handover import Handover, check_packet_socket, check_stream
from volt_ctr_launch.inside import Request
from volt_ctr_launch.kernel import CLONE_NEWPID, setns
from volt_ctr_launch.paths import Layout
from volt_ctr_launch.record import Record

_ARGUMENT = 131071
_DRAIN_MS = 2000


class _Plumbing(Record):
    """What the child gets as 0, 1, 2 (none with a terminal), and the processes that copy the rest of the way."""

    standard: list[int]
    own: list[int]
    copiers: list[int]


def run(layout: Layout, name: str, id: str) -> int:
    """Run it to its end. The exit status is the command's."""
    handover = Handover(layout.handover, "exec", name, id)
    try:
        request = parse(handover.answer)
        found = confinement.load(f"{layout.launch(name)}/confinement.json")
        return _run(handover, request, found, id)
    except Refusal as refusal:
        handover.report(error=refusal.code, message=refusal.message, exit=refusal.exit_code)
        raise
    except OSError as error:
        handover.report(error="GENERAL", message=str(error), exit=126)
        raise


def parse(answer: dict[str, object]) -> Request:
    """What is to be run, from a daemon that may be anybody. Raises Refusal."""
    fields = Fields(answer, "the request")
    request = Request(
        fields.texts("args", count=4096, limit=_ARGUMENT),
        fields.mapping("env", checks.variable, 1024, _ARGUMENT),
        fields.text("user", checks.user, 128),
        fields.text("workdir", checks.absolute_or_empty, 4095),
        fields.flag("tty"),
    )
    fields.done()
    if not request.args or not request.args[0]:
        raise invalid("the request names no command")
    return request


def _run(handover: Handover, request: Request, found: Confinement, id: str) -> int:
    if len(handover.descriptors) != (1 if request.tty else 3):
        raise invalid(f"{len(handover.descriptors)} descriptors were handed over")
    leader = confinement.open_leader(found)
    leaf = f"{found.cgroup}/payload/exec-{id}"
    os.mkdir(leaf)
    kills = cgroup.oom_kills(found.cgroup)
    try:
        plumbing = _Plumbing([], [], []) if request.tty else _plumb(handover.descriptors)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = _fork_into(leader, lambda: inside.enter(found, leader, leaf, request, theirs, plumbing.standard))
        theirs.close()
        try:
            terminal = inside.await_start(ours, plumbing.own, found.id_base)
        except BaseException:
            os.waitpid(pid, 0)
            raise
        for descriptor in plumbing.standard:
            os.close(descriptor)
        broker = _broker(terminal, handover) if terminal is not None else None
        handover.report(started=pid)
        status = _follow(handover, pid, leaf)
        _drain(plumbing, broker)
        killed = cgroup.oom_kills(found.cgroup) > kills
        return _report(handover, status, killed)
    finally:
        with contextlib.suppress(OSError):  # what it started in the background stays, and keeps the group
            os.rmdir(leaf)


def _fork_into(leader: int, child: Callable[[], None]) -> int:
    """Fork into the container's process ids; later forks are the host's again."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    setns(leader, CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(125)
    setns(own, CLONE_NEWPID)
    os.close(own)
    return pid


def _plumb(given: list[int]) -> _Plumbing:
    """The caller's own pipes and files are the command's. What it must not have (a terminal, to type into it), or
    can't be given to another user (a fifo with a name), is copied from and to a pipe of ours."""
    standard: list[int] = []
    own: list[int] = []
    copiers: list[int] = []
    for number, descriptor in enumerate(given):
        check_stream(descriptor, writes=number > 0)
        if streams.is_anonymous_pipe(descriptor):
            own.append(descriptor)
        elif not _harmless(descriptor):
            reader, writer = os.pipe()
            source, sink, mine = (reader, descriptor, writer) if number else (descriptor, writer, reader)
            copiers.append(_copier(source, sink, patient=number > 0))
            os.close(sink if number == 0 else source)
            os.close(descriptor)
            own.append(mine)
            descriptor = mine
        standard.append(descriptor)
    return _Plumbing(standard, own, copiers)


def _harmless(descriptor: int) -> bool:
    found = os.fstat(descriptor)
    return stat.S_ISREG(found.st_mode) or (stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3))


def _copier(source: int, sink: int, *, patient: bool) -> int:
    pid = os.fork()
    if pid:
        return pid if patient else -pid
    try:
        streams.close_others([2, source, sink])
        streams.copier(source, [sink])()
    finally:
        os._exit(0)


def _broker(terminal: int, handover: Handover) -> tuple[int, int]:
    """The process between the terminal and the caller's packets, and the pipe whose end tells it to finish."""
    watcher = check_packet_socket(handover.descriptors[0])
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            streams.close_others([2, terminal, watcher.fileno(), reader])
            console.serve(terminal, -1, None, [watcher], reader)
        finally:
            os._exit(0)
    os.close(terminal)
    os.close(reader)
    watcher.close()
    return pid, writer


def _follow(handover: Handover, pid: int, leaf: str) -> int:
    """Wait for the command; kill it when volt-ctrd or systemd says so. Returns the status of wait(2)."""

    def stop(_signal: int, _frame: object) -> None:
        cgroup.kill(leaf)

    signal.signal(signal.SIGTERM, stop)
    child = os.pidfd_open(pid)
    watch = select.poll()
    watch.register(child, select.POLLIN)
    watch.register(handover.socket, select.POLLIN)
    while True:
        events = dict(watch.poll())
        if child in events:
            os.close(child)
            return os.waitpid(pid, 0)[1]
        handover.socket.setblocking(False)
        try:
            said = handover.socket.recv(4096)
        except BlockingIOError:
            continue
        except OSError:
            said = b""
        if not said:
            watch.unregister(handover.socket)
            cgroup.kill(leaf)


def _drain(plumbing: _Plumbing, broker: tuple[int, int] | None) -> None:
    """Let the copiers finish what the command wrote, unless something else keeps its streams open."""
    waiting = [pid for pid in plumbing.copiers if pid > 0]
    if broker:
        os.close(broker[1])
        waiting.append(broker[0])
    for pid in waiting:
        descriptor = os.pidfd_open(pid)
        watch = select.poll()
        watch.register(descriptor, select.POLLIN)
        watch.poll(_DRAIN_MS)
        os.close(descriptor)
    for pid in map(abs, plumbing.copiers):
        os.kill(pid, signal.SIGKILL)


def _report(handover: Handover, status: int, oom: bool) -> int:
    if os.WIFEXITED(status):
        code = os.WEXITSTATUS(status)
        handover.report(exit=code, signal=0, reason="exit")
        return code
    number = os.WTERMSIG(status)
    reason = "oom" if oom and number == signal.SIGKILL else "signal"
    handover.report(exit=128 + number, signal=number, reason=reason)
    return 128 + number
