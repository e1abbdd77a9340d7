"""A store with four images, behind casd's real contract and sockets: `python fake_casd.py --listen DIR`."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from volt_common.api import cas
from volt_common.config import Config
from volt_common.daemon import Request, Sandbox, run
from volt_common.errors import NotFound

TREE = "ab" * 32
BLOB = "cd" * 32
CONFIG = b"""{"architecture": "amd64", "config": {"Entrypoint": ["/bin/serve"], "Cmd": ["--all"], "User": "www:www",
 "Env": ["PATH=/opt/bin:/bin", "MODE=a=b"], "WorkingDir": "/srv", "StopSignal": "SIGQUIT", "ExposedPorts": {}}}"""
REFS = {
    "images/debian/12": ("tree", TREE),
    "images/web/latest": ("tree", TREE),
    "image-config/web/latest": ("blob", BLOB),
    "images/team/app/v1.0": ("tree", TREE),
    "images/file/latest": ("blob", BLOB),
}


class FakeCasd:
    """Refs, views and one blob."""

    name = "casd"
    interface = cas.Interface
    descriptors = cas.Descriptors

    def __init__(self) -> None:
        self.roles: dict[str, Any] = {}
        self._refs = {name: cas.Ref(name, kind, digest) for name, (kind, digest) in REFS.items()}

    def sandbox(self) -> Sandbox:
        return Sandbox()

    async def start(self, config: Config) -> None: ...
    async def stop(self) -> None: ...
    async def reload(self, config: Config) -> None: ...

    def busy(self) -> bool:
        return False

    async def handle(self, call: cas.Interface, request: Request) -> msgspec.Struct:
        match call:
            case cas.RefGet(name=name):
                if name in self._refs:
                    return self._refs[name]
            case cas.RefSet(name=name, kind=kind, digest=digest):
                self._refs[name] = cas.Ref(name, kind, digest)
                return self._refs[name]
            case cas.RefDelete(name=name):
                if self._refs.pop(name, None):
                    return cas.Nothing()
            case cas.RefList(prefix=prefix):
                for name, ref in self._refs.items():
                    if name.startswith(prefix + "/"):
                        await request.item(ref)
                return cas.Nothing()
            case cas.View(tree=tree, form=form):
                if tree == TREE:
                    return cas.ViewReady(tree, form, 8192, "ef" * 32, 0o40755, 0, 0, 1_600_000_000_000_000_000)
        raise NotFound(kind="thing", name=str(call))

    async def handle_packet(self, call: cas.Descriptors, request: Request) -> msgspec.Struct:
        assert isinstance(call, cas.Open)
        if call.digest != BLOB:
            raise NotFound(kind="object", name=call.digest)
        read, write = os.pipe()
        os.write(write, CONFIG)
        os.close(write)
        request.reply_fds = [read]
        return cas.Opened(len(CONFIG))


if __name__ == "__main__":
    run(FakeCasd())
