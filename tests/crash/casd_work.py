"""What a process that is to be killed does with a store: `python casd_work.py STORE SOURCE`.

It prints a line after each thing it may count on: what was acknowledged must be there afterwards.
"""

from __future__ import annotations

import os
import sys

from volt_casd.builder import build_directory
from volt_casd.store import Store
from volt_common.api.cas import Form


def main(path: str, source: str) -> None:
    with Store(path) as store:
        store.recover()
        for name in ("one", "two", "three"):
            built = build_directory(store, os.path.join(source, name), f"images/{name}/1")
            print("built", f"images/{name}/1", built.tree, flush=True)
            store.view(bytes.fromhex(built.tree), Form.FULL)
        fd = os.open(os.path.join(source, "blob"), os.O_RDONLY)
        stored = store.put(fd, "blobs/b")
        print("built", "blobs/b", stored.digest.hex(), flush=True)
        store.refs.delete("images/one/1")
        print("deleted", "images/one/1", "-", flush=True)
    print("closed", "-", "-", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
