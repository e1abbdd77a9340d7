"""What a container is now, from three sources that may disagree."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from volt_common.api import cas, ctr
from volt_ctrd import config, state
from volt_ctrd.files import Ended, Places, RootState, Running, load
from volt_ctrd.images import Image
from volt_ctrd.units import SLICE, Phase, Unit, is_frozen

VIEW = cas.ViewReady("ab" * 32, cas.Form.FULL, 8192, "cd" * 32, 0o40755, 0, 0, 0)
CONFIG = config.of_spec("web", 1000, ctr.Spec(image="web", args=["/bin/true"]), Image("ab" * 32), VIEW)
UNIT = "volt-container@web.service"
BEGUN, ENDED = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"
NEVER = RootState()
RUNS = RootState(id=CONFIG.id, started_at=BEGUN, ready_at=BEGUN, id_base=589824)


def ended(**exit: Any) -> RootState:
    return RootState(id=CONFIG.id, started_at=BEGUN, ready_at=BEGUN, ended_at=ENDED, exit=Ended(**exit))


@pytest.mark.parametrize(
    ("unit", "root", "word", "reason", "code"),
    [
        (Unit(UNIT), NEVER, "stopped", None, None),
        (Unit(UNIT), None, "stopped", None, None),
        (Unit(UNIT, Phase.STARTING), NEVER, "starting", None, None),
        (Unit(UNIT, Phase.STARTING), ended(code=1), "starting", None, None),
        (Unit(UNIT, Phase.ACTIVE), RUNS, "running", None, None),
        (Unit(UNIT, Phase.ACTIVE, frozen=True), RUNS, "paused", None, None),
        (Unit(UNIT, Phase.STOPPING), RUNS, "stopping", None, None),
        (Unit(UNIT), ended(code=0), "stopped", "exit", 0),
        (Unit(UNIT), ended(code=3), "stopped", "exit", 3),
        (Unit(UNIT, failed=True, result="exit-code"), ended(code=3), "stopped", "exit", 3),
        (Unit(UNIT), ended(code=0, signal=9, reason="signal"), "stopped", "signal", 137),
        (Unit(UNIT), ended(code=143, signal=15, reason="signal"), "stopped", "signal", 143),
        (Unit(UNIT), ended(code=137, signal=9, reason="oom"), "stopped", "oom", 137),
        (Unit(UNIT), ended(code=127, reason="start-failure", message="no command"), "failed", "start-failure", 127),
        (Unit(UNIT, failed=True, result="timeout"), NEVER, "failed", "start-failure", 1),
        (Unit(UNIT), RUNS, "stopped", "lost", 255),
    ],
)
def test_one_word_says_what_it_is_and_how_it_ended(
    unit: Unit, root: RootState | None, word: str, reason: str | None, code: int | None
) -> None:
    now = state.container(CONFIG, unit, root, None)
    assert now.state.value == word
    assert (now.exit.reason if now.exit else None) == reason
    assert (now.exit.code if now.exit else None) == code


def test_the_record_of_an_earlier_container_of_this_name_says_nothing() -> None:
    other = msgspec.structs.replace(ended(code=7), id="0" * 32)
    now = state.container(CONFIG, Unit(UNIT), other, None)
    assert (now.state, now.exit, now.started_at, now.id_base) == (ctr.State.STOPPED, None, "", 0)


def test_a_leader_is_named_only_while_it_runs() -> None:
    running = Running(leader=4711)
    assert state.container(CONFIG, Unit(UNIT, Phase.ACTIVE), RUNS, running).leader == 4711
    assert state.container(CONFIG, Unit(UNIT), RUNS, running).leader == 0


def test_everything_asked_is_shown() -> None:
    now = state.container(CONFIG, Unit(UNIT, Phase.ACTIVE), RUNS, Running())
    assert (now.name, now.id, now.image, now.uid, now.args) == ("web", CONFIG.id, "web", 1000, ["/bin/true"])
    assert (now.started_at, now.ready_at, now.id_base) == (BEGUN, BEGUN, 589824)


def test_a_damaged_container_is_shown_with_the_reason() -> None:
    now = state.damaged("web", Unit(UNIT), "config.json of web is damaged")
    assert now.state is ctr.State.FAILED
    assert now.exit is not None
    assert "damaged" in now.exit.message
    assert state.damaged("web", Unit(UNIT, Phase.ACTIVE), "x").state is ctr.State.RUNNING


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"id": 7}', b"[" * 100_000, b"\xff"])
def test_a_record_that_is_torn_is_none(places: Places, text: bytes) -> None:
    path = f"{places.launch}/state.json"
    with open(path, "wb") as file:
        file.write(text)
    assert load(path, RootState) is None
    assert load(f"{path}/below", RootState) is None


def test_a_record_of_a_later_version_is_read_as_far_as_it_is_known(places: Places) -> None:
    path = f"{places.launch}/state.json"
    with open(path, "wb") as file:
        file.write(b'{"version": 1, "id": "x", "exit": null, "later": {"a": 1}, "started_at": "now", "ended_at": null}')
    assert load(path, RootState) == RootState(id="x", started_at="now")


def test_a_frozen_container_is_known_by_its_control_group(places: Places) -> None:
    box = f"{places.run}/{SLICE}/{UNIT}/box/payload"
    os.makedirs(box)
    for text, frozen in (("0\n", False), ("1\n", True)):
        with open(f"{box}/cgroup.freeze", "w", encoding="ascii") as file:
            file.write(text)
        assert is_frozen("web", ("/none", places.run)) is frozen
    assert not is_frozen("db", (places.run,))
