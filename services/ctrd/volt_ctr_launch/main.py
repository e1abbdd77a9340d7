"""`volt-ctr-launch start|stop|ended|op|exec ARGUMENT`: which launcher, and one line on stderr for what fails."""

from __future__ import annotations

import os
import sys

from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.paths import Layout, instance_of, name_of


def main(argv: list[str]) -> int:
    """The exit status of the launcher; `start` returns only when it failed."""
    os.umask(0o022)
    try:
        verb, argument = argv[1:]
    except ValueError:
        sys.stderr.write("usage: volt-ctr-launch start|stop|ended|op|exec ARGUMENT\n")
        return 2
    if os.geteuid() != 0:
        sys.stderr.write("volt-ctr-launch is run by systemd, as root\n")
        return 4
    try:
        return _run(Layout(), verb, argument)
    except Refusal as refusal:
        sys.stderr.write(f"{argument}: {refusal.message}\n")
        return refusal.exit_code
    except OSError as error:
        sys.stderr.write(f"{argument}: {error}\n")
        return 125


def _run(layout: Layout, verb: str, argument: str) -> int:
    # Each launcher imports only its own: a start should not read the code of exec.
    if verb == "start":
        from volt_ctr_launch import start

        start.run(layout, name_of(argument))
    elif verb == "stop":
        from volt_ctr_launch import stop

        stop.run(layout, name_of(argument))
    elif verb == "ended":
        from volt_ctr_launch import ended

        ended.run(layout, name_of(argument), dict(os.environ))
    elif verb == "op":
        from volt_ctr_launch import op

        op.run(layout, *instance_of(argument))
    elif verb == "exec":
        from volt_ctr_launch import execute

        return execute.run(layout, *instance_of(argument))
    else:
        sys.stderr.write(f"no launcher is called {verb}\n")
        return 2
    return 0
