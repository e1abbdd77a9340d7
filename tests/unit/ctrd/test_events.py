"""Everyone who listens hears everything, in order, or is told that it did not."""

from __future__ import annotations

import asyncio

import pytest

from volt_common.errors import Exhausted
from volt_ctrd.events import LISTENERS, Events, transition
from volt_ctrd.units import Phase

UP, DOWN, STARTING, STOPPING = Phase.ACTIVE, Phase.INACTIVE, Phase.STARTING, Phase.STOPPING


def test_each_listener_hears_every_event_in_order() -> None:
    async def listen() -> None:
        events = Events()
        with events.listen() as one, events.listen() as two:
            for number in range(20):
                events.publish("create", f"c{number}", image="web")
            for listener in (one, two):
                heard = [await listener.next() for _ in range(20)]
                assert [event.name for event in heard] == [f"c{number}" for number in range(20)]
                assert (heard[0].type, heard[0].detail) == ("create", {"image": "web"})
                assert heard[0].at.endswith("Z")

    asyncio.run(listen())


def test_who_listens_to_one_container_hears_of_no_other() -> None:
    async def listen() -> None:
        events = Events()
        with events.listen("web") as listener:
            events.publish("start", "db")
            events.publish("start", "web")
            assert (await listener.next()).name == "web"

    asyncio.run(listen())


def test_a_listener_that_waits_is_woken() -> None:
    async def listen() -> None:
        events = Events()
        with events.listen() as listener:
            waiting = asyncio.create_task(listener.next())
            await asyncio.sleep(0)
            assert not waiting.done()
            events.publish("exit", "web")
            assert (await waiting).type == "exit"

    asyncio.run(listen())


def test_a_reader_that_is_too_slow_ends_and_disturbs_nobody() -> None:
    async def listen() -> None:
        events = Events(backlog=4)
        with events.listen() as slow, events.listen() as quick:
            for _ in range(4):
                events.publish("start", "web")
                await quick.next()
            events.publish("exit", "web")
            assert (await quick.next()).type == "exit"
            with pytest.raises(Exhausted, match="too slow"):
                await slow.next()

    asyncio.run(listen())


def test_who_has_gone_is_forgotten() -> None:
    events = Events()
    with events.listen():
        assert events.heard
    assert not events.heard
    events.publish("start", "web")


def test_listeners_are_bounded() -> None:
    events = Events()
    listening = [events.listen() for _ in range(LISTENERS + 1)]
    for context in listening[:-1]:
        context.__enter__()
    with pytest.raises(Exhausted, match="listen to events already"):
        listening[-1].__enter__()


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        (None, STARTING, ("start",)),
        (DOWN, STARTING, ("start",)),
        (STARTING, STARTING, ()),
        (STARTING, UP, ("ready",)),
        (None, UP, ("start", "ready")),
        (UP, UP, ()),
        (UP, STOPPING, ()),
        (UP, DOWN, ("exit",)),
        (STOPPING, DOWN, ("exit",)),
        (STARTING, DOWN, ("exit",)),
        (None, DOWN, ()),
        (DOWN, DOWN, ()),
        (UP, STARTING, ("exit", "start")),
        (STOPPING, STARTING, ("exit", "start")),
    ],
)
def test_a_unit_that_changes_is_an_event(before: Phase | None, after: Phase, events: tuple[str, ...]) -> None:
    assert transition(before, after) == events
