"""A peer of pyzmq and msgpack alone, written from docs/protocol.md: makes, runs, awaits and deletes a container.

`independent_work.py ZMQ_DIR MSGPACK_DIR IMAGE`; prints the exit that it was told.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["MSGPACK_PUREPYTHON"] = "1"
sys.path += sys.argv[1:3]

import msgpack
import zmq

VERSION, CALL, DONE, ERROR = 1, 0, 18, 19


class Peer:
    def __init__(self, path: str) -> None:
        self.socket = zmq.Context().socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(f"ipc://{path}")

    def call(self, op: str, **fields: object) -> dict:
        id = os.urandom(16)
        header, body = [VERSION, id, 20_000, CALL], {"op": op, **fields}
        self.socket.send_multipart([msgpack.packb(header), msgpack.packb(body)])
        while self.socket.poll(20_000):
            header, body = map(msgpack.unpackb, self.socket.recv_multipart())
            assert header[:3] == [VERSION, id, 0], header
            if header[3] == DONE:
                return body
            if header[3] == ERROR:
                raise SystemExit(f"{op}: {body}")
        raise SystemExit(f"{op}: no answer")


def main(image: str) -> None:
    peer = Peer("/run/volt/ctrd.sock")
    spec = {"image": image, "args": ["sh", "-c", "exit 9"], "env": {"A": "b"}}
    made = peer.call("ctr.create", name="independent", spec=spec)
    assert (made["name"], made["state"]) == ("independent", "stopped"), made
    peer.call("ctr.start", name="independent")
    ended = peer.call("ctr.wait", name="independent")
    shown = peer.call("ctr.inspect", name="independent")
    assert (shown["state"], shown["spec"]["env"]) == ("stopped", {"A": "b"}), shown
    assert peer.call("ctr.delete", name="independent") == {}
    print(json.dumps({"exit": ended, "modules": sorted(m for m in sys.modules if m.startswith(("volt", "msgspec")))}))


if __name__ == "__main__":
    main(sys.argv[3])
