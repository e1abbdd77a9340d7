"""The answers of mutating calls, by id: a call that arrives again gets the first answer, never a second effect.

Two records of a call are appended to a file, one before its effect and one with its answer, so that a daemon
that was killed between them can say that the outcome is not known. Nothing is synced: the file lies in /run
and serves clients that resend after a restart of the daemon; no client outlives the host.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

import msgspec

from volt_common.wire import Kind

GENERATION: Final = 20_000  # answers kept: between one and two generations


class Answer(msgspec.Struct, frozen=True, array_like=True):
    kind: int
    body: bytes


class Record(msgspec.Struct, frozen=True, array_like=True):
    uid: int
    id: bytes
    answer: Answer | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode

Key = tuple[int, bytes]


class IdLog:
    """Call `begin` before a mutating call's effect and `finish` after it."""

    def __init__(self, path: str | None, unknown: Callable[[], bytes]) -> None:
        self._path = path
        self._unknown = unknown  # makes the body of the error for a call that was cut off
        self._now: dict[Key, Answer | None] = {}
        self._before: dict[Key, Answer | None] = {}
        self._running: dict[Key, asyncio.Future[Answer]] = {}
        self._fd = -1
        if path is not None:
            for old, into in ((path + ".1", self._before), (path, self._now)):
                self._load(old, into)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _load(self, path: str, into: dict[Key, Answer | None]) -> None:
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return
        at = 0
        while at + 4 <= len(data):
            size = int.from_bytes(data[at : at + 4], "little")
            part = data[at + 4 : at + 4 + size]
            if len(part) < size:
                break  # cut off while it was written
            record = _decode(part)
            into[record.uid, record.id] = record.answer
            at += 4 + size
        if at != len(data):
            os.truncate(path, at)

    def known(self, key: Key) -> Answer | asyncio.Future[Answer] | None:
        """The answer of this id, the future of one that runs now, or None for an id never seen."""
        running = self._running.get(key)
        if running is not None:
            return running
        for have in (self._now, self._before):
            if key in have:
                return have[key] or Answer(Kind.ERROR, self._unknown())
        return None

    def begin(self, key: Key) -> None:
        self._append(Record(key[0], key[1]))
        self._now[key] = None
        self._running[key] = asyncio.get_running_loop().create_future()

    def finish(self, key: Key, answer: Answer) -> None:
        self._append(Record(key[0], key[1], answer))
        self._now[key] = answer
        waiting = self._running.pop(key, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)
        if len(self._now) >= GENERATION and not self._running:
            self._rotate()

    def forget(self, key: Key) -> None:
        """The call was refused before it could have any effect; nobody's answer is kept."""
        waiting = self._running.pop(key, None)
        if waiting is not None:
            waiting.cancel()
        self._now.pop(key, None)

    def _append(self, record: Record) -> None:
        if self._fd < 0:
            return
        data = _encode(record)
        data = len(data).to_bytes(4, "little") + data
        written = os.write(self._fd, data)
        if written != len(data):  # a torn record would hide all that follow it
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(28, "no space for the log of request ids")

    def _rotate(self) -> None:
        self._before, self._now = self._now, {}
        if self._path is not None:
            os.rename(self._path, self._path + ".1")
            os.close(self._fd)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
