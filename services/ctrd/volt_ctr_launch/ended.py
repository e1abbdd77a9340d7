"""volt-container@NAME, ExecStopPost=: how a run ended, before systemd forgets it, and what it leaves."""

from __future__ import annotations

import contextlib
import os
import signal

from volt_ctr_launch import cgroup, files, state
from volt_ctr_launch.paths import Layout


def run(layout: Layout, name: str, result: dict[str, str]) -> None:
    """`result` holds SERVICE_RESULT, EXIT_CODE and EXIT_STATUS of systemd.exec(5)."""
    if os.path.isdir(layout.launch(name)):  # else nothing began, or the attendant has brought it to its end
        finish(layout, name, result, f"{cgroup.of_unit()}/box")


def finish(layout: Layout, name: str, result: dict[str, str], box: str, *, durable: bool = True) -> dict[str, object]:
    """Write down how a run ended, unless its start or its attendant has, and clean up after it; returns its state.
    `box` is the cgroup with its limits."""
    after = state.load(layout, name)
    if not (after.get("ended_at") and state.is_present(layout, name)):
        running = files.read_own(f"{layout.launch(name)}/running.json")
        end = describe(result, after, running, _killed(layout, name), cgroup.oom_kills(box))
        after = state.finished(layout, name, end, durable=durable)
    cgroup.kill(box)
    clean(layout, name)
    return after


def describe(
    result: dict[str, str], before: dict[str, object], running: dict[str, object], killed: int, oom_kills: int
) -> dict[str, object]:
    """The end of a run. nspawn exits with its payload's code, with 1 when the payload's init was killed (so the
    signal is `killed`, what a launcher sent it), and with 1 in place of 133, which it keeps for reboots."""
    status = result.get("EXIT_STATUS", "")
    by_signal = result.get("EXIT_CODE") in ("killed", "dumped")
    number = _signal_number(status) if by_signal else 0
    code = 128 + number if by_signal else int(status) if status.isdigit() else 1
    end: dict[str, object] = {"code": code, "signal": number, "reason": "exit", "message": ""}
    if not running.get("leader") or running.get("id") != before.get("id"):
        message = f"systemd-nspawn ended before the payload began ({result.get('SERVICE_RESULT', '?')})"
        return end | {"code": code or 1, "reason": "start-failure", "message": message, "error": "GENERAL"}
    if oom_kills and (by_signal or code in (1, 137)):
        message = "the kernel killed it: it needed more memory than its limit"
        return end | {"code": 137, "signal": 9, "reason": "oom", "message": message}
    if not by_signal and code == 1 and killed == signal.SIGKILL:
        code, number = 137, 9
    elif not by_signal and 128 < code <= 128 + signal.SIGRTMAX and not running.get("boots"):
        number = code - 128  # catatonit's way to tell of a signal, and every shell's
    return end | {"code": code, "signal": number, "reason": "signal" if number else "exit"}


def _signal_number(name: str) -> int:
    with contextlib.suppress(KeyError):
        return int(signal.Signals[f"SIG{name}"])
    return int(name) if name.isdigit() else 0


def _killed(layout: Layout, name: str) -> int:
    """The signal that a launcher sent the payload's init; 0: none."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        with open(f"{layout.launch(name)}/killed", encoding="ascii") as file:
            return int(file.read())
    return 0


def clean(layout: Layout, name: str) -> None:
    """Remove the run-time directory, and what nspawn leaves when it is killed. Mounts went with their namespace."""
    if machine := state.machine_of(layout, name):
        files.clear_leftovers(machine)
    files.remove_below(layout.run, name)
