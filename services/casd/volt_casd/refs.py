"""Refs: durable names of trees and blobs, one small JSON file each, at the ref's own path below `refs/`.

A ref lies in the file system as it is named, so a name cannot also be the directory of others: where
`images/debian/12` is, `images/debian` is a Conflict. Parts of a name never begin with a dot, so files being
written, which do, are never taken for refs.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from volt_casd import faults
from volt_common import durable
from volt_common.api.cas import Ref
from volt_common.errors import Conflict, Corrupt, Invalid, NotFound
from volt_common.failpoint import point

_PART: Final = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}"
_NAME: Final = re.compile(rf"{_PART}(/{_PART}){{0,15}}\Z")
_MAX: Final = 4096


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a ref's file holds; its name is the file's path."""

    kind: str
    digest: str
    size: int
    set_at: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class Refs:
    """The directory of refs. Changes are made one at a time; reading needs no lock."""

    def __init__(self, root: str, now: Callable[[], int] = time.time_ns) -> None:
        self.path = os.path.join(root, "refs")
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        self._now = now
        self._lock = threading.Lock()

    def get(self, name: str) -> Ref:
        """Raises NotFound, Corrupt, Invalid (a name that is none)."""
        path = self._file(name)
        try:
            with open(path, "rb") as file:
                record = _decode(file.read(_MAX))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound(kind="ref", name=name) from None
        except OSError as error:
            raise faults.of_os(error, f"reading ref {name}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Corrupt(str(error), what="ref", name=name, hint=f"set it again, or remove {path}") from None
        return Ref(name, record.kind, record.digest, record.size, record.set_at)

    def set(self, name: str, kind: str, digest: str, size: int, expect: str | None = None) -> Ref:
        """Durable when it returns. With `expect` (a digest, or "" for absent) only from that.
        Raises Conflict, Exhausted."""
        path = self._file(name)
        with self._lock:
            if expect is not None:
                self._require(name, expect)
            record = Record(kind, digest, size, self._now())
            try:
                self._make_parents(name)
                if "/" not in name:  # the topmost directory of refs that are gone
                    with contextlib.suppress(OSError):
                        os.rmdir(path)
                point("ref.before-write")
                durable.write_file(path, _encode(record) + b"\n", 0o600)
                point("ref.written")
            except (NotADirectoryError, FileExistsError):
                raise Conflict(kind="ref", name=name, state="below the name of another ref") from None
            except IsADirectoryError:
                raise Conflict(kind="ref", name=name, state="the directory of other refs") from None
            except OSError as error:
                self._prune(name)
                raise faults.of_os(error, f"writing ref {name}") from error
        return Ref(name, kind, digest, size, record.set_at)

    def delete(self, name: str, expect: str | None = None) -> None:
        """Durable when it returns. Raises NotFound, Conflict."""
        path = self._file(name)
        with self._lock:
            if expect is None:
                if not os.path.isfile(path):
                    raise NotFound(kind="ref", name=name)
            else:
                self.get(name)
                self._require(name, expect)
            try:
                point("ref.before-delete")
                durable.remove(path)
                point("ref.deleted")
            except OSError as error:
                raise faults.of_os(error, f"deleting ref {name}") from error
            self._prune(name)

    def under(self, prefix: str = "") -> Iterator[Ref]:
        """Every ref whose name is `prefix` or lies under `prefix/`, by name. Raises Corrupt, Invalid."""
        for name in self.names(prefix):
            with contextlib.suppress(NotFound):  # deleted meanwhile
                yield self.get(name)

    def names(self, prefix: str = "") -> list[str]:
        """As `under`, without reading them."""
        prefix = prefix.strip("/")
        top = self._file(prefix) if prefix else self.path
        if os.path.isfile(top):
            return [prefix]
        found = []
        for directory, _, files in os.walk(top, onerror=_told):
            inside = os.path.relpath(directory, self.path)
            for file in files:
                if not file.startswith("."):
                    found.append(file if inside == "." else f"{inside}/{file}")
        return sorted(found)

    def clear_leftovers(self) -> None:
        """Remove what a crash left: files half-written, directories made for a ref that never came."""
        for directory, _, files in os.walk(self.path, topdown=False):
            for file in files:
                if file.startswith("."):
                    os.unlink(os.path.join(directory, file))
            if directory != self.path:
                with contextlib.suppress(OSError):
                    os.rmdir(directory)

    def _file(self, name: str) -> str:
        if not _NAME.match(name) or len(name) > 512:
            raise Invalid(f"{name!r} is no name of a ref", hint="parts of letters, digits and _.+-, joined by /")
        return os.path.join(self.path, name)

    def _require(self, name: str, expect: str) -> None:
        try:
            have = self.get(name).digest
        except NotFound:
            have = ""
        if have != expect:
            raise Conflict(kind="ref", name=name, state=f"{have[:12]} now" if have else "absent")

    def _make_parents(self, name: str) -> None:
        for end in (at for at, letter in enumerate(name) if letter == "/"):
            path = os.path.join(self.path, name[:end])
            if not os.path.isdir(path):
                durable.make_directory(path, 0o700)

    def _prune(self, name: str) -> None:
        """Remove the directories that held only this ref, but not the topmost, which is soon made again. A crash before
        it leaves an empty one: no harm."""
        while name.count("/") > 1:
            name = name.rpartition("/")[0]
            try:
                os.rmdir(os.path.join(self.path, name))
            except OSError:
                return


def _told(error: OSError) -> None:
    """A directory that can't be read holds refs that must not be overlooked; one that has gone meanwhile holds none."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise faults.of_os(error, "reading refs") from error
