"""`volt run`: make a container and start it, joined to this terminal or left alone."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from volt.container.create import asked_row
from volt.container.rows import row
from volt.container.spec import ARGUMENTS, OPTIONS, spec_of
from volt.container.streams import Streams
from volt.container.terminal import Terminal
from volt.daemon import checked, client, packets
from volt.options import Asked, Option, Verb, usage
from volt.output import done, one
from volt.settings import Settings
from volt_common.api import ctr
from volt_common.client.blocking import Client
from volt_common.errors import VoltError
from volt_common.wire import MAX_PACKET, encode


def run(asked: Asked, settings: Settings) -> int:
    detached = asked.flag("--detach")
    if detached and asked.flag("--interactive") and not asked.flag("--tty"):
        raise usage("-d leaves no standard input to keep open for -i", "`volt exec -i` gives a running one its input.")
    call = checked(ctr.Create(name=asked.text("--name"), spec=spec_of(asked)))
    if settings.dry_run:
        one(settings, asked_row(call))
        return 0
    return _detached(call, settings) if detached else _joined(call, asked, settings)


def _detached(call: ctr.Create, settings: Settings) -> int:
    with client(settings, "ctrd") as daemon:
        name = daemon.call(call).name
        try:
            done(settings, row(daemon.call(ctr.Start(name=name))), name)
        except (VoltError, KeyboardInterrupt):
            _undo(daemon, name)
            raise
    return 0


def _joined(call: ctr.Create, asked: Asked, settings: Settings) -> int:
    """Run it with our streams; returns its exit code."""
    with forwarding(settings) as signals:
        if asked.flag("--tty"):
            with Terminal() as terminal:
                name = _start(settings, call, [terminal.far], signals)
                if not terminal.pump():
                    return 0  # detached: it goes on without us
                return exit_code(settings, name)
        with Streams(interactive=asked.flag("--interactive")) as streams:
            name = _start(settings, call, streams.passed, signals)
            streams.handed_over()
            return exit_code(settings, name)


def _start(settings: Settings, call: ctr.Create, fds: list[int], signals: Signals) -> str:
    """The name of what runs. Nothing stays of what could not be started."""
    run = ctr.RunNew(name=call.name, spec=call.spec)
    if len(encode(run)) <= MAX_PACKET - 1024:
        with packets(settings, "ctrd") as daemon:
            running, _ = daemon.call(run, fds)
        signals.name = running.name
        return running.name
    with client(settings, "ctrd") as calls:
        name = calls.call(call).name
        try:
            with packets(settings, "ctrd") as daemon:
                daemon.call(ctr.Run(name=name), fds)
        except (VoltError, KeyboardInterrupt):
            _undo(calls, name)
            raise
    signals.name = name
    return name


def _undo(daemon: Client, name: str) -> None:
    """Nothing stays behind of a container that could not be run."""
    with contextlib.suppress(VoltError):
        daemon.call(ctr.Delete(name=name, force=True))


def exit_code(settings: Settings, name: str) -> int:
    """Wait for the end of the run, however long that takes: --timeout is for daemons, not for payloads."""
    with Client("ctrd", run=settings.host) as daemon:
        exit = daemon.call(ctr.Wait(name=name))
    if exit.reason in ("oom", "start-failure", "lost") and not settings.quiet:
        from volt.failure import say

        why = {"oom": "it was killed for want of memory", "lost": "how it ended is not known"}
        text = exit.message or why.get(exit.reason, "it could not be started")
        hint = "--memory gives it more." if exit.reason == "oom" else f"`volt logs {name}` may say more."
        say(VoltError(f"{name}: {text}", hint=hint), settings)
    return exit.code


class Signals:
    """What is done with signals that ask this command to end: till there is a container, they do end it."""

    def __init__(self, settings: Settings) -> None:
        self.name = ""
        self._settings = settings
        self._interrupts = 0

    def arrived(self, number: int, _: FrameType | None) -> None:
        """The handler."""
        if not self.name:
            raise KeyboardInterrupt(signal.Signals(number).name)
        self._interrupts += number == signal.SIGINT
        wanted = "SIGKILL" if self._interrupts >= 3 else signal.Signals(number).name
        with contextlib.suppress(VoltError), Client("ctrd", run=self._settings.host, timeout=10) as daemon:
            daemon.call(ctr.Kill(name=self.name, signal=wanted))


@contextlib.contextmanager
def forwarding(settings: Settings) -> Iterator[Signals]:
    """Pass the signals that ask this command to end on to the payload, which decides. The third Ctrl-C
    kills it."""
    signals = Signals(settings)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.signal(number, signals.arrived) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


VERB = Verb(
    "Make a container and run it.",
    run,
    examples=(
        "volt run --rm debian cat /etc/os-release",
        "volt run -it --rm debian bash",
        "volt run -d --name web -v ./site:/srv:ro -m 512M debian python3 -m http.server -d /srv",
    ),
    options=(
        Option("-d", "--detach", help="leave it running and print its name"),
        Option("--rm", help="delete it when it has ended"),
        *OPTIONS,
    ),
    arguments=ARGUMENTS,
    changes=True,
    detail=(
        "Without -d it is joined to this terminal, and its exit code becomes the command's: 128+n\n"
        "for a signal. Ctrl-P Ctrl-Q leaves a container with -t running."
    ),
)
