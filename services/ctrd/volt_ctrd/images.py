"""From the name of an image to its tree, its configuration, and the view of it that is to be mounted.

NAME[:TAG]        the ref images/NAME/TAG (a tree); image-config/NAME/TAG (a blob) is its OCI configuration
cas://DIGEST      a tree by its digest; it has no configuration
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from volt_common.api import cas, ctr
from volt_common.api.base import RefName
from volt_common.client.asyncio import AsyncClient, AsyncPacketClient
from volt_common.errors import Invalid, NotFound
from volt_common.packets import close_all

DEFAULT_TAG: Final = "latest"
MAX_CONFIG: Final = 1 << 20
REDIRECT_SINCE: Final = (6, 6)  # overlayfs with data-only layers below an erofs mount

_CAS: Final = re.compile(r"cas://([0-9a-f]{64})\Z")


class ImageConfig(msgspec.Struct, frozen=True):
    """What an image says about how it is run."""

    entrypoint: list[str] = []
    cmd: list[str] = []
    env: dict[str, str] = {}
    user: str = ""
    workdir: str = ""
    stop_signal: str = ""


class Image(msgspec.Struct, frozen=True):
    tree: str
    config: ImageConfig = ImageConfig()


class _Payload(msgspec.Struct, frozen=True, rename="pascal"):
    """`config` of an OCI image configuration; what Volt has no use for is left out."""

    entrypoint: ctr.Arguments | None = None
    cmd: ctr.Arguments | None = None
    env: Annotated[list[ctr.Argument], Meta(max_length=1024)] | None = None
    user: ctr.User | None = None
    working_dir: Annotated[str, Meta(max_length=4095, pattern=r"\A(/[^\0]*)?\Z")] | None = None
    stop_signal: ctr.Signal | None = None


class _OciConfig(msgspec.Struct, frozen=True):
    config: _Payload | None = None


def ref_of(image: str) -> str:
    """NAME/TAG of an image's name, which is what follows `images/` in its ref. Raises Invalid."""
    head, slash, last = image.rpartition("/")
    last, _, tag = last.partition(":")
    ref = f"{head}{slash}{last}/{tag or DEFAULT_TAG}"
    try:
        return msgspec.convert(ref, type=RefName)
    except msgspec.ValidationError:
        raise Invalid(f"{image} is no image's name", hint="write NAME, NAME:TAG or cas://DIGEST") from None


def tree_of(image: str) -> str | None:
    """The digest in `cas://DIGEST`; None for any other name. Raises Invalid for one that is cut short."""
    match = _CAS.match(image)
    if match is None and image.startswith("cas:"):
        raise Invalid(f"{image} is no tree", hint="write cas:// and 64 hexadecimal digits")
    return match[1] if match else None


def parse_config(data: bytes) -> ImageConfig:
    """From the bytes of an OCI image configuration. Raises Invalid."""
    try:
        found = msgspec.json.decode(data, type=_OciConfig).config or _Payload()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the image's configuration can't be used: {error}") from None
    env = {}
    for line in found.env or []:
        key, equals, value = line.partition("=")
        if not key or not equals:
            raise Invalid(f"the image's environment holds {line!r}, which is no NAME=VALUE")
        env[key] = value
    return ImageConfig(
        entrypoint=found.entrypoint or [],
        cmd=found.cmd or [],
        env=env,
        user=found.user or "",
        workdir=found.working_dir or "",
        stop_signal=found.stop_signal or "",
    )


def form_for(release: str) -> cas.Form:
    """Which form of a view a kernel of this release can mount."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) >= REDIRECT_SINCE:
        return cas.Form.REDIRECT
    return cas.Form.FULL


class Store:
    """What ctrd asks of casd. The connection lasts no longer than the questions, so that neither daemon keeps
    the other from going idle."""

    def __init__(self, run: str, release: str | None = None) -> None:
        self._run = run
        self._form = form_for(release or os.uname().release)
        self._client = AsyncClient("casd", run=run)
        self._askers = 0
        self._resting: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[AsyncClient]:
        """One connection for several questions."""
        self._askers += 1
        try:
            yield self._client
        finally:
            self._askers -= 1
            if not self._askers:  # beside: who asked need not wait for it, nor be cancelled in it
                self._resting = asyncio.get_running_loop().create_task(self._client.rest())

    async def close(self) -> None:
        await self._client.close()

    async def resolve(self, image: str) -> Image:
        """Raises NotFound, Invalid."""
        tree = tree_of(image)
        if tree is not None:
            return Image(tree)
        name = ref_of(image)
        ref, blob = await asyncio.gather(self._ref(f"images/{name}"), self._ref(f"image-config/{name}"))
        if ref is None:
            hint = "volt image list shows those that are here; volt image import adds one"
            raise NotFound(kind="image", name=image, hint=hint)
        if ref.kind != "tree":
            raise Invalid(f"the image {image} is a {ref.kind}, not a tree")
        return Image(ref.digest) if blob is None else Image(ref.digest, parse_config(await self._read(blob)))

    async def _ref(self, name: str) -> cas.Ref | None:
        async with self.asking() as client:
            try:
                return await client.call(cas.RefGet(name=name))
            except NotFound:
                return None

    async def _read(self, blob: cas.Ref) -> bytes:
        _, fds = await AsyncPacketClient("casd", run=self._run).call(cas.Open(digest=blob.digest))
        with open(fds[0], "rb") as file:
            close_all(fds[1:])
            data = file.read(MAX_CONFIG + 1)
        if len(data) > MAX_CONFIG:
            raise Invalid(f"the image's configuration has more than {MAX_CONFIG} bytes")
        return data

    async def view(self, tree: str) -> cas.ViewReady:
        """Have the view made. Raises NotFound, Exhausted."""
        async with self.asking() as client:
            return await client.call(cas.View(tree=tree, form=self._form))

    async def hold(self, name: str, tree: str) -> None:
        """Keep a tree as long as the container `name` is there, whatever becomes of the image's own ref."""
        async with self.asking() as client:
            await client.call(cas.RefSet(name=f"containers/{name}", kind="tree", digest=tree))

    async def release(self, name: str) -> None:
        """The opposite of `hold`; none held is as good."""
        async with self.asking() as client:
            with contextlib.suppress(NotFound):
                await client.call(cas.RefDelete(name=f"containers/{name}"))
