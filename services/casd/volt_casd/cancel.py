"""A wish to stop, that a thread at work and one that waits for a pipe both hear."""

from __future__ import annotations

import os

from volt_common.errors import Interrupted


class Cancel:
    """Not set at first. `fd` becomes readable when it is set; `close` when nobody looks any more."""

    def __init__(self) -> None:
        self._set = False
        self._fd = -1

    def __call__(self) -> bool:
        return self._set

    @property
    def fd(self) -> int:
        """An eventfd, made when first asked for."""
        if self._fd < 0:
            self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            if self._set:  # looked at after the descriptor is there: `set` may run at the same time
                os.eventfd_write(self._fd, 1)
        return self._fd

    def set(self) -> None:
        """Ask whoever works to stop. From any thread."""
        self._set = True
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)

    def check(self) -> None:
        """Raises Interrupted if it is set."""
        if self._set:
            raise Interrupted(signal="its caller")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
