"""What runs in a vm machine passes streams and exit status as they are, and never one session's to another."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from voltlab import agent, vm


class Port:
    """The host's end of a port, and all frames that have come."""

    def __init__(self) -> None:
        self.end, self.guest = socket.socketpair()
        self.sessions: list[agent.Session] = []

    def session(self, *argv: str, env: tuple[str, ...] = ()) -> agent.Session:
        made = agent.Session(self.guest.fileno(), {"id": "a" * 32, "argv": argv, "user": None, "env": env})
        self.sessions.append(made)
        return made

    def frames(self) -> Iterator[tuple[int, bytes]]:
        while True:
            kind, size = agent.HEADER.unpack(self.end.recv(agent.HEADER.size, socket.MSG_WAITALL))
            yield kind, self.end.recv(size, socket.MSG_WAITALL) if size else b""
            if kind == agent.EXIT:
                return


@pytest.fixture
def port() -> Iterator[Port]:
    made = Port()
    yield made
    for thread in [thread for session in made.sessions for thread in session.threads]:
        thread.join()
    made.end.close()
    made.guest.close()


def test_output_errors_and_status_arrive_apart_and_the_status_last(port: Port) -> None:
    port.session("sh", "-c", "echo out; echo err >&2; exit 37")
    got = list(port.frames())
    assert got[0] == (agent.ACCEPTED, b"a" * 32)
    assert {(agent.STDOUT, b"out\n"), (agent.STDERR, b"err\n")} == set(got[1:-1])
    assert got[-1] == (agent.EXIT, json.dumps(37).encode())


def test_input_reaches_the_command_and_so_does_its_end(port: Port) -> None:
    session = port.session("cat")
    session.stdin(b"words")
    session.stdin(b"")
    assert b"".join(data for kind, data in port.frames() if kind == agent.STDOUT) == b"words"


def test_a_signal_that_ended_the_command_is_told(port: Port) -> None:
    port.session("sh", "-c", "kill -TERM $$")
    assert json.loads(list(port.frames())[-1][1]) == -15


def test_a_session_that_is_over_says_nothing_more(port: Port) -> None:
    session = port.session("sleep", "1000")
    assert next(port.frames())[0] == agent.ACCEPTED
    session.kill()
    session.send(agent.STDOUT, b"stale")
    assert select.select([port.end], [], [], 0)[0] == []


def test_the_rest_of_a_cut_frame_is_taken_for_no_request(port: Port) -> None:
    port.end.sendall(b"\xffgarbage")
    with pytest.raises(agent.Gone):
        agent.frame(port.guest.fileno())


def test_the_host_asks_again_until_its_request_is_accepted_and_skips_what_is_not_its_own(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vm, "ASK_AGAIN_SECONDS", 0.01)

    seen: list[bytes] = []

    def guest() -> None:
        seen.append(agent.frame(port.guest.fileno())[1])
        again = agent.frame(port.guest.fileno())[1]
        seen.append(again)
        accepted = vm.packed(agent.ACCEPTED, json.loads(again)["id"].encode())
        port.guest.sendall(b"rest of another" + accepted + b"mine")

    thread = threading.Thread(target=guest)
    thread.start()
    assert vm.ask(port.end, ["true"], None, []) == b"mine"
    thread.join()
    assert seen[0] == seen[1]
