"""`volt exec`: a further command in a running container, confined like its payload."""

from __future__ import annotations

from volt.container.spec import environment
from volt.container.streams import Streams
from volt.container.terminal import Terminal
from volt.daemon import checked, packets, would
from volt.options import Argument, Asked, Option, Verb
from volt.settings import Settings
from volt_common.api import ctr
from volt_common.wire import Kind


def run(asked: Asked, settings: Settings) -> int:
    call = checked(
        ctr.Exec(
            name=asked.one("NAME"),
            args=[asked.one("COMMAND"), *asked.texts("ARGUMENT")],
            env=environment(asked),
            user=asked.text("--user") or "",
            workdir=asked.text("--workdir") or "",
            tty=asked.flag("--tty"),
        )
    )
    if settings.dry_run:
        would(f"run {' '.join(call.args)} in {call.name}")
        return 0
    return execute(settings, call, interactive=asked.flag("--interactive"))


def execute(settings: Settings, call: ctr.Exec, *, interactive: bool) -> int:
    """Run it with our streams; returns its exit code. It ends when we go."""
    settings.timeout = None  # --timeout is for daemons, not for payloads
    if not call.tty:
        with Streams(interactive=interactive) as streams, packets(settings, "ctrd") as daemon:
            exit, _ = daemon.call(call, streams.passed)
            return exit.code
    with Terminal() as terminal, packets(settings, "ctrd") as daemon:
        id = daemon.begin(call, [terminal.far])
        kind, value, _ = daemon.next(id, call, item_type=ctr.Running)
        if kind is not Kind.DONE and not terminal.pump(also=daemon.fileno()):
            return 0
        while kind is not Kind.DONE:
            kind, value, _ = daemon.next(id, call)
        code: int = value.code
        return code


VERB = Verb(
    "Run a command in a running container.",
    run,
    examples=("volt exec web ls -l /srv", "volt exec -it web bash", "echo hello | volt exec -i web tee /tmp/x"),
    arguments=(
        Argument("NAME", "of the container", complete="containers"),
        Argument("COMMAND", "to run"),
        Argument("ARGUMENT", "of the command", rest=True),
    ),
    options=(
        Option("-i", "--interactive", help="give it our standard input"),
        Option("-t", "--tty", help="give it a terminal"),
        Option("-e", "--env", metavar="KEY=VALUE", repeat=True, help="a variable; KEY alone takes yours"),
        Option("--env-file", metavar="FILE", repeat=True, complete="files", help="variables, one KEY=VALUE a line"),
        Option("-u", "--user", metavar="USER[:GROUP]", help="who it runs as"),
        Option("-w", "--workdir", metavar="PATH", help="where it starts"),
    ),
    changes=True,
    detail="The exit code is the command's own: 128+n for a signal.",
)
