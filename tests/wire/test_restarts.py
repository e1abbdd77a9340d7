"""A daemon that ends and comes again: nothing is lost, nothing happens twice, and asking tells the truth."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading

import pytest
from wire.waiting import wait_until

from volt_common.api import cas
from volt_common.client.asyncio import AsyncClient
from volt_common.client.blocking import Client
from volt_common.errors import Unknown, Unreachable
from volt_common.wire import Kind, encode, encode_header, new_id
from volt_common.wire.zmtp import HELLO, Receiver, message

ZERO = "0" * 64


def _set(name):
    return cas.RefSet(name=name, kind="blob", digest=ZERO)


def test_the_same_id_gets_the_first_answer_even_of_the_next_daemon(served):
    import socket

    call = message((encode_header(Kind.CALL, new_id()), encode(_set("once"))))
    answers = []
    for restart in (False, False, True):
        if restart:
            served.end()
            served.start()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(served.run / "casd.sock"))
            sock.sendall(HELLO)
            receiver = Receiver()
            while not receiver.ready:
                receiver.feed(sock.recv(65536))
            sock.sendall(call)
            got = []
            while not got:
                got = receiver.feed(sock.recv(65536))
            answers.append(got[0])
    assert answers[0] == answers[1] == answers[2]
    assert served.effects() == ["once"]


def test_a_stopped_daemon_serves_again_and_the_call_arrives_once(served):
    """The client connects while nobody runs: the backlog holds it, as under systemd."""
    assert served.end() == 0
    client = Client("casd", str(served.run))
    answer = []
    thread = threading.Thread(target=lambda: answer.append(client.call(_set("late"))))
    thread.start()
    served.start()
    thread.join(20)
    client.close()
    assert answer[0].name == "late"
    assert served.effects() == ["late"]


def test_sigterm_again_and_again_loses_nothing_and_repeats_nothing(served):
    done = threading.Event()
    sent = []

    def work():
        with Client("casd", str(served.run)) as client:
            number = 0
            while not done.is_set():
                client.call(_set(f"n{number}"))
                sent.append(f"n{number}")
                number += 1

    threads = [threading.Thread(target=work)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        so_far = len(sent)
        wait_until(lambda so_far=so_far: len(sent) > so_far + 20)
        assert served.end() == 0
        served.start()
    done.set()
    for thread in threads:
        thread.join(30)
    assert served.effects() == sent
    assert len(sent) > 160


def test_sigkill_never_repeats_and_says_when_it_does_not_know(served):
    done = threading.Event()
    good, unknown = [], []

    def work():
        with Client("casd", str(served.run)) as client:
            number = 0
            while not done.is_set():
                name = f"n{number}"
                number += 1
                try:
                    client.call(_set(name))
                    good.append(name)
                except Unknown:
                    unknown.append(name)

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(8):
        so_far = len(good)
        wait_until(lambda so_far=so_far: len(good) > so_far + 20)
        served.end(signal.SIGKILL)
        served.start()
    done.set()
    thread.join(30)
    effects = served.effects()
    assert len(effects) == len(set(effects))
    assert set(good) <= set(effects)
    assert set(effects) <= set(good) | set(unknown)


def test_the_asyncio_client_resends_too(served):
    async def go():
        client = AsyncClient("casd", str(served.run))
        loop = asyncio.get_running_loop()
        for number in range(5):
            assert (await client.call(_set(f"a{number}"))).name == f"a{number}"
            await loop.run_in_executor(None, served.end)
            call = asyncio.create_task(client.call(_set(f"b{number}")))
            await loop.run_in_executor(None, served.start)
            assert (await call).name == f"b{number}"
        await client.close()

    asyncio.run(go())
    assert sorted(served.effects()) == sorted([f"a{n}" for n in range(5)] + [f"b{n}" for n in range(5)])


def test_it_exits_when_idle_and_not_while_a_peer_is_connected(make_served):
    daemon = make_served("--idle", "0.3")
    with Client("casd", str(daemon.run)) as client:
        client.call(cas.Status())
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.wait_for_end(1.0)
        client.call(cas.Status())
    assert daemon.wait_for_end(20) == 0


def test_a_call_in_flight_ends_before_the_daemon(served):
    """SIGTERM while a stream runs: the reader learns that it was cut off, not that it was whole."""
    with Client("casd", str(served.run)) as client:
        stream = client.stream(cas.RefList(prefix="100000000"))
        next(stream)
        served.process.send_signal(signal.SIGTERM)
        with pytest.raises(Unreachable):
            for _ in stream:
                pass
    assert served.wait_for_end(30) == 0


def test_no_socket_is_said_plainly(tmp_path):
    with pytest.raises(Unreachable) as caught, Client("casd", str(tmp_path)) as client:
        client.call(cas.Status())
    assert "systemctl start volt-casd.socket" in str(caught.value)
    assert caught.value.exit == 6


def test_stacks_on_sigusr1_and_reload_on_sighup_keep_it_serving(served):
    for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2):
        os.kill(served.process.pid, number)
        with Client("casd", str(served.run)) as client:
            assert client.call(cas.Status()).objects == 1
