"""A stream gives the bytes that went in, or says what is wrong with it."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from typing import BinaryIO

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.casd.archives import refusal, through_pipe

from volt_casd.decompress import WINDOW_LIMIT, open_stream
from volt_common.api.cas import Compression
from volt_common.errors import Interrupted, Invalid

TEXT = b"".join(b"line %d of some text\n" % at for at in range(200_000))
NOISE = random.Random(1).randbytes(3_000_000)


def zstd(data: bytes, **options: int) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)  # type: ignore[arg-type]


def on_disk(data: bytes) -> BinaryIO:
    made = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    made.write(data)
    made.seek(0)
    return made


def unpack(data: bytes, compression: Compression = Compression.AUTO, piece: int = 1 << 20, **limits: int) -> bytes:
    with on_disk(data) as source:
        stream = open_stream(source.fileno(), compression, **limits)
        parts = []
        while part := stream.read(piece):
            parts.append(part)
        assert stream.bytes_in == len(data)
        assert stream.bytes_out == sum(map(len, parts))
        return b"".join(parts)


FORMS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("plain", bytes),
    ("gzip", gzip.compress),
    ("zstd", zstd),
    ("zstd with checksum and no size", lambda data: zstd(data, write_checksum=True, write_content_size=False)),
    ("gzip members", lambda data: gzip.compress(data[:1000]) + gzip.compress(b"") + gzip.compress(data[1000:])),
    ("zstd frames", lambda data: zstd(data[:1000]) + zstd(b"") + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd(data[1000:])),
    ("gzip padded with zeros", lambda data: gzip.compress(data) + bytes(300_000)),
]


@pytest.mark.parametrize("form", [form for _, form in FORMS], ids=[name for name, _ in FORMS])
@pytest.mark.parametrize("data", [TEXT, NOISE, b"x"], ids=["text", "noise", "short"])
def test_every_form_is_known_by_its_first_bytes(form: Callable[[bytes], bytes], data: bytes) -> None:
    assert unpack(form(data)) == data
    assert through_pipe(form(data), lambda fd: open_stream(fd).read(len(data) + 1)) == data


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_small_reads_see_the_same_bytes(piece: int) -> None:
    for _, form in FORMS:
        assert unpack(form(TEXT[:5000]), piece=piece) == TEXT[:5000]


def test_an_empty_stream_is_plain_and_empty() -> None:
    assert unpack(b"") == b""


@pytest.mark.parametrize(
    ("compression", "good", "bad"),
    [
        (Compression.GZIP, gzip.compress(b"x"), zstd(b"x")),
        (Compression.ZSTD, zstd(b"x"), gzip.compress(b"x")),
    ],
)
def test_a_stated_form_is_not_guessed(compression: Compression, good: bytes, bad: bytes) -> None:
    assert unpack(good, compression) == b"x"
    assert "damaged" in refusal(lambda: unpack(bad, compression))
    assert "cut short" in refusal(lambda: unpack(b"", compression))
    assert unpack(good, Compression.NONE) == good


@pytest.mark.parametrize("form", [gzip.compress, zstd, FORMS[3][1]], ids=["gzip", "zstd", "zstd with checksum"])
def test_a_stream_cut_anywhere_is_refused(form: Callable[[bytes], bytes]) -> None:
    whole = form(TEXT[:400_000])
    cuts = [*range(4, 40), *range(40, len(whole), len(whole) // 60), *range(len(whole) - 12, len(whole))]
    for cut in cuts:
        assert "cut short" in refusal(lambda cut=cut: unpack(whole[:cut])), cut  # type: ignore[misc]


def test_a_second_member_that_is_cut_is_refused() -> None:
    for form in (gzip.compress, zstd):
        one, two = form(TEXT[:1000]), form(TEXT[1000:2000])
        assert "cut short" in refusal(lambda: unpack(one + two[:-3]))
        assert "cut short" in refusal(lambda: unpack(one + two[:2]))


def test_what_follows_a_stream_must_be_one() -> None:
    assert "no member" in refusal(lambda: unpack(gzip.compress(TEXT) + b"junk"))
    assert "follow its padding" in refusal(lambda: unpack(gzip.compress(TEXT) + bytes(9) + gzip.compress(TEXT)))
    assert "no frame" in refusal(lambda: unpack(zstd(TEXT) + b"junk, more than a header"))


def test_a_wrong_checksum_is_refused() -> None:
    packed = bytearray(gzip.compress(TEXT))
    packed[-8] ^= 1
    assert "damaged" in refusal(lambda: unpack(bytes(packed)))
    packed = bytearray(FORMS[3][1](TEXT))
    packed[-1] ^= 1
    assert "damaged" in refusal(lambda: unpack(bytes(packed)))


@given(st.integers(0, 2), st.integers(4, 10_000), st.integers(1, 255))
@settings(max_examples=150, deadline=None, database=None)
def test_damage_is_invalid_or_harmless_and_nothing_else(which: int, at: int, flip: int) -> None:
    packed = bytearray([gzip.compress, zstd, FORMS[3][1]][which](TEXT[:300_000]))
    packed[at % len(packed)] ^= flip
    try:
        unpack(bytes(packed), (Compression.GZIP, Compression.ZSTD, Compression.ZSTD)[which], max_bytes=10_000_000)
    except Invalid:
        pass


@pytest.mark.parametrize(("magic", "name"), [(b"\xfd7zXZ\0", "xz"), (b"BZh91AY&SY", "bzip2")])
def test_other_compressions_are_refused_by_name(magic: bytes, name: str) -> None:
    assert name in refusal(lambda: unpack(magic + bytes(100)))


def test_more_than_max_bytes_is_refused() -> None:
    for data in (TEXT, gzip.compress(TEXT), zstd(TEXT)):
        assert unpack(data, max_bytes=len(TEXT)) == TEXT
        assert "larger than" in refusal(lambda: unpack(data, max_bytes=len(TEXT) - 1))


def drain(fd: int) -> int:
    stream, buffer = open_stream(fd), memoryview(bytearray(1 << 20))
    while stream.readinto(buffer):
        pass
    return stream.bytes_out


def test_a_bomb_is_refused_and_plain_zeros_are_not() -> None:
    # Frames of blocks that repeat one byte: 128 KiB from four bytes.
    frame = zstd_rle_frame(blocks=8000)
    with on_disk(frame) as source:
        assert "compression bomb" in refusal(lambda: drain(source.fileno()))
    zeros = zlib.compressobj(9, wbits=31)
    member = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(40)) + zeros.flush()
    with on_disk(gzip.compress(member * 200, 9)) as source:  # a bomb in a bomb is just bytes
        assert drain(source.fileno()) == len(member) * 200
    with on_disk(member) as source:  # 40 MiB of zeros are nobody's attack
        assert drain(source.fileno()) == 40 << 20


def zstd_rle_frame(blocks: int) -> bytes:
    header = b"\x28\xb5\x2f\xfd\x00\x38"  # no content size, a window of 128 KiB
    size = 128 << 10
    block = (size << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (size << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return header + block * (blocks - 1) + last


def test_a_window_over_the_limit_is_refused() -> None:
    def header(exponent: int, mantissa: int) -> bytes:
        return b"\x28\xb5\x2f\xfd\x00" + bytes([exponent << 3 | mantissa]) + b"\x09\0\0x"

    assert WINDOW_LIMIT == 1 << (17 + 10)
    assert unpack(header(17, 0)) == b"x"
    assert "window of 144 MiB" in refusal(lambda: unpack(header(17, 1)))
    assert "window" in refusal(lambda: unpack(header(31, 7)))
    single = b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little")
    assert "window" in refusal(lambda: unpack(single + bytes(8)))


def test_the_commands_gzip_and_zstd_are_understood() -> None:
    for command in (["gzip", "-1"], ["zstd", "-q", "-T2"], ["zstd", "-q", "--long=27"]):
        packed = subprocess.run(command, input=TEXT, capture_output=True, check=True).stdout
        assert unpack(packed) == TEXT


def test_a_descriptor_that_does_not_block_is_waited_for() -> None:
    def use(fd: int) -> bytes:
        os.set_blocking(fd, False)
        return open_stream(fd).read(len(TEXT))

    assert through_pipe(gzip.compress(TEXT), use) == TEXT


def test_a_wait_for_a_pipe_can_be_ended() -> None:
    reading, writing = os.pipe()
    cancel = os.eventfd(1)
    try:
        with pytest.raises(Interrupted):
            open_stream(reading, cancel=cancel)
    finally:
        for fd in (reading, writing, cancel):
            os.close(fd)


def test_a_descriptor_that_cannot_be_read_is_invalid() -> None:
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert "cannot be read" in refusal(lambda: open_stream(fd))
    finally:
        os.close(fd)
