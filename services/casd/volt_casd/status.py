"""What is in the store, in numbers. A directory that has not changed since it was counted is not read again."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from volt_casd import faults
from volt_common.api.cas import StoreStatus

if TYPE_CHECKING:
    from volt_casd.store import Store


class Counts:
    """Objects and their bytes, remembered by directory and its mtime."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int, int]] = {}
        self._lock = threading.Lock()

    def of(self, path: str) -> tuple[int, int]:
        """(files, bytes) of the 256 directories below `path`. Raises OSError."""
        files = size = 0
        with self._lock:
            for index in range(256):
                count, total = self._directory(os.path.join(path, f"{index:02x}"))
                files += count
                size += total
        return files, size

    def _directory(self, path: str) -> tuple[int, int]:
        changed = os.stat(path).st_mtime_ns
        known = self._known.get(path)
        if known is not None and known[0] == changed:
            return known[1], known[2]
        files, size = count_files(path)
        self._known[path] = changed, files, size
        return files, size


def count_files(path: str) -> tuple[int, int]:
    """(files, bytes) in one directory. Raises OSError."""
    files = size = 0
    with os.scandir(path) as found:
        for item in found:
            try:
                size += item.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
            files += 1
    return files, size


def status(store: Store, counts: Counts) -> StoreStatus:
    """Raises VoltError, Corrupt (a ref)."""
    try:
        objects, object_bytes = counts.of(store.objects.path)
        trees, tree_bytes = counts.of(store.trees.path)
        refs = list(store.refs.under())
        views = [known for name in store.views.names() if (known := store.views.known(name)) is not None]
        quarantined, _ = count_files(os.path.join(store.path, "quarantine"))
        space = os.statvfs(store.path)
    except OSError as error:
        raise faults.of_os(error, "counting") from error
    return StoreStatus(
        objects=objects,
        object_bytes=object_bytes,
        trees=trees,
        tree_bytes=tree_bytes,
        refs=len(refs),
        logical_bytes=sum(ref.size for ref in refs),
        views=len(views),
        view_bytes=sum(view.size for view in views),
        quarantined=quarantined,
        free_bytes=space.f_bavail * space.f_frsize,
        clean=store.clean,
    )
