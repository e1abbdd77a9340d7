"""The codec alone: what is no message is Malformed, whatever it is."""

from __future__ import annotations

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volt_common.api import cas, ctr
from volt_common.errors import Malformed, VoltError
from volt_common.wire import (
    MAX_PACKET,
    Kind,
    decode_header,
    encode,
    encode_header,
    join_packet,
    new_id,
    split_packet,
)
from volt_common.wire.zmtp import GREETING, Receiver, frame, message

DECODERS = [
    msgspec.msgpack.Decoder(union)
    for union in (cas.Interface, cas.Descriptors, ctr.Interface, ctr.Descriptors, cas.Batch)
]


def test_a_packet_is_split_where_its_header_ends():
    for deadline in (0, 1, 127, 128, 255, 256, 65535, 65536, 7 * 24 * 3600 * 1000):
        for body in (b"", b"\x80", b"x" * 1000):
            id = new_id()
            header, rest = split_packet(join_packet(encode_header(Kind.CALL, id, deadline), body))
            assert (header.id, header.deadline_ms, bytes(rest)) == (id, deadline, body)


def test_a_packet_too_large_is_not_sent():
    with pytest.raises(Malformed):
        join_packet(encode_header(Kind.CALL, new_id()), bytes(MAX_PACKET))


@pytest.mark.parametrize(
    "header",
    [
        [2, b"x" * 16, 0, 0],
        [1, b"x" * 15, 0, 0],
        [1, b"x" * 16, -1, 0],
        [1, b"x" * 16, 1 << 60, 0],
        [1, b"x" * 16, 0],
        [1, b"x" * 16, 0, 0, 0],
        [1, "x" * 16, 0, 0],
        {"version": 1},
        1,
        None,
    ],
)
def test_headers_that_are_none(header):
    with pytest.raises(Malformed):
        decode_header(msgpack.packb(header))


def test_deep_nesting_is_refused_not_followed():
    with pytest.raises(Malformed):
        decode_header(b"\x91" * 60)
    for decoder in DECODERS:
        with pytest.raises((msgspec.MsgspecError, RecursionError)):
            decoder.decode(b"\x91" * 100_000)
        with pytest.raises((msgspec.MsgspecError, RecursionError)):
            decoder.decode(b"\x81\xa1x" * 100_000)


@settings(max_examples=3000, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data):
    for decode in (decode_header, split_packet):
        try:
            decode(data)
        except VoltError:
            pass
    for decoder in DECODERS:
        try:
            decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass


SAMPLES = [
    encode(cas.RefSet(name="a/b", kind="tree", digest="0" * 64)),
    encode(cas.Ls(tree="x", path=b"y")),
    encode(ctr.Create(name="web", spec=ctr.Spec(image="debian:12", binds=[ctr.Bind("/a", "/b")]))),
    encode(cas.Batch(nodes=[cas.Node(b"x", 0o100644, 0, 0, 0, True)])),
    encode(ctr.Exec(name="web", args=["true"])),
]


@settings(max_examples=3000, deadline=None)
@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=8))
def test_samples_with_bytes_changed(sample, changes):
    data = bytearray(sample)
    for at, value in changes:
        data[at % len(data)] = value
    for decoder in DECODERS:
        try:
            decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=700), min_size=1, max_size=3), max_size=5), st.integers(1, 50))
def test_zmtp_messages_arrive_however_they_are_cut(messages, size):
    stream = GREETING + b"".join(message(tuple(parts)) for parts in messages)
    receiver, got = Receiver(), []
    for at in range(0, len(stream), size):
        got += receiver.feed(stream[at : at + size])
    assert got == messages


@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_from_a_server(data):
    for start in (b"", GREETING):
        try:
            Receiver().feed(start + data)
        except Malformed:
            pass


def test_a_frame_that_claims_too_much_is_refused_before_it_is_kept():
    with pytest.raises(Malformed):
        Receiver().feed(GREETING + b"\x02" + (1 << 40).to_bytes(8, "big"))
    with pytest.raises(Malformed):
        Receiver().feed(GREETING + frame(b"x", True) * 20)
