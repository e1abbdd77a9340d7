"""Files of others read without trust, and files of root's written so that a crash leaves old or new."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterator

from volt_ctr_launch import kernel
from volt_ctr_launch.errors import Refusal, invalid

MAX_CONFIG = 4 << 20
_BENEATH = kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_SYMLINKS | kernel.RESOLVE_NO_MAGICLINKS | kernel.RESOLVE_NO_XDEV


def open_beneath(directory: str, path: str, flags: int = os.O_RDONLY) -> int:
    """Open `path` below a trusted directory, following no link of any kind and leaving no mount."""
    base = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return kernel.openat2(base, path, flags | os.O_NOFOLLOW, _BENEATH)
    finally:
        os.close(base)


def read_hostile(directory: str, path: str, owner: int | None, limit: int = MAX_CONFIG) -> bytes:
    """A regular file of `owner` (None: anybody's), at most `limit` bytes. Raises Refusal."""
    try:
        descriptor = open_beneath(directory, path)
    except FileNotFoundError:
        raise Refusal("NOT_FOUND", f"{directory}/{path} does not exist") from None
    except OSError as error:
        raise invalid(f"{directory}/{path} can't be opened without following links: {error.strerror}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise invalid(f"{directory}/{path} is not a regular file")
        if owner is not None and found.st_uid != owner:
            raise invalid(f"{directory}/{path} belongs to uid {found.st_uid}, not {owner}")
        if found.st_nlink != 1:
            raise invalid(f"{directory}/{path} has other names")
        data = read_up_to(descriptor, limit + 1)
        if len(data) > limit:
            raise invalid(f"{directory}/{path} is larger than {limit} bytes")
        return data
    finally:
        os.close(descriptor)


def read_up_to(descriptor: int, limit: int) -> bytes:
    """What there is, until the end or `limit` bytes."""
    parts: list[bytes] = []
    while limit > 0 and (part := os.read(descriptor, min(limit, 1 << 20))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def parse_json(data: bytes, what: str) -> object:
    """JSON in which no key occurs twice. Raises Refusal."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise invalid(f"{what}: a key occurs twice")
        return found

    try:
        parsed: object = json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise invalid(f"{what} is not JSON: {error}") from None
    return parsed


def write_json(path: str, value: object, mode: int = 0o644, *, durable: bool = True) -> None:
    """Replace a file of root's in a directory of root's."""
    write_bytes(path, json.dumps(value, indent=2).encode() + b"\n", mode, durable=durable)


def write_bytes(path: str, data: bytes, mode: int = 0o644, *, durable: bool = True) -> None:
    """Write, fsync, rename, fsync of the directory; nothing stays behind on an error. What a power cut may take
    (it says how a container runs, and after the cut it does not) need not be durable."""
    directory, name = os.path.split(path)
    holder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    temporary = f".{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=holder)
        try:
            with open(os.open(temporary, flags, 0o600, dir_fd=holder), "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                if durable:
                    os.fsync(file.fileno())
            os.rename(temporary, name, src_dir_fd=holder, dst_dir_fd=holder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=holder)
            raise
        if durable:
            os.fsync(holder)
    finally:
        os.close(holder)


def read_own(path: str) -> dict[str, object]:
    """A JSON object that a launcher wrote; empty if there is none or it is torn."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """One process at a time, by a lock file of root's that goes with its last holder's exec or end."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)  # its holder removed it meanwhile
    try:
        yield
    finally:
        os.close(descriptor)


def make_directory(path: str, mode: int) -> None:
    """A directory of root's below a directory of root's. An existing one keeps its content, and gets the mode."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise Refusal("INTERNAL", f"{path} is not root's")
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def remove_below(directory: str, name: str) -> None:
    """As `remove_tree`, of a child of a directory of root's, which may be missing."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(descriptor, name)
        finally:
            os.close(descriptor)


def clear_leftovers(machine: str) -> None:
    """Remove what nspawn leaves of a machine when it is killed; its mounts went with their namespace."""
    for place in ("propagate", "unix-export"):
        remove_below(f"/run/systemd/nspawn/{place}", machine)


def remove_tree(parent: int, name: str) -> None:
    """Remove `name` below an open directory, whatever a container planted in it: no link is followed, no mount
    entered, no depth overflows (the walk keeps its own stack, two descriptors at a time)."""
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except IsADirectoryError:
        pass
    except PermissionError:  # EPERM: unlink(2) of a directory on some file systems
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
    top = _enter(parent, name)
    _flatten(top)
    os.rmdir(name, dir_fd=parent)


def _enter(parent: int, name: str) -> int:
    beneath = kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_SYMLINKS | kernel.RESOLVE_NO_XDEV
    return kernel.openat2(parent, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, beneath)


def _flatten(top: int) -> None:
    """Empty a directory. A directory inside that is not empty is moved up to `top` first, so that the walk never
    goes deeper than one level, whatever depth a container made."""
    try:
        pending = True
        while pending:
            pending = False
            for child in os.listdir(top):
                if _remove_if_easy(top, child):
                    continue
                inner = _enter(top, child)
                try:
                    for grandchild in os.listdir(inner):
                        if not _remove_if_easy(inner, grandchild):
                            os.rename(grandchild, f".{os.urandom(16).hex()}", src_dir_fd=inner, dst_dir_fd=top)
                            pending = True
                finally:
                    os.close(inner)
                os.rmdir(child, dir_fd=top)
    finally:
        os.close(top)


def _remove_if_easy(parent: int, name: str) -> bool:
    """Whether `name` could be removed without looking inside."""
    try:
        os.unlink(name, dir_fd=parent)
    except (IsADirectoryError, PermissionError):
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise
            return False
    return True
