"""Makes archives that no store may take: `bad_tars.py DIR`. Standard library only."""

from __future__ import annotations

import io
import os
import sys
import tarfile

FILE, LINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
ARCHIVES = {
    "dotdot": [("../evil", FILE, "evil")],
    "inner-dotdot": [("a/../../evil", FILE, "evil")],
    "absolute": [("/etc/evil", FILE, "evil")],
    "through-a-symlink": [("out", LINK, "/tmp"), ("out/evil", FILE, "evil")],
    "link-out": [("shadow", HARD, "../../../etc/shadow")],
}


def make(top: str) -> None:
    for name, members in ARCHIVES.items():
        with tarfile.open(f"{top}/{name}.tar", "w", format=tarfile.PAX_FORMAT) as archive:
            for path, kind, text in [("good", FILE, f"{name} " * 1000), *members]:
                member = tarfile.TarInfo(path)
                member.type = kind
                if kind == FILE:
                    member.size = len(text)
                    archive.addfile(member, io.BytesIO(text.encode()))
                else:
                    member.linkname = text
                    archive.addfile(member)
    with tarfile.open(f"{top}/whole.tar", "w") as archive:
        for index in range(20):
            member = tarfile.TarInfo(f"file-{index}")
            member.size = 50_000
            archive.addfile(member, io.BytesIO(os.urandom(50_000)))
    with open(f"{top}/whole.tar", "rb") as whole, open(f"{top}/cut.tar", "wb") as cut:
        cut.write(whole.read(777_777))


if __name__ == "__main__":
    make(sys.argv[1])
