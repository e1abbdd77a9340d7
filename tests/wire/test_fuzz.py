"""Live daemons under random and mutated messages: they answer with typed errors, or not at all, and do not grow.

The skeleton with an echo behind it, and the store, which does what it is asked. CI sends a bounded share;
VOLT_FUZZ=10000000 sends that many to each.
"""

from __future__ import annotations

import array
import os
import random
import socket

import msgpack
import pytest
import zmq
from wire.conftest import ECHO, Served
from wire.test_golden import encoded as samples
from wire.waiting import wait_until

from volt_common.api import cas
from volt_common.client.blocking import Client
from volt_common.errors import BY_CODE
from volt_common.wire import Kind, encode_header

COUNT = int(os.environ.get("VOLT_FUZZ", "60000"))
SEEDS = [bytes.fromhex(text) for name, text in samples()["messages"].items() if name.startswith("casd cas.")]


@pytest.fixture(params=["skeleton", "store"])
def fuzzed(request, tmp_path):
    """A running daemon."""
    store = ("-m", "volt_casd", "--store", str(tmp_path / "store"))
    one = Served(tmp_path, (), store if request.param == "store" else ECHO)
    one.start()
    yield one
    assert one.alive()
    one.close()


def _well(served):
    """It answers, and what it holds is whole."""
    with Client("casd", str(served.run), timeout=60) as client:
        client.call(cas.Status())
        if (served.state.parent / "store").exists():
            assert client.collect(cas.Verify())[0] == []


def _value(rng, depth=0):
    kind = rng.randrange(10 if depth < 4 else 7)
    if kind == 0:
        return rng.randrange(-(1 << 63), 1 << 64)
    if kind == 1:
        return rng.randbytes(rng.randrange(40))
    if kind == 2:
        return "".join(chr(rng.randrange(1, 0xD000)) for _ in range(rng.randrange(20)))
    if kind in (3, 4, 5, 6):
        return (None, True, rng.random(), 0)[kind - 3]
    if kind in (7, 8):
        return [_value(rng, depth + 1) for _ in range(rng.randrange(5))]
    return {str(_value(rng, 4)): _value(rng, depth + 1) for _ in range(rng.randrange(5))}


def _body(rng):
    how = rng.randrange(5)
    if how == 0:
        return rng.randbytes(rng.randrange(200))
    if how == 1:
        return msgpack.packb(_value(rng))
    if how == 2:
        op = rng.choice(["cas.status", "cas.ref_set", "cas.ls", "describe", "x", "cas.verify"])
        return msgpack.packb({"op": op, **{k: _value(rng, 3) for k in rng.sample(["name", "digest", "tree", "q"], 2)}})
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randrange(6)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data) if how == 3 else bytes(data[: rng.randrange(len(data) + 1)])


def _frames(rng):
    body = _body(rng)
    if rng.randrange(4):
        kind = rng.choice([Kind.CALL] * 6 + [Kind.CANCEL, Kind.MORE, Kind.DONE, 99])
        header = encode_header(Kind.CALL, rng.randbytes(16), rng.choice([0, 1, 1000]))[:-1] + bytes([int(kind)])
    else:
        header = rng.choice([rng.randbytes(rng.randrange(40)), msgpack.packb(_value(rng))])
    frames = [header, body]
    if not rng.randrange(20):
        frames = [rng.randbytes(rng.randrange(30)) for _ in range(rng.randrange(1, 12))]
    return frames


def _check(reply):
    header = msgpack.unpackb(reply[0])
    if header[3] == Kind.ERROR:
        problem = msgpack.unpackb(reply[1])
        assert problem["code"] in BY_CODE, problem
    else:
        assert header[3] in (Kind.ITEM, Kind.PROGRESS, Kind.DONE)


@pytest.mark.timeout(0 if COUNT > 100_000 else 120)
def test_the_zmq_socket(fuzzed):
    served = fuzzed
    rng = random.Random(20260101)
    context = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.connect(f"ipc://{served.run}/casd.sock")
    half = 0
    replies = 0
    for number in range(COUNT):
        sock.send_multipart(_frames(rng))
        while (number % 50 == 0 and sock.poll(1)) or sock.poll(0):
            _check(sock.recv_multipart())
            replies += 1
        if number == COUNT // 2:
            half = served.memory()
    context.destroy(0)
    _well(served)
    assert replies > COUNT // 4
    assert served.memory() - half < 20 << 20


def test_the_descriptor_socket(fuzzed):
    served = fuzzed
    rng = random.Random(20260102)
    null = os.open("/dev/null", os.O_RDONLY)
    half = 0
    count = min(COUNT, 200_000) // 6
    for number in range(count):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(served.run / "casd.fd"))  # waits while the backlog is full
            sock.settimeout(5)
            for _ in range(rng.randrange(4)):
                fds = array.array("i", [null] * rng.choice([0, 0, 1, 3, 200]))
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
                try:
                    sock.sendmsg([b"".join(_frames(rng))], rights)
                except OSError:
                    break
        if number == count // 2:
            half = served.memory()
    os.close(null)
    _well(served)
    assert served.memory() - half < 20 << 20
    wait_until(
        lambda: len(os.listdir(f"/proc/{served.process.pid}/fd")) < 60
    )  # builds whose callers went are still ending


def test_frames_without_an_end_are_bounded_by_the_unit_and_one_too_large_is_dropped(served):
    context = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.connect(f"ipc://{served.run}/casd.sock")
    sock.send_multipart([encode_header(Kind.CALL, bytes(16)), bytes(2 << 20)])
    assert not sock.poll(500)
    context.destroy(0)
    with Client("casd", str(served.run), timeout=30) as client:
        assert client.call(cas.Status()).objects == 1


def test_a_peer_that_asks_and_never_reads_is_not_kept_in_memory(served):
    context = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.setsockopt(zmq.RCVHWM, 1)
    sock.connect(f"ipc://{served.run}/casd.sock")
    before = served.memory()
    for _ in range(20_000):
        try:
            sock.send_multipart([encode_header(Kind.CALL, os.urandom(16)), b"\x81\xa2op\xa8describe"], zmq.NOBLOCK)
        except zmq.Again:
            if not sock.poll(20, zmq.POLLOUT):
                break
    with Client("casd", str(served.run), timeout=60) as client:
        assert client.call(cas.Status()).objects == 1
    assert served.memory() - before < 128 << 20
    context.destroy(0)
