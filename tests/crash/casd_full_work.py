"""What meets a full disk: `python casd_full_work.py STORE SOURCE`, STORE on a file system of its own, and small.

Every call must end in Exhausted, leave nothing behind, and the store must go on. It prints `ok` at its end.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from volt_casd.builder import Builder, build_directory
from volt_casd.store import Store
from volt_casd.verify import Verification
from volt_common.api.cas import Compression, Form
from volt_common.errors import Exhausted


def snapshot(path: Path) -> list[str]:
    """Every file and what it takes."""
    return sorted(f"{p.relative_to(path)} {p.stat().st_size}" for p in path.rglob("*") if p.is_file())


def exhausts(call: Callable[[], object]) -> None:
    try:
        call()
    except Exhausted as error:
        if "disk space" in str(error):
            return
        raise
    raise AssertionError("it did not fill the disk")


def from_tar(store: Store, archive: str) -> None:
    with open(archive, "rb") as file:
        builder = Builder(store, "no/tar")
        try:
            builder.tar(file.fileno(), Compression.AUTO)
        finally:
            builder.close()


def from_pipe(store: Store, data: bytes) -> None:
    reading, writing = os.pipe()

    def feed() -> None:
        with open(writing, "wb") as file:
            try:
                file.write(data)
            except BrokenPipeError:
                pass

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        store.put(reading, "no/pipe")
    finally:
        os.close(reading)
        thread.join()


def fill(path: Path) -> None:
    """Take what is left."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError:
            pass
    with open(path, "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def main(path: str, source: str) -> None:
    top = Path(path, "cas")
    with Store(str(top)) as store:
        small = build_directory(store, f"{source}/small", "keep/small")
        before = snapshot(top)
        for call in (
            lambda: build_directory(store, f"{source}/many", "no/many"),
            lambda: build_directory(store, f"{source}/large", "no/large"),
            lambda: from_tar(store, f"{source}/many.tar"),
            lambda: from_tar(store, f"{source}/large.tar"),
            lambda: from_pipe(store, os.urandom(64 << 20)),
        ):
            exhausts(call)
            assert snapshot(top) == before
        filler = Path(path, "filler")
        fill(filler)
        exhausts(lambda: store.view(bytes.fromhex(small.tree), Form.FULL))
        exhausts(lambda: store.set_ref("a/deep/name", "tree", bytes.fromhex(small.tree)))
        assert snapshot(top) == before
        assert [ref.name for ref in store.refs.under()] == ["keep/small"]
        filler.unlink()
        store.view(bytes.fromhex(small.tree), Form.FULL)
        store.set_ref("a/deep/name", "tree", bytes.fromhex(small.tree))
        assert build_directory(store, f"{source}/small").new_objects == 0
        assert [bad for bad in Verification(store).run() if bad] == []
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
