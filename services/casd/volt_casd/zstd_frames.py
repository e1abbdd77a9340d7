"""Where the frames of a zstd stream begin and end, so that a stream that was cut short is seen as such.

The decoder in the `zstandard` package ends quietly when its input does, also in the middle of a frame.
This walk over the compressed bytes looks only at frame and block headers (RFC 8878, 3.1.1), a few bytes
in every 128 KiB.
"""

from __future__ import annotations

import enum
from typing import Final

from volt_common.errors import Invalid

MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = 0x184D2A50  # to …5F: a frame that decoders pass over
_WINDOW_DESCRIPTOR: Final = (1, 0)  # bytes of it, by the single-segment flag
_DICTIONARY_ID: Final = (0, 1, 2, 4)
_CONTENT_SIZE: Final = (0, 2, 4, 8)


class _At(enum.Enum):
    FRAME = 0
    BLOCK = 1


def is_zstd(first: bytes) -> bool:
    """Whether a stream that begins with these (at least 4) bytes is zstd."""
    return first[:4] == MAGIC or (len(first) >= 4 and int.from_bytes(first[:4], "little") & ~0xF == _SKIPPABLE)


class Frames:
    """Feed it the compressed bytes in any pieces; then `whole` says whether they end with a frame."""

    def __init__(self, window_limit: int) -> None:
        self._window_limit = window_limit
        self._at = _At.FRAME
        self._pass = 0  # bytes of a block's or checksum's content yet to come
        self._part = b""  # of a header that came in pieces
        self._checksum = 0

    @property
    def whole(self) -> bool:
        return self._at is _At.FRAME and not self._pass and not self._part

    def feed(self, data: bytes) -> None:
        """Raises Invalid for a header that is damaged, or asks for a larger window than the limit."""
        data = self._part + data
        at = 0
        while at < len(data):
            if self._pass:
                step = min(self._pass, len(data) - at)
                self._pass -= step
                at += step
                continue
            used = self._block(data, at) if self._at is _At.BLOCK else self._frame(data, at)
            if not used:
                break
            at += used
        self._part = data[at:]

    def _frame(self, data: bytes, at: int) -> int:
        """Bytes of the frame header at `at`; 0 when some of it has yet to come."""
        if len(data) - at < 5:
            return 0
        magic = int.from_bytes(data[at : at + 4], "little")
        if magic & ~0xF == _SKIPPABLE:
            if len(data) - at < 8:
                return 0
            self._pass = int.from_bytes(data[at + 4 : at + 8], "little")
            return 8
        if data[at : at + 4] != MAGIC:
            raise Invalid("the zstd stream is damaged: what follows a frame is no frame")
        descriptor = data[at + 4]
        single = descriptor >> 5 & 1
        window_at = at + 5
        content_at = window_at + _WINDOW_DESCRIPTOR[single] + _DICTIONARY_ID[descriptor & 3]
        content_bytes = _CONTENT_SIZE[descriptor >> 6] or single
        end = content_at + content_bytes
        if len(data) < end:
            return 0
        if single:
            window = int.from_bytes(data[content_at:end], "little")
        else:
            exponent, mantissa = divmod(data[window_at], 8)
            base = 1 << (10 + exponent)
            window = base + base // 8 * mantissa
        if window > self._window_limit:
            raise Invalid(
                f"the zstd stream needs a window of {window >> 20} MiB; the most is {self._window_limit >> 20}",
                hint="compress it again with zstd --long=27 or less",
            )
        self._checksum = descriptor & 4
        self._at = _At.BLOCK
        return end - at

    def _block(self, data: bytes, at: int) -> int:
        if len(data) - at < 3:
            return 0
        header = int.from_bytes(data[at : at + 3], "little")
        kind = header >> 1 & 3
        if kind == 3:
            raise Invalid("the zstd stream is damaged: a block of a reserved type")
        self._pass = 1 if kind == 1 else header >> 3  # type 1 repeats one byte
        if header & 1:  # the last of its frame
            self._pass += self._checksum
            self._at = _At.FRAME
        return 3
