"""Named places where a test makes a process die or fail: `VOLT_FAILPOINT=build.after-sync=kill`.

The variable holds `name[:count]=action`, several separated by commas. The action happens at the count-th time the
process comes by (default: the first), and an `error` at each time after it too. Actions:

    kill    SIGKILL to itself: what a crash leaves
    exit    exit at once with status 86, without cleaning up
    error   OSError(EIO): what a failing disk gives

Without the variable a point costs one look into an empty dict. It is read when the module is imported, from an
environment that systemd or root made, never from a caller.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import Final

STATUS: Final = 86
_ACTIONS: Final = ("kill", "exit", "error")


class _Armed:
    def __init__(self, action: str, count: int) -> None:
        self.action = action
        self.left = count


def parse(text: str) -> dict[str, _Armed]:
    """The points that `text` arms. Raises ValueError for anything it does not understand."""
    armed = {}
    for part in filter(None, text.split(",")):
        where, _, action = part.partition("=")
        name, _, count = where.partition(":")
        if not name or action not in _ACTIONS or not (count or "1").isdigit() or count == "0":
            raise ValueError(f"a failpoint is name[:count]={'|'.join(_ACTIONS)}, not {part!r}")
        armed[name] = _Armed(action, int(count or "1"))
    return armed


_armed = parse(os.environ.get("VOLT_FAILPOINT", ""))


def point(name: str) -> None:
    """Do what a test asked to happen here; nothing in normal life."""
    if name in _armed:
        _hit(name, _armed[name])


def _hit(name: str, armed: _Armed) -> None:
    armed.left -= 1
    if armed.left > 0:
        return
    if armed.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif armed.action == "exit":
        os._exit(STATUS)
    raise OSError(errno.EIO, f"failpoint {name}")
