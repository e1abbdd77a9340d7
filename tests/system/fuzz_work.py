"""Runs in the machine, with Volt's modules: random and mutated messages to a daemon's ZeroMQ socket.

fuzz_work.py SITE DAEMON COUNT SEED. Prints one JSON object: how many answers of each kind came, and the errors' codes.
"""

import json
import os
import random
import sys
from collections import Counter

sys.path.append(sys.argv[1])

import msgspec
import zmq

from volt_common.api import cas, ctr
from volt_common.errors import BY_CODE
from volt_common.wire import Kind, decode_header, encode, encode_header

SPEC = ctr.Spec(image="debian:test", args=["/bin/true"], env={"A": "b"}, binds=[ctr.Bind("/srv", "/srv", True)])
SEEDS = {
    "ctrd": [
        encode(call)
        for call in (
            ctr.Create(name="fuzz", spec=SPEC),
            ctr.Start(name="fuzz"),
            ctr.Stop(name="fuzz", seconds=0),
            ctr.Restart(name="fuzz", seconds=0),
            ctr.Kill(name="fuzz", signal="TERM"),
            ctr.Pause(name="fuzz"),
            ctr.Resume(name="fuzz"),
            ctr.Delete(name="fuzz", force=True),
            ctr.List(),
            ctr.Inspect(name="fuzz"),
            ctr.Wait(name="fuzz"),
            ctr.Events(name="fuzz"),
            ctr.Explain(name="fuzz"),
        )
    ],
    "casd": [
        encode(call)
        for call in (
            cas.RefSet(name="fuzz/a", kind="blob", digest="0" * 64),
            cas.RefGet(name="images/debian/test"),
            cas.RefList(prefix="images"),
            cas.RefDelete(name="fuzz/a"),
            cas.Ls(tree="images/debian/test", path=b"etc"),
            cas.View(tree="0" * 64, form=cas.Form.FULL),
        )
    ],
}


def value(rng, depth=0):
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind < 6:
        return (None, True, rng.random(), rng.randrange(-(1 << 63), 1 << 64), rng.randbytes(9), "\u00e4" * kind)[kind]
    if kind < 8:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {str(rng.randrange(99)): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def message(rng, seeds):
    how = rng.randrange(8)
    if how == 0:
        body = rng.randbytes(rng.randrange(120))
    elif how == 1:
        body = msgspec.msgpack.encode(value(rng))
    elif how == 2:  # of the right form, with a wrong value
        fields = msgspec.msgpack.decode(rng.choice(seeds))
        fields[rng.choice(list(fields))] = value(rng)
        body = msgspec.msgpack.encode(fields)
    else:
        changed = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 5)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        body = bytes(changed[: rng.randrange(len(changed) + 1)] if how == 3 else changed)
    header = encode_header(Kind.CALL, rng.randbytes(16), 2000)
    if not rng.randrange(8):
        header = rng.choice([rng.randbytes(30), header[:-1] + bytes([rng.randrange(128)])])
    return [header, body]


def main():
    daemon, count, seed = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    rng = random.Random(seed)
    sock = zmq.Context().socket(zmq.DEALER)
    sock.connect(f"ipc:///run/volt/{daemon}.sock")
    kinds, codes = Counter(), Counter()

    def take(patience):
        while sock.poll(patience):
            header, body = sock.recv_multipart()
            kind = Kind(decode_header(header).kind)
            kinds[kind.name] += 1
            if kind is Kind.ERROR:
                codes[msgspec.msgpack.decode(body)["code"]] += 1

    for number in range(count):
        sock.send_multipart(message(rng, SEEDS[daemon]))
        take(2 if number % 20 == 0 else 0)
    take(3000)
    unknown = sorted(set(codes) - set(BY_CODE))
    print(json.dumps({"kinds": kinds, "codes": codes, "unknown": unknown, "pid": os.getpid()}))


main()
