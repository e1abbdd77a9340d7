"""Everything hashed again: what does not match its name goes to quarantine, and is told with the refs it breaks."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from volt_casd import faults, tree
from volt_casd.ingest import Cancelled, never
from volt_casd.objects import DURABLE, Objects
from volt_common.api.cas import BadObject
from volt_common.errors import Corrupt, Interrupted, NotFound

if TYPE_CHECKING:
    from volt_casd.store import Store

_CHUNK: Final = 1 << 20


class Verification:
    """One pass. Iterate `run`; `objects`, `bytes` and `bad` count what it has seen so far."""

    def __init__(self, store: Store, cancelled: Cancelled = never) -> None:
        self._store = store
        self._cancelled = cancelled
        self._buffer = memoryview(bytearray(_CHUNK))
        self.objects = 0
        self.bytes = 0
        self.bad = 0

    def run(self) -> Iterator[BadObject | None]:
        """Each bad object as it is found; None now and then, to show that it goes on. Raises VoltError."""
        try:
            bad: dict[bytes, str] = {}
            for objects in (self._store.trees, self._store.objects):
                for digest, status in objects.names():
                    self._check_cancelled()
                    if stat.S_IMODE(status.st_mode) != DURABLE:
                        continue  # being written; its batch or the recovery decides
                    problem = self._check(objects, digest)
                    if problem:
                        bad[digest] = problem
                        objects.quarantine(digest)
                        self._store.forget_tree(digest)
                    self.objects += 1
                    if not self.objects % 256:
                        yield None
            yield from self._report(bad)
            self._check_views()
        except OSError as error:
            raise faults.of_os(error, "checking the store") from error

    def _check(self, objects: Objects, digest: bytes) -> str:
        """What is wrong with an object; empty if nothing."""
        try:
            fd = objects.open(digest)
        except NotFound:
            return ""  # deleted meanwhile
        hasher = blake3()
        at = 0
        try:
            while count := os.preadv(fd, [self._buffer], at):
                self._check_cancelled()
                hasher.update(self._buffer[:count])
                at += count
        except OSError as error:
            return f"it can't be read: {error.strerror}"
        finally:
            os.close(fd)
        self.bytes += at
        return "" if hasher.digest() == digest else "its bytes do not match its name"

    def _report(self, bad: dict[bytes, str]) -> Iterator[BadObject]:
        """The bad objects, and those that refs need and the store lacks, each with these refs."""
        needed: dict[bytes, list[str]] = {}
        problems = dict(bad)
        for name in self._store.refs.names():
            try:
                ref = self._store.refs.get(name)
            except NotFound:
                continue
            except Corrupt as error:
                self.bad += 1
                yield BadObject("", error.message, [name])
                continue
            for digest, problem in self._lacking(ref.kind, bytes.fromhex(ref.digest)):
                problems.setdefault(digest, problem)
                needed.setdefault(digest, []).append(name)
        for digest, problem in problems.items():
            self.bad += 1
            yield BadObject(digest.hex(), problem, needed.get(digest, []))

    def _lacking(self, kind: str, digest: bytes) -> Iterator[tuple[bytes, str]]:
        """What a ref needs and the store has not, or not with its size."""
        self._check_cancelled()
        if kind == "blob":
            if self._store.objects.size(digest) is None:
                yield digest, "it is missing"
            return
        try:
            entries = self._store.entries(digest)
        except NotFound:
            yield digest, "it is missing"
            return
        except Corrupt as error:
            yield digest, error.message
            return
        for needed, size in tree.digests(entries).items():
            have = self._store.objects.size(needed)
            if have is None:
                yield needed, "it is missing"
            elif have != size:
                yield needed, f"it has {have} bytes, and its tree says {size}"

    def _check_views(self) -> None:
        """Views are a cache: a bad one is dropped without a word, and made again when asked for."""
        for name in self._store.views.names():
            self._check_cancelled()
            known = self._store.views.known(name)
            hasher = hashlib.sha256()
            try:
                with open(os.path.join(self._store.views.path, name), "rb") as file:
                    while data := file.read(_CHUNK):
                        self._check_cancelled()
                        hasher.update(data)
            except FileNotFoundError:
                continue
            if known is None or hasher.hexdigest() != known.sha256:
                self._store.views.drop(name)

    def _check_cancelled(self) -> None:
        if self._cancelled():
            raise Interrupted(signal="its caller")
