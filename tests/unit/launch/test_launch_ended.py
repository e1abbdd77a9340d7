"""A run's end is told by what systemd, nspawn and the cgroup say of it."""

from __future__ import annotations

import pytest

from volt_ctr_launch import ended

RUNNING: dict[str, object] = {"leader": 42, "id": "x", "boots": False}
BEFORE: dict[str, object] = {"id": "x"}


def exited(status: str, code: str = "exited") -> dict[str, str]:
    return {"SERVICE_RESULT": "exit-code", "EXIT_CODE": code, "EXIT_STATUS": status}


@pytest.mark.parametrize(
    ("result", "killed", "oom", "boots", "code", "number", "reason"),
    [
        (exited("0"), 0, 0, False, 0, 0, "exit"),
        (exited("7"), 0, 0, False, 7, 0, "exit"),
        (exited("143"), 0, 0, False, 143, 15, "signal"),
        (exited("143"), 0, 0, True, 143, 0, "exit"),
        (exited("137"), 0, 0, False, 137, 9, "signal"),
        (exited("137"), 0, 2, False, 137, 9, "oom"),
        (exited("1"), 0, 1, False, 137, 9, "oom"),
        (exited("1"), 0, 0, False, 1, 0, "exit"),
        (exited("1"), 9, 0, False, 137, 9, "signal"),
        (exited("3"), 9, 0, False, 3, 0, "exit"),
        (exited("0"), 0, 5, False, 0, 0, "exit"),
        (exited("255"), 0, 0, False, 255, 0, "exit"),
        (exited("KILL", "killed"), 0, 0, False, 137, 9, "signal"),
        (exited("SEGV", "dumped"), 0, 0, False, 139, 11, "signal"),
    ],
)
def test_the_end_of_a_run(
    result: dict[str, str], killed: int, oom: int, boots: bool, code: int, number: int, reason: str
) -> None:
    end = ended.describe(result, BEFORE, RUNNING | {"boots": boots}, killed, oom)
    assert (end["code"], end["signal"], end["reason"]) == (code, number, reason)


@pytest.mark.parametrize("running", [{}, {"leader": 42, "id": "of an earlier one"}])
def test_what_never_began_is_a_failed_start(running: dict[str, object]) -> None:
    end = ended.describe(exited("1"), BEFORE, running, 0, 0)
    assert end["reason"] == "start-failure"
    assert end["code"] == 1
    assert end["message"]


def test_words_that_systemd_may_not_send_are_no_crash() -> None:
    for result in ({}, exited(""), exited("WHAT", "killed")):
        assert ended.describe(result, BEFORE, RUNNING, 0, 0)["reason"] in ("exit", "signal")
