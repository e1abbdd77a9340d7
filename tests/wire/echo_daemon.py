"""A daemon of casd's contract with nothing behind it, for tests of the skeleton. Its sockets are of the test.

`ref_set` counts its effects in a file, so that a test can tell once from twice; `ref_list` streams as many
items as its prefix says; `view` sleeps; `put` gives its descriptor back.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import msgspec

from volt_common.api import cas
from volt_common.api.base import Nothing
from volt_common.config import Config
from volt_common.daemon import Request, Sandbox, run
from volt_common.errors import NotFound


class Echo:
    name = "casd"
    interface = cas.Interface
    descriptors = cas.Descriptors

    def __init__(self, state: str) -> None:
        self.roles: dict[str, Any] = {}
        self._effects = os.path.join(state, "effects")

    def sandbox(self) -> Sandbox:
        return Sandbox(write=[os.path.dirname(self._effects)])

    async def start(self, config: Config) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def reload(self, config: Config) -> None:
        pass

    def busy(self) -> bool:
        return False

    async def handle(self, call: Any, request: Request) -> msgspec.Struct:
        match call:
            case cas.RefSet(name=name, digest=digest):
                fd = os.open(self._effects, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.write(fd, f"{name}\n".encode())
                os.close(fd)
                return cas.Ref(name, "blob", digest)
            case cas.RefGet(name=name):
                raise NotFound(kind="ref", name=name)
            case cas.RefList(prefix=prefix):
                for index in range(int(prefix or "0")):
                    await request.item(cas.Ref(f"ref-{index}", "blob", "0" * 64))
                return Nothing()
            case cas.View():
                await request.progress(1, 2, "asleep")
                await asyncio.sleep(3600)
            case cas.RefDelete():
                raise RuntimeError("a fault of ours")
            case cas.Ls(path=path):
                await request.item(cas.Entry(path, "file", 0o644, request.peer.uid, request.peer.gid, 0))
                return Nothing()
        return cas.StoreStatus(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, True)

    async def handle_packet(self, call: Any, request: Request) -> msgspec.Struct:
        match call:
            case cas.Put():
                request.reply_fds = request.take_fds()
                return cas.Stored("0" * 64, os.fstat(request.reply_fds[0]).st_size, True)
            case cas.Build():
                files = 0
                while True:
                    body, fds = await request.more()
                    batch = msgspec.msgpack.decode(body, type=cas.Batch)
                    for fd in fds:
                        files += 1
                        os.close(fd)
                    if batch.last:
                        return cas.Built("0" * 64, files, files, 0, 0, 0)
                    await request.item(cas.Taken(files, 0))
        raise NotFound(kind="object", name="it")


if __name__ == "__main__":
    state = sys.argv[sys.argv.index("--state") + 1]
    run(Echo(state))
