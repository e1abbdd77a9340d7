"""The main process of a run that somebody watches: it has the caller's streams, and nspawn as a child.

When nspawn ends it knows how, at once: it writes that down, tells volt-ctrd over the connection that brought the
streams, and removes what only root can of a container that is not to stay; systemd tidies the unit up meanwhile. A run
that nobody watches has no such process to pay for: there nspawn is the unit's own, and `ended` is started at its end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from volt_ctr_launch import cgroup, console, streams
from volt_ctr_launch.config import Config
from volt_ctr_launch.errors import Refusal, invalid
from volt_ctr_launch.handover import Handover, check_packet_socket, check_stream
from volt_ctr_launch.paths import Layout
from volt_ctr_launch.record import Record
from volt_ctr_launch.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_ANSWER_SECONDS = 10.0
_DRAIN_SECONDS = 2.0  # for the last output, before the end is told


class _Pipes(Record):
    """The ends that stay here: what the payload reads from us, what it writes to us; the caller's own."""

    stdin: int
    stdout: int
    stderr: int
    given: list[int]


def attend(layout: Layout, config: Config, unit: str, owner: int, handover: Handover | None) -> Streams:
    """Fork. The child returns, with the payload's streams, and becomes nspawn; this process never does, and exits as
    nspawn did. `handover` is what brought the caller's streams, if they are here already. Raises Refusal."""
    handover = handover or Handover(layout.handover, "run", config.name, config.id)
    given = handover.descriptors
    if len(given) != (1 if config.tty else 3):
        raise invalid(f"{len(given)} descriptors were handed over")
    # Outside the container's limits, and before there are limits: what is copied is not the container's memory.
    cgroup.enter(f"{unit}/relay")
    if config.tty:
        return _attend_terminal(layout, config, unit, owner, handover)
    for number, descriptor in enumerate(given):
        check_stream(descriptor, writes=number > 0)
    (stdin, feeder), (out, out_writer), (err, err_writer) = os.pipe(), os.pipe(), os.pipe()
    if pid := os.fork():
        ours = _Pipes(feeder, out, err, given)
        _stay(layout, config, unit, handover, pid, [feeder, out, err, *given], lambda gone: _copy(ours, gone))
    handover.socket.close()
    for descriptor in (feeder, out, err, *given):
        os.close(descriptor)
    return Streams(stdin, out_writer, err_writer, (out_writer, err_writer, stdin))


def _attend_terminal(layout: Layout, config: Config, unit: str, owner: int, handover: Handover) -> Streams:
    watcher = check_packet_socket(handover.descriptors[0])
    listener = console.listen(f"{layout.launch(config.name)}/console", owner)
    main, slave = streams.open_terminal()

    def serve(gone: int) -> None:
        console.serve(main, 1, listener, [watcher], user=gone)

    if pid := os.fork():
        _stay(layout, config, unit, handover, pid, [main, watcher.fileno(), listener.fileno()], serve)
    for sock in (handover.socket, watcher, listener):
        sock.close()
    os.close(main)
    return Streams(slave, slave, slave, ())


def _stay(
    layout: Layout,
    config: Config,
    unit: str,
    handover: Handover,
    nspawn: int,
    keep: list[int],
    copy: Callable[[int], None],
) -> NoReturn:
    """Copy till nspawn has ended, whose pidfd `copy` gets, then bring the run to its end. A reader that does not read
    holds only its own output back."""
    code = 125
    try:
        from threading import Thread  # after the fork: nspawn need not wait for it

        # systemd asks this too to end, once the payload was; what that wrote last is still on its way.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        streams.close_others([0, 1, 2, handover.socket.fileno(), *keep])
        copying = Thread(target=copy, args=(os.pidfd_open(nspawn),), daemon=True)
        copying.start()
        status = os.waitstatus_to_exitcode(os.waitpid(nspawn, 0)[1])
        code = status if status >= 0 else 128 - status
        copying.join(_DRAIN_SECONDS)
        _end(layout, config, unit, handover, status)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        copying.join()
    except (OSError, Refusal) as error:
        os.write(2, f"{config.name}: {error}\n".encode())
    finally:
        os._exit(code)


def _copy(pipes: _Pipes, gone: int) -> None:
    """Returns when all that the payload wrote has arrived."""
    from threading import Thread

    feeding = Thread(target=_feed, args=(pipes,), daemon=True)
    writing = [
        Thread(target=_collect, args=(pipes.stdout, [1, pipes.given[1]], gone), daemon=True),
        Thread(target=_collect, args=(pipes.stderr, [2, pipes.given[2]], gone), daemon=True),
    ]
    for thread in (feeding, *writing):
        thread.start()
    for thread in writing:
        thread.join()


def _collect(source: int, sinks: list[int], gone: int) -> None:
    streams.copier(source, sinks, gone)()
    os.close(source)  # who still writes learns that nobody reads


def _feed(pipes: _Pipes) -> None:
    streams.copier(pipes.given[0], [pipes.stdin])()
    os.close(pipes.stdin)  # the payload meets the end of its input


def _end(layout: Layout, config: Config, unit: str, handover: Handover, status: int) -> None:
    """Write down how it ended, and tell. A container that is not to stay is removed if volt-ctrd says so, which then
    forgets it too; where it does not, or has gone, it will have that done."""
    from volt_ctr_launch import ended, op  # after the fork, too

    killed = status < 0
    result = {"EXIT_CODE": "killed" if killed else "exited", "EXIT_STATUS": str(abs(status))}
    box = f"{unit}/box"
    state = ended.finish(layout, config.name, result, box, durable=not config.remove)
    end = state["exit"]
    assert isinstance(end, dict)
    told = {key: end[key] for key in ("signal", "reason", "message")}
    handover.report(**told, exit=end["code"], at=state["ended_at"])
    # While a start fails, ctrd waits for this process to end.
    if (
        config.remove
        and end["reason"] != "start-failure"
        and handover.answer_within(_ANSWER_SECONDS) == {"remove": True}
    ):
        op.delete(layout, config.name, over=True)
        handover.report(removed=True)
