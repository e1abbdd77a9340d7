"""A peer that knows nothing of ours: pyzmq, msgpack, and docs/protocol.md."""

from __future__ import annotations

import os

import msgpack
import zmq


def test_a_call_written_by_hand(served):
    context = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.connect(f"ipc://{served.run}/casd.sock")
    id = os.urandom(16)
    sock.send_multipart([msgpack.packb([1, id, 0, 0]), msgpack.packb({"op": "cas.ref_list", "prefix": "3"})])
    names = []
    while True:
        assert sock.poll(10_000)
        header, body = map(msgpack.unpackb, sock.recv_multipart())
        assert header[:2] == [1, id]
        if header[3] == 18:
            break
        assert header[3] == 16
        names.append(body["name"])
    assert names == ["ref-0", "ref-1", "ref-2"]
    context.destroy(0)
