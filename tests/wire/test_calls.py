"""What every daemon does with a call, through both clients and both sockets."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from volt_common.api import base, cas
from volt_common.client.asyncio import AsyncClient, AsyncPacketClient
from volt_common.client.blocking import Client, PacketClient
from volt_common.errors import AlreadyExists, Internal, Malformed, NotFound, TimedOut, VoltError, of_code
from volt_common.wire import Kind

ZERO = "0" * 64


def test_a_call_is_answered(served):
    with Client("casd", str(served.run)) as client:
        assert client.call(cas.Status()).objects == 1


def test_many_calls_share_a_connection(served):
    with Client("casd", str(served.run)) as client:
        assert {client.call(cas.Status()).refs for _ in range(200)} == {5}


def test_an_error_arrives_as_the_class_it_was(served):
    with Client("casd", str(served.run)) as client, pytest.raises(NotFound) as caught:
        client.call(cas.RefGet(name="debian"))
    assert str(caught.value) == "no ref named debian"
    assert caught.value.exit == 3


def test_a_fault_of_ours_tells_the_caller_nothing_but_where_to_look(served):
    with Client("casd", str(served.run)) as client, pytest.raises(Internal) as caught:
        client.call(cas.RefDelete(name="x"))
    assert "a fault of ours" not in str(caught.value)
    assert served.alive()


def test_a_stream_comes_whole_and_in_order(served):
    with Client("casd", str(served.run)) as client:
        names = [ref.name for ref in client.stream(cas.RefList(prefix="5000"))]
    assert names == [f"ref-{n}" for n in range(5000)]


def test_a_slow_reader_loses_nothing(served):
    """The daemon's queue for it is 32 messages; the rest waits in the handler."""
    with Client("casd", str(served.run)) as client:
        stream = client.stream(cas.RefList(prefix="200000"))
        assert next(stream).name == "ref-0"
        with Client("casd", str(served.run)) as other:
            before = served.memory()
            for _ in range(300):
                other.call(cas.Status())
        assert served.memory() - before < 20 << 20
        assert sum(1 for _ in stream) == 199_999


def test_a_stream_that_is_dropped_ends_on_the_daemon_too(served):
    with Client("casd", str(served.run)) as client:
        stream = client.stream(cas.RefList(prefix="100000000"))
        next(stream)
        stream.close()
        assert client.call(cas.Status()).objects == 1


def test_a_deadline_is_kept_by_the_daemon(served):
    with Client("casd", str(served.run), timeout=0.2) as client, pytest.raises(TimedOut):
        client.call(cas.View(tree=ZERO, form=cas.Form.FULL))


def test_progress_reaches_the_caller(served):
    seen = []
    with Client("casd", str(served.run), timeout=0.3) as client, pytest.raises(TimedOut):
        client.call(cas.View(tree=ZERO, form=cas.Form.FULL), on_progress=seen.append)
    assert [(p.done, p.total, p.text) for p in seen] == [(1, 2, "asleep")]


def test_describe_gives_the_contract(served):
    with Client("casd", str(served.run)) as client:
        described = client.call(base.Describe())
    assert described.daemon == "casd"
    assert "cas.ref_set" in described.text


def test_names_that_are_none_are_refused_before_the_handler(served):
    with Client("casd", str(served.run)) as client:
        for name in ("../x", "a\n", "", "a//b", "/a", ".a", "a/..", "x" * 600):
            with pytest.raises(Malformed):
                client.call(cas.RefSet(name=name, kind="blob", digest=ZERO))
    assert served.effects() == []


def test_descriptors_go_both_ways(served, tmp_path):
    (tmp_path / "file").write_bytes(b"hello")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    with PacketClient("casd", str(served.run)) as client:
        stored, fds = client.call(cas.Put(), [fd])
    assert stored.size == 5
    assert os.pread(fds[0], 10, 0) == b"hello"
    os.close(fd), os.close(fds[0])


def test_a_call_with_the_wrong_number_of_descriptors_is_refused(served):
    with PacketClient("casd", str(served.run)) as client, pytest.raises(Malformed):
        client.call(cas.Put())


def test_batches_of_253_descriptors(served, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    fds = [os.open(tmp_path / "file", os.O_RDONLY) for _ in range(253)]
    call = cas.Build()
    with PacketClient("casd", str(served.run)) as client:
        id = client.begin(call, [])
        for _ in range(10):
            client.more(id, cas.Batch(nodes=[]), fds)
            assert client.next(id, call, item_type=cas.Taken)[0] is Kind.ITEM
        client.more(id, cas.Batch(nodes=[], last=True), fds)
        assert client.next(id, call)[1].files == 11 * 253
    for fd in fds:
        os.close(fd)
    assert len(os.listdir(f"/proc/{served.process.pid}/fd")) < 60


def test_the_asyncio_client_runs_calls_side_by_side(served):
    async def go() -> list[int]:
        client = AsyncClient("casd", str(served.run))
        answers = await asyncio.gather(*(client.call(cas.Status()) for _ in range(100)))
        names = [ref.name async for ref in client.stream(cas.RefList(prefix="100"))]
        assert names[-1] == "ref-99"
        with pytest.raises(NotFound):
            await client.call(cas.RefGet(name="x"))
        await client.rest()
        return [answer.objects for answer in answers]

    assert asyncio.run(go()) == [1] * 100


def test_the_asyncio_client_passes_descriptors(served):
    async def go() -> None:
        read, write = os.pipe()
        stored, fds = await AsyncPacketClient("casd", str(served.run)).call(cas.Put(), [read])
        os.write(write, b"through")
        assert os.read(fds[0], 100) == b"through"
        for fd in (read, write, *fds):
            os.close(fd)
        assert stored.new

    asyncio.run(go())


def test_two_callers_do_not_wait_for_each_other(served):
    with Client("casd", str(served.run), timeout=5) as slow, Client("casd", str(served.run)) as quick:
        failed = []
        thread = threading.Thread(target=lambda: failed.append(_error_of(slow)))
        thread.start()
        assert quick.call(cas.Status()).objects == 1
        assert failed == []
        thread.join()
    assert isinstance(failed[0], TimedOut)


def _error_of(client):
    try:
        client.call(cas.View(tree=ZERO, form=cas.Form.FULL))
    except VoltError as error:
        return error


def test_an_error_of_another_version_is_still_an_error():
    error = of_code("SOMETHING_NEW", "", {"a": 1})
    assert type(error) is VoltError
    assert "SOMETHING_NEW" in str(error)
    assert str(of_code("ALREADY_EXISTS", "", {"kind": "ref", "name": "x"})) == "ref x exists already"
    assert isinstance(of_code("ALREADY_EXISTS", "", {}), AlreadyExists)
