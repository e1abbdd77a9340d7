"""The processes that have the streams of runs which somebody watches. Each tells how its run ended as soon as that is
so, and can remove what root keeps of the container, while systemd still tidies the unit up."""

from __future__ import annotations

import asyncio

from volt_common.api import ctr
from volt_ctrd.handover import Taken


class Attendant:
    """One run's."""

    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self._exit = asyncio.get_running_loop().create_task(self._told())

    async def exit(self) -> ctr.Exit | None:
        """How the run ended, when it has; None if that can't be learned here: the attendant was killed."""
        return await asyncio.shield(self._exit)

    async def remove(self) -> bool:
        """After `exit`: have what root keeps of the container removed. False if that has to be done otherwise."""
        await self._taken.say(b'{"remove":true}')
        report = await self._taken.report()
        return report is not None and report.removed

    def dismiss(self) -> None:
        """It is waited for no longer."""
        self._exit.cancel()
        self._taken.close()

    async def _told(self) -> ctr.Exit | None:
        report = await self._taken.report()
        return None if report is None else report.ended()
