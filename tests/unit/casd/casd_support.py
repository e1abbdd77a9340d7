"""What the store's tests share: files to store, and a look at the store from outside."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from volt_casd.builder import Builder
from volt_casd.store import Store
from volt_common.api.cas import Built, Node


@contextlib.contextmanager
def opened(path: Path | str, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def put(store: Store, data: bytes, ref: str | None = None) -> bytes:
    """Store bytes through a pipe; their digest."""
    reading, writing = os.pipe()
    with open(writing, "wb") as file:
        if len(data) > 60_000:
            raise ValueError("more than a pipe holds")
        file.write(data)
    try:
        return store.put(reading, ref).digest
    finally:
        os.close(reading)


def fill(top: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return top


def node(path: bytes, mode: int, **more: object) -> Node:
    return Node(path, mode, 0, 0, 0, **more)  # type: ignore[arg-type]


ROOT = node(b"", stat.S_IFDIR | 0o755)


def build(store: Store, nodes: list[Node], fds: list[int], ref: str | None = None) -> Built:
    builder = Builder(store, ref)
    try:
        builder.take(nodes, fds)
        return builder.finish()
    finally:
        builder.close()


def object_path(store: Store | Path, digest: bytes, kind: str = "objects") -> Path:
    top = Path(store.path) if isinstance(store, Store) else store
    return top / kind / digest.hex()[:2] / digest.hex()


def problems(top: Path) -> list[str]:
    """What breaks the promises of a store that is closed and recovered."""
    found = [f"staging: {item.name}" for item in (top / "tmp").iterdir()]
    for kind in ("objects", "trees"):
        for path in (top / kind).glob("*/*"):
            if blake3(path.read_bytes()).hexdigest() != path.name:
                found.append(f"{kind}: {path.name} does not match")
            if stat.S_IMODE(path.stat().st_mode) != 0o444:
                found.append(f"{kind}: {path.name} is not known durable")
    with Store(str(top)) as store:
        for ref in store.refs.under():
            if ref.kind == "tree":
                store.require_whole(store.entries(bytes.fromhex(ref.digest)))
            elif store.objects.size(bytes.fromhex(ref.digest)) is None:
                found.append(f"ref {ref.name} names nothing")
    return found
