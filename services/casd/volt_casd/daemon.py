"""casd on its sockets: each call of the contract, and which call of the store answers it.

The store blocks, so it works in threads: long work (builds, views, verification) in one pool, the rest in
another, so that a build that waits for its caller's disk keeps nobody from a look at a ref.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar, assert_never

import msgspec

from volt_casd import present, roles, verify
from volt_casd.builder import Builder
from volt_casd.cancel import Cancel
from volt_casd.status import Counts, status
from volt_casd.store import Store
from volt_common import paths
from volt_common.api import cas
from volt_common.api.base import Describe, Nothing
from volt_common.config import Config
from volt_common.daemon import Request, Sandbox, run
from volt_common.errors import Malformed, NotFound, VoltError
from volt_common.packets import close_all

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("volt")

_LONG: Final = 16  # builds, views and verifications at once
_SHORT: Final = 4
_PROGRESS_SECONDS: Final = 0.1


class Casd:
    """The daemon of the store at `path`."""

    name = "casd"
    interface = cas.Interface
    descriptors = cas.Descriptors

    def __init__(self, path: str = paths.CAS) -> None:
        self.roles = dict(roles.ROWS)
        self._path = path
        self._batches = msgspec.msgpack.Decoder(cas.Batch)
        self._stopping = Cancel()
        self._recovery: asyncio.Task[None] | None = None

    def sandbox(self) -> Sandbox:
        os.makedirs(self._path, mode=0o700, exist_ok=True)
        return Sandbox(write=[self._path])

    async def start(self, _config: Config) -> None:
        self._long = ThreadPoolExecutor(_LONG, "long")
        self._short = ThreadPoolExecutor(_SHORT, "short")
        self._counts = Counts()
        self._namespaces = roles.Namespaces.of_host()
        self._store = await self._quick(Store, self._path)
        if not self._store.clean:
            self._recovery = asyncio.create_task(self._recover())

    async def stop(self) -> None:
        self._stopping.set()
        if self._recovery is not None:
            await self._recovery
        await asyncio.to_thread(self._long.shutdown)
        await asyncio.to_thread(self._short.shutdown)
        self._store.close()

    async def reload(self, _config: Config) -> None:
        """Nothing of the configuration is the store's."""

    def busy(self) -> bool:
        return self._recovery is not None and not self._recovery.done()

    async def _recover(self) -> None:
        log.warning("the store was not closed; checking what may be damaged")
        try:
            done = await self._quick(self._store.recover, self._stopping)
            log.info("the store is checked: %d objects kept, %d dropped", done.kept, done.dropped)
        except VoltError as error:
            log.error("the check did not end, and begins again at the next start: %s", error)

    # -- the ZeroMQ socket

    async def handle(self, call: cas.Interface, request: Request) -> msgspec.Struct:
        store = self._store
        match call:
            case cas.RefSet(name=name, kind=kind, digest=digest, expect=expect):
                self._namespaces.check(request.peer.uid, name)
                return await self._change(store.set_ref, name, kind, bytes.fromhex(digest), expect)
            case cas.RefGet(name=name):
                return await self._quick(store.refs.get, name)
            case cas.RefList(prefix=prefix):
                for ref in await self._quick(lambda: list(store.refs.under(prefix))):
                    await request.item(ref)
                return Nothing()
            case cas.RefDelete(name=name, expect=expect):
                self._namespaces.check(request.peer.uid, name)
                await self._change(store.refs.delete, name, expect)
                return Nothing()
            case cas.Status():
                return await self._quick(status, store, self._counts)
            case cas.Verify():
                return await self._verify(request)
            case cas.Ls(tree=name, path=path, recursive=recursive):
                entries, links = await self._quick(present.ls, store, name, path, recursive)
                for entry in entries:
                    await request.item(present.entry(entry, links))
                return Nothing()
            case cas.Diff(old=old, new=new):
                for change in await self._quick(present.diff, store, old, new):
                    await request.item(change)
                return Nothing()
            case cas.View(tree=digest, form=form):
                with self._cancel() as cancel:
                    return await self._work(cancel, store.view, bytes.fromhex(digest), form)
            case Describe():
                raise NotFound(kind="call", name="describe")  # the skeleton answers it
            case _:
                assert_never(call)

    async def _verify(self, request: Request) -> cas.Verified:
        with self._cancel() as cancel:
            store = self._store
            run = verify.Verification(store, cancel)
            found = run.run()
            total = sum([(await self._quick(self._counts.of, o.path))[0] for o in (store.trees, store.objects)])
            while (bad := await self._work(cancel, _next, found)) is not found:
                if isinstance(bad, cas.BadObject):
                    log.error("object %s: %s; needed by %s", bad.digest, bad.problem, ", ".join(bad.refs) or "no ref")
                    await request.item(bad)
                else:
                    await request.progress(run.objects, total, f"{run.bytes >> 20} MiB")
            return cas.Verified(run.objects, run.bytes, run.bad)

    # -- the descriptor socket

    async def handle_packet(self, call: cas.Descriptors, request: Request) -> msgspec.Struct:
        store = self._store
        match call:
            case cas.Put(ref=ref):
                self._namespaces.check(request.peer.uid, ref)
                with self._cancel() as cancel:
                    stored = await self._decide(cancel, store.put, request.fds[0], ref, cancel)
                return cas.Stored(stored.digest.hex(), stored.size, stored.new)
            case cas.Open(digest=digest):
                return self._opened(request, await self._quick(store.open, bytes.fromhex(digest)))
            case cas.Cat(tree=name, path=path):
                return self._opened(request, await self._quick(store.cat, name, path))
            case cas.OpenView(tree=digest, form=form):
                with self._cancel() as cancel:
                    fd = await self._work(cancel, store.views.open, bytes.fromhex(digest), form)
                return self._opened(request, fd)
            case cas.Build(ref=ref):
                return await self._build(request, ref)
            case cas.BuildTar(ref=ref, compression=compression):
                return await self._stream(
                    request, ref, lambda builder, say: builder.tar(request.fds[0], compression, say)
                )
            case cas.BuildLayers(ref=ref):
                return await self._stream(request, ref, lambda builder, say: builder.layers(request.fds, say))
            case _:
                assert_never(call)

    def _opened(self, request: Request, fd: int) -> cas.Opened:
        request.reply_fds = [fd]
        return cas.Opened(os.fstat(fd).st_size)

    async def _build(self, request: Request, ref: str | None) -> cas.Built:
        """A directory that the caller walks, packet by packet."""
        with self._cancel() as cancel:
            builder = await self._work(cancel, Builder, self._store, ref, cancel)
            try:
                last = False
                while not last:
                    body, fds = await request.more()
                    try:
                        batch = self._decode(body)
                        taken = await self._work(cancel, builder.take, batch.nodes, fds)
                    finally:
                        close_all(fds)
                    last = batch.last
                    if not last:
                        await request.item(taken)
                return await self._decide(cancel, builder.finish)
            finally:
                await self._work(cancel, builder.close)

    def _decode(self, body: bytes) -> cas.Batch:
        try:
            return self._batches.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Malformed(str(error)) from None

    async def _stream(
        self, request: Request, ref: str | None, make: Callable[[Builder, Callable[[int, int], None]], cas.Built]
    ) -> cas.Built:
        """A tree from streams, with progress told a few times a second."""
        seen = [0, 0]

        def say(files: int, size: int) -> None:
            seen[:] = [files, size]

        async def tell() -> None:
            told = [0, 0]
            while True:
                await asyncio.sleep(_PROGRESS_SECONDS)
                if seen != told:
                    told = list(seen)
                    await request.progress(seen[1], 0, f"{seen[0]} files")

        with self._cancel() as cancel:
            builder = await self._work(cancel, Builder, self._store, ref, cancel)
            telling = asyncio.create_task(tell())
            try:
                return await self._decide(cancel, make, builder, say)
            finally:
                telling.cancel()
                await self._work(cancel, builder.close)

    # -- threads

    @contextlib.contextmanager
    def _cancel(self) -> Iterator[Cancel]:
        cancel = Cancel()
        try:
            yield cancel
        finally:
            cancel.close()

    async def _quick(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Reading that takes moments, in a thread."""
        return await _finish(self._short, None, False, lambda: function(*args, **kwargs))

    async def _change(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A change that takes moments: what has taken effect is answered so, even to a caller that is gone,
        since it may come back with the same id."""
        return await _finish(self._short, None, True, lambda: function(*args, **kwargs))

    async def _work(self, cancel: Cancel, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Long work, which hears of it when the caller goes; returns when the thread is done."""
        return await _finish(self._long, cancel, False, lambda: function(*args, **kwargs))

    async def _decide(self, cancel: Cancel, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Long work that may take effect before it hears of a cancel: answered as `_change`."""
        return await _finish(self._long, cancel, True, lambda: function(*args, **kwargs))


async def _finish(pool: Executor, cancel: Cancel | None, decides: bool, function: Callable[[], T]) -> T:
    future = asyncio.get_running_loop().run_in_executor(pool, function)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if cancel is not None:
            cancel.set()
        # The thread still uses the call's descriptors and the batch: nothing may be closed under it.
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if future.exception() is None and decides:
            return future.result()
        raise


def _next(found: Iterator[cas.BadObject | None]) -> cas.BadObject | Iterator[cas.BadObject | None] | None:
    """The next of an iterator, and the iterator itself at its end: StopIteration can't leave a thread."""
    return next(found, found)


def main(argv: Sequence[str] | None = None) -> None:
    """`volt-casd [--store DIR] …`: the skeleton knows the other options. Does not return."""
    import argparse

    parser = argparse.ArgumentParser(prog="volt-casd", add_help=False, allow_abbrev=False)
    parser.add_argument("--store", default=paths.CAS)
    options, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    run(Casd(options.store), rest)
