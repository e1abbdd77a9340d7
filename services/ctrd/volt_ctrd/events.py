"""Events to everyone who listens: from what ctrd does itself and from what systemd says of the units.

Each listener has a bounded queue. One that does not keep up is told so and dropped: nobody else waits for it,
and it never misses an event in silence.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Final

from volt_common.api import ctr
from volt_common.errors import Exhausted
from volt_ctrd.config import timestamp
from volt_ctrd.units import Phase

BACKLOG: Final = 256
LISTENERS: Final = 256


class Listener:
    """One reader's queue."""

    def __init__(self, name: str | None, backlog: int) -> None:
        self.name = name
        self._backlog = backlog
        self._queue: deque[ctr.Event] = deque()
        self._filled = asyncio.Event()
        self._late = False

    def put(self, event: ctr.Event) -> None:
        """Never waits; an event that finds no room ends this listener."""
        if len(self._queue) >= self._backlog:
            self._late = True
        else:
            self._queue.append(event)
        self._filled.set()

    async def next(self) -> ctr.Event:
        """Raises Exhausted once this reader is too far behind."""
        while not self._queue and not self._late:
            self._filled.clear()
            await self._filled.wait()
        if self._late:
            raise Exhausted("this reader is too slow, and events were lost", resource="room", hint="listen again")
        return self._queue.popleft()


class Events:
    """Who listens."""

    def __init__(self, backlog: int = BACKLOG) -> None:
        self._backlog = backlog
        self._listeners: set[Listener] = set()

    @property
    def heard(self) -> bool:
        """Whether anyone listens."""
        return bool(self._listeners)

    @contextlib.contextmanager
    def listen(self, name: str | None = None) -> Iterator[Listener]:
        """Hear of one container, or of all. Raises Exhausted when too many do."""
        if len(self._listeners) >= LISTENERS:
            raise Exhausted(f"{LISTENERS} callers listen to events already", resource="room")
        listener = Listener(name, self._backlog)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def publish(self, type: str, name: str, **detail: str) -> None:
        """Tell every listener now."""
        if not self._listeners:
            return
        event = ctr.Event(at=timestamp(), type=type, name=name, detail=detail)
        for listener in self._listeners:
            if listener.name in (None, name):
                listener.put(event)


def transition(before: Phase | None, after: Phase) -> tuple[str, ...]:
    """The events between two phases of a unit that were seen one after the other. `before` is None for a unit
    not seen yet. systemd may pass over phases between two signals, so that one change can be several events."""
    was_up = before in (Phase.ACTIVE, Phase.STOPPING)
    match after:
        case Phase.STARTING:
            if before is Phase.STARTING:
                return ()
            return ("exit", "start") if was_up else ("start",)
        case Phase.ACTIVE:
            if before is Phase.ACTIVE:
                return ()
            return ("ready",) if before is Phase.STARTING else ("start", "ready")
        case Phase.STOPPING:
            return ()
        case Phase.INACTIVE:
            return ("exit",) if was_up or before is Phase.STARTING else ()
