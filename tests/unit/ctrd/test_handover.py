"""Launchers fetch the caller's descriptors over a real socket, each its own and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from volt_ctrd.handover import Asked, Handover, Report, listen

ID = "0123456789abcdef"
RUN = Asked("run", "web", "ab" * 16)
EXEC = Asked("exec", "web", ID)


class Answer(msgspec.Struct, frozen=True):
    ok: bool = True
    word: str = "hello"


Test = Callable[[Handover, "Come"], Awaitable[None]]


def with_handover(tmp_path: Path, test: Test, trusted: int | None = None) -> None:
    async def main() -> None:
        path = str(tmp_path / "handover")
        uid = os.getuid() if trusted is None else trusted
        with listen(path) as listening:
            handover = Handover(listening, uid)
            with contextlib.ExitStack() as sockets:
                async with asyncio.timeout(20):
                    await test(handover, lambda: sockets.enter_context(Launcher(path)))
            handover.close()

    asyncio.run(main())


class Launcher:
    """The other side, as a launcher is: plain sockets."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(path)

    async def ask(self, asked: Asked | bytes) -> tuple[dict[str, object], list[int]]:
        self._socket.send(asked if isinstance(asked, bytes) else msgspec.json.encode(asked))
        data, fds, _, _ = await asyncio.to_thread(socket.recv_fds, self._socket, 1 << 20, 8)
        return json.loads(data) if data else {}, fds

    def say(self, **words: object) -> None:
        self._socket.send(json.dumps(words).encode())

    async def ended(self) -> bool:
        return await asyncio.to_thread(self._socket.recv, 10) == b""

    def leave(self) -> None:
        self._socket.close()

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


Come = Callable[[], Launcher]


def test_a_launcher_gets_the_descriptors_that_wait_for_it(tmp_path: Path) -> None:
    async def test(handover: Handover, come: Come) -> None:
        read, write = os.pipe()
        with handover.offer(RUN, Answer(), [write]) as offer:
            assert handover.busy
            answer, fds = await come().ask(RUN)
            assert answer == {"ok": True, "word": "hello"}
            os.write(fds[0], b"through")
            assert os.read(read, 100) == b"through"
            assert (await offer.taken) is not None
            os.close(fds[0])
            assert os.read(read, 1) == b""  # ours is closed too
        os.close(read)

    with_handover(tmp_path, test)


def test_a_launcher_that_nobody_expects_gets_nothing(tmp_path: Path) -> None:
    async def test(handover: Handover, come: Come) -> None:
        with handover.offer(EXEC, Answer(), [os.dup(0)]) as offer:
            for other in (RUN, Asked("exec", "web", ID[::-1]), Asked("exec", "db", ID), Asked("run", "web", ID)):
                answer, fds = await come().ask(other)
                assert (answer["ok"], fds) == (False, [])
            for garbage in (b"", b"{}", b"[]", b"\xff", b'{"unit":1,"name":"web","id":"x"}', b"x" * 1000):
                answer, fds = await come().ask(garbage or b" ")
                assert (answer["ok"], fds) == (False, [])
            assert not offer.taken.done()

    with_handover(tmp_path, test)


def test_descriptors_are_handed_over_once(tmp_path: Path) -> None:
    async def test(handover: Handover, come: Come) -> None:
        with handover.offer(RUN, Answer(), [os.dup(0)]):
            first, fds = await come().ask(RUN)
            second, none = await come().ask(RUN)
            assert (first["ok"], second["ok"], len(fds), len(none)) == (True, False, 1, 0)
            os.close(fds[0])

    with_handover(tmp_path, test)


def test_only_the_launchers_uid_is_served(tmp_path: Path) -> None:
    async def test(handover: Handover, come: Come) -> None:
        with handover.offer(RUN, Answer(), [os.dup(0)]) as offer:
            launcher = come()
            assert await launcher.ended()
            assert not offer.taken.done()

    with_handover(tmp_path, test, trusted=os.getuid() + 1)


def test_what_is_withdrawn_is_closed_and_not_found(tmp_path: Path) -> None:
    async def test(handover: Handover, come: Come) -> None:
        read, write = os.pipe()
        with handover.offer(RUN, Answer(), [write]):
            pass
        assert os.read(read, 1) == b""
        answer, _ = await come().ask(RUN)
        assert answer["ok"] is False
        os.close(read)

    with_handover(tmp_path, test)


def test_a_launcher_reports_and_its_end_is_noticed(tmp_path: Path) -> None:
    async def test(handover: Handover, come: Come) -> None:
        launcher = come()
        with handover.offer(EXEC, Answer(), []) as offer:
            await launcher.ask(EXEC)
            taken = await offer.taken
            launcher.say(started=17)
            launcher.say(exit=3, signal=0)
            assert await taken.report() == Report(started=17)
            assert await taken.report() == Report(exit=3)
            launcher.leave()
            assert await taken.report() is None

    with_handover(tmp_path, test)


def test_the_end_of_the_offer_tells_the_launcher_to_kill(tmp_path: Path) -> None:
    async def test(handover: Handover, come: Come) -> None:
        launcher = come()
        with handover.offer(EXEC, Answer(), []) as offer:
            await launcher.ask(EXEC)
            await offer.taken
        assert await launcher.ended()

    with_handover(tmp_path, test)


def test_a_hundred_kilobytes_of_arguments_arrive(tmp_path: Path) -> None:
    async def test(handover: Handover, come: Come) -> None:
        word = "ä\n" * 40_000
        with handover.offer(EXEC, Answer(word=word), [os.dup(0)]):
            answer, fds = await come().ask(EXEC)
            assert answer["word"] == word
            os.close(fds[0])

    with_handover(tmp_path, test)


def test_the_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    with listen(str(tmp_path / "handover")):
        assert os.stat(tmp_path / "handover").st_mode & 0o777 == 0o600
