"""What meets a file system without inodes left: `python casd_inodes_work.py STORE SOURCE`. Prints `ok`."""

from __future__ import annotations

import sys
from pathlib import Path

from casd_full_work import exhausts, from_tar, snapshot

from volt_casd.builder import build_directory
from volt_casd.store import Store
from volt_casd.verify import Verification


def main(path: str, source: str) -> None:
    top = Path(path, "cas")
    with Store(str(top)) as store:
        build_directory(store, f"{source}/small", "keep/small")
        before = snapshot(top)
        exhausts(lambda: build_directory(store, f"{source}/many", "no/many"))
        assert snapshot(top) == before
        exhausts(lambda: from_tar(store, f"{source}/many.tar"))
        assert snapshot(top) == before
        assert [bad for bad in Verification(store).run() if bad] == []
        build_directory(store, f"{source}/large", "large")
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
