"""Whatever reads bytes of strangers, under a fuzzer that is guided by coverage: nothing but the promised errors.

python tests/wire/fuzz_parsers.py [-atheris_runs=N] [CORPUS]. The first byte of an input chooses the parser. A finding
ends the program with its traceback; libFuzzer's other options hold too.
"""

import io
import json
import sys

import atheris

with atheris.instrument_imports():
    from volt_casd import tree
    from volt_casd.tar import reader
    from volt_common.wire import decode_header, split_packet, zmtp
    from volt_ctr_launch import config, execute, files, policy

import msgspec

from volt_common.api import cas, ctr
from volt_common.errors import VoltError
from volt_ctr_launch.errors import Refusal

CONTRACTS = [
    msgspec.msgpack.Decoder(kind)
    for kind in (cas.Interface, cas.Descriptors, cas.Batch, ctr.Interface, ctr.Descriptors)
]


def receive(data: bytes) -> None:
    """The command's ZMTP, past the greeting, in pieces whose sizes the input says."""
    receiver = zmtp.Receiver()
    receiver.feed(zmtp.GREETING)
    at = 0
    while at < len(data):
        size = 1 + data[at] % 64
        receiver.feed(data[at + 1 : at + 1 + size])
        at += 1 + size


def contracts(data: bytes) -> None:
    for decoder in CONTRACTS:
        try:
            decoder.decode(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):  # as the daemons take them
            continue


def launcher(data: bytes) -> None:
    """config.json and the request of an exec, as root reads them."""
    value = files.parse_json(data, "an input")
    try:
        config.parse(value, "web")
    except Refusal:
        if isinstance(value, dict):
            execute.parse(value)


def host_policy(data: bytes) -> None:
    policy.parse(files.parse_json(data, "an input"), "an input")


def archive(data: bytes) -> None:
    for _, body in reader.members(io.BytesIO(data)):
        for _ in body.chunks():
            pass


PARSERS = (decode_header, split_packet, receive, contracts, launcher, host_policy, tree.decode, archive)
SEEDS = (
    bytes([4]) + json.dumps({"version": 1, "name": "web", "args": ["a"], "env": {}, "user": "", "tty": False}).encode(),
    bytes([5]) + json.dumps({"ids": {"base": 524288, "ranges": 4}, "binds": {"allow": ["/srv"]}}).encode(),
    bytes([6]) + tree.encode([tree.Entry(b"", 0o40755, 0, 0, 0), tree.Entry(b"a", 0o100644, 0, 0, 0)]),
)


def one(data: bytes) -> None:
    """One input."""
    if not data:
        return
    try:
        PARSERS[data[0] % len(PARSERS)](data[1:])
    except (VoltError, Refusal):
        pass


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
