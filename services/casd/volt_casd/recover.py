"""What an open does after a stop: empty the staging directory, and, if the stop was unclean, check what it left.

Only objects of mode 0400 can be bad: a durable one was covered by a syncfs before its mode said so. The check
reads every object's mode (10 s for a million, cold) and the bytes of those few.
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING, NamedTuple

from volt_casd import faults
from volt_casd.objects import DURABLE
from volt_common.errors import Interrupted

if TYPE_CHECKING:
    from volt_casd.ingest import Cancelled
    from volt_casd.store import Store


class Recovered(NamedTuple):
    """Objects that were not known durable: found good, and dropped."""

    kept: int
    dropped: int


def empty_staging(store: Store) -> None:
    """Remove what was never acknowledged. Nobody else may use the store yet. Raises OSError."""
    with os.scandir(store.staging) as found:
        for item in found:
            if item.is_dir(follow_symlinks=False):
                shutil.rmtree(item.path)
            else:
                os.unlink(item.path)


def recover(store: Store, cancelled: Cancelled) -> Recovered:
    """Keep or drop what is not known durable. Safe beside any other use of the store. Raises VoltError."""
    kept = dropped = 0
    try:
        for objects in (store.objects, store.trees):
            for digest, status in objects.names():
                if cancelled():
                    raise Interrupted(signal="the daemon's stop")
                if stat.S_IMODE(status.st_mode) == DURABLE:
                    continue
                if objects.recheck(digest):
                    kept += 1
                elif not objects.exists(digest):
                    dropped += 1
    except OSError as error:
        raise faults.of_os(error, "checking the store") from error
    return Recovered(kept, dropped)
