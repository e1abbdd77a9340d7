"""One change of a container at a time: who comes second is told so at once, and does not queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from volt_common.errors import Conflict


class Claims:
    """Which containers are being changed, and how. systemd's own jobs outlive ctrd; these need not."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, asyncio.Event]] = {}

    @property
    def any(self) -> bool:
        return bool(self._held)

    def held(self, name: str) -> bool:
        return name in self._held

    @contextlib.contextmanager
    def claim(self, name: str, state: str) -> Iterator[None]:
        """`state` is what a person reads: "being started". Raises Conflict."""
        if name in self._held:
            raise Conflict(kind="container", name=name, state=self._held[name][0])
        settled = asyncio.Event()
        self._held[name] = (state, settled)
        try:
            yield
        finally:
            del self._held[name]
            settled.set()

    async def settled(self, name: str) -> None:
        """Wait till nobody changes this container."""
        while name in self._held:
            await self._held[name][1].wait()
