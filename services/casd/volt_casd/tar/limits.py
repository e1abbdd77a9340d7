"""How much one archive, or one image's layers together, may ask for."""

from __future__ import annotations

import msgspec

from volt_common.errors import Exhausted, Invalid

ENTRY_COST = 512  # bytes of memory that a name takes, beside its own bytes


class Limits(msgspec.Struct, frozen=True):
    """The defaults let a Debian root of two million files through, and a lastlog of every possible uid.

    What is stored costs disk, which the stream's own limit bounds; these bound what a few bytes of an
    archive can make expensive: memory (names, targets, xattrs) and the hashing of holes.
    """

    file_bytes: int = 2 << 40  # of one file, with its holes
    total_bytes: int = 4 << 40  # of all files, with their holes
    metadata_bytes: int = 1 << 30


class Budget:
    """What is left of the limits; one for all layers of an image."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._metadata = limits.metadata_bytes
        self._total = limits.total_bytes

    def metadata(self, cost: int) -> None:
        """Raises Exhausted."""
        self._metadata -= cost + ENTRY_COST
        if self._metadata < 0:
            raise Exhausted(
                f"the archive's names and attributes need over {self.limits.metadata_bytes >> 20} MiB",
                resource="memory",
            )

    def file(self, size: int) -> None:
        """Raises Invalid."""
        self._total -= size
        if self._total < 0:
            raise Invalid(f"the archive's files are larger than {self.limits.total_bytes} bytes in all")
