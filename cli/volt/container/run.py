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


def run(asked: Asked, settings: Settings) -> int:
    detached = asked.flag("--detach")
    if detached and asked.flag("--interactive") and not asked.flag("--tty"):
        raise usage("-d leaves no standard input to keep open for -i", "`volt exec -i` gives a running one its input.")
    call = checked(ctr.Create(name=asked.text("--name"), spec=spec_of(asked)))
    if settings.dry_run:
        one(settings, asked_row(call))
        return 0
    with client(settings, "ctrd") as daemon:
        container = daemon.call(call)
        name = container.name
        try:
            if detached:
                container = daemon.call(ctr.Start(name=name))
                done(settings, row(container), name)
                return 0
            return _joined(asked, settings, name, daemon)
        except _NotStarted as error:
            _undo(daemon, name)
            raise error.cause from None
        except (VoltError, KeyboardInterrupt):
            if detached:
                _undo(daemon, name)
            raise


class _NotStarted(Exception):
    """The container never ran, so nothing of it is to stay."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


def _joined(asked: Asked, settings: Settings, name: str, daemon: Client) -> int:
    """Run it with our streams; returns its exit code."""
    with forwarding(settings, name) as signals:
        if asked.flag("--tty"):
            with Terminal() as terminal:
                _start(settings, name, [terminal.far], signals)
                if not terminal.pump():
                    return 0  # detached: it goes on without us
            return exit_code(settings, name, daemon)
        with Streams(interactive=asked.flag("--interactive")) as streams:
            _start(settings, name, streams.passed, signals)
            streams.handed_over()
            return exit_code(settings, name, daemon)


def _start(settings: Settings, name: str, fds: list[int], signals: Signals) -> None:
    """Raises _NotStarted."""
    try:
        with packets(settings, "ctrd") as daemon:
            daemon.call(ctr.Run(name=name), fds)
        signals.forward = True
    except (VoltError, KeyboardInterrupt) as error:
        raise _NotStarted(error) from None


def _undo(daemon: Client, name: str) -> None:
    """Nothing stays behind of a container that could not be run."""
    with contextlib.suppress(VoltError):
        daemon.call(ctr.Delete(name=name, force=True))


def exit_code(settings: Settings, name: str, daemon: Client) -> int:
    """Wait for the end of the run, however long that takes: --timeout is for daemons, not for payloads. Over the
    connection that is there, unless that one has a time limit."""
    with contextlib.nullcontext(daemon) if settings.timeout is None else Client("ctrd", run=settings.host) as patient:
        exit = patient.call(ctr.Wait(name=name))
    if exit.reason in ("oom", "start-failure", "lost") and not settings.quiet:
        from volt.failure import say

        why = {"oom": "it was killed for want of memory", "lost": "how it ended is not known"}
        text = exit.message or why.get(exit.reason, "it could not be started")
        hint = "--memory gives it more." if exit.reason == "oom" else f"`volt logs {name}` may say more."
        say(VoltError(f"{name}: {text}", hint=hint), settings)
    return exit.code


class Signals:
    """What is done with signals that ask this command to end: while `forward` is false they do end it."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.forward = False
        self._settings = settings
        self._name = name
        self._interrupts = 0

    def arrived(self, number: int, _: FrameType | None) -> None:
        """The handler."""
        if not self.forward:
            raise KeyboardInterrupt(signal.Signals(number).name)
        self._interrupts += number == signal.SIGINT
        wanted = "SIGKILL" if self._interrupts >= 3 else signal.Signals(number).name
        with contextlib.suppress(VoltError), Client("ctrd", run=self._settings.host, timeout=10) as daemon:
            daemon.call(ctr.Kill(name=self._name, signal=wanted))


@contextlib.contextmanager
def forwarding(settings: Settings, name: str) -> Iterator[Signals]:
    """Pass the signals that ask this command to end on to the payload, which decides. The third Ctrl-C
    kills it."""
    signals = Signals(settings, name)
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
