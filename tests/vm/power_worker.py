"""Changes a store until its power is cut: `power_worker.py SEED`, inside the machine.

For each change it prints `begin N NAME`, and when casd has acknowledged it `done N NAME DIGEST` (`-`: deleted).
After each it waits for a line from the host, which notes meanwhile how far the disk's log is. What is stored comes
from a tmpfs, so that the disk is written by casd alone.
"""

from __future__ import annotations

import glob
import io
import os
import random
import shutil
import sys
import tarfile

sys.path.extend(glob.glob("/usr/lib/volt/lib/python3*/site-packages"))

from volt.build import build_directory
from volt.walk import Walk
from volt_common.api import cas
from volt_common.client.blocking import Client, PacketClient

NAMES = [f"cut/{letter}/{number}" for letter in "abcd" for number in range(3)]
SOURCE = "/run/power-cut-source"


class Changes:
    """Each method makes one change, and returns the digest that the ref then has."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.shared = [chance.randbytes(chance.choice((10, 3000, 5000, 70_000))) for _ in range(30)]
        self.client = Client("casd")
        self.packets = PacketClient("casd")
        self.refs = {ref.name: ref for ref in self.client.stream(cas.RefList(prefix="cut"))}

    def contents(self) -> list[bytes]:
        """Of some files: half of it is nowhere in the store yet."""
        sizes = (0, 1, 4095, 4096, 20_000, 1_500_000)
        new = [self.chance.randbytes(self.chance.choice(sizes)) for _ in range(self.chance.randint(2, 12))]
        return new + self.chance.sample(self.shared, len(new))

    def put(self, name: str) -> str:
        fd = self.file(b"".join(self.contents()))
        try:
            return self.packets.call(cas.Put(ref=name), [fd])[0].digest
        finally:
            os.close(fd)

    def tar(self, name: str) -> str:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for number, data in enumerate(self.contents()):
                member = tarfile.TarInfo(f"d/{number}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        fd = self.file(stream.getvalue())
        try:
            return self.packets.call(cas.BuildTar(ref=name), [fd])[0].tree
        finally:
            os.close(fd)

    def directory(self, name: str) -> str:
        shutil.rmtree(SOURCE, ignore_errors=True)
        os.makedirs(f"{SOURCE}/below")
        for number, data in enumerate(self.contents()):
            with open(f"{SOURCE}/{'below/' * (number % 2)}{number}", "wb") as file:
                file.write(data)
        return build_directory(self.packets, Walk(SOURCE), name).tree

    def again(self, name: str) -> str:
        other = self.chance.choice(sorted(self.refs))
        kind, digest = self.refs[other].kind, self.refs[other].digest
        return self.client.call(cas.RefSet(name=name, kind=kind, digest=digest)).digest

    def delete(self, name: str) -> str:
        self.client.call(cas.RefDelete(name=name))
        return "-"

    def file(self, data: bytes) -> int:
        with open("/run/power-cut-file", "wb") as file:
            file.write(data)
        return os.open("/run/power-cut-file", os.O_RDONLY)

    def one(self, name: str) -> str:
        kinds = [self.put, self.tar, self.directory, self.tar, self.directory]
        if self.refs:
            kinds.append(self.again)
        if name in self.refs:
            kinds.append(self.delete)
        digest = self.chance.choice(kinds)(name)
        if digest == "-":
            del self.refs[name]
        else:
            self.refs[name] = self.client.call(cas.RefGet(name=name))
        return digest


def main(seed: str) -> None:
    changes = Changes(random.Random(seed))
    number = 0
    while True:
        name = changes.chance.choice(NAMES)
        print("begin", number, name, flush=True)
        sys.stdin.readline()
        print("done", number, name, changes.one(name), flush=True)
        sys.stdin.readline()
        number += 1


if __name__ == "__main__":
    main(sys.argv[1])
