"""What an errno of the store's disk means to a caller."""

from __future__ import annotations

import errno

from volt_common.errors import Exhausted, VoltError

_FULL = {errno.ENOSPC: "disk space", errno.EDQUOT: "disk quota", errno.EFBIG: "room for so large a file"}
_BUSY = {errno.EMFILE: "descriptors", errno.ENFILE: "descriptors", errno.ENOMEM: "memory"}


def of_os(error: OSError, doing: str) -> VoltError:
    """The typed error for a failed system call on the store."""
    text = f"{doing}: {error.strerror or error}"
    code = error.errno or 0
    if code in _FULL:
        return Exhausted(text, resource=_FULL[code], hint="free some space, or move the store to a larger disk")
    if code in _BUSY:
        return Exhausted(text, resource=_BUSY[code], hint="try again when fewer calls are under way")
    if code in (errno.EIO, errno.EROFS):
        return VoltError(f"the store's disk fails: {text}", hint="see the kernel's log (journalctl -k)")
    return VoltError(f"the store: {text}")
