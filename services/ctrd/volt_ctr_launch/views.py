"""Views: root's own copies of casd's EROFS images, verified by hash, and their mounting.

The kernel's parser must not meet a file that casd can still write, so an image is copied while it is hashed, and the
copy is named by the hash. Containers of the same view share one copy.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
import time

from volt_ctr_launch import files, kernel
from volt_ctr_launch.config import View
from volt_ctr_launch.errors import Refusal, invalid
from volt_ctr_launch.paths import Layout

_CHUNK = 1 << 20
_KEPT_SECONDS = 600
_PARTIAL = ".copy"
_LOOP_CTL_GET_FREE, _LOOP_SET_FD, _LOOP_SET_STATUS64, _LOOP_CLR_FD = 0x4C82, 0x4C00, 0x4C04, 0x4C01
_LO_FLAGS_READ_ONLY, _LO_FLAGS_AUTOCLEAR = 1, 4


def file_name(tree: str, view: View) -> str:
    """Of root's copy."""
    return f"{tree}.{view.form}.{view.sha256}"


def fetch(layout: Layout, name: str, tree: str, view: View) -> int:
    """A descriptor of root's verified copy, made now if there is none. `roots/NAME/view` then names it, which keeps
    it from being dropped. Raises Refusal."""
    target = file_name(tree, view)
    files.make_directory(layout.views, 0o700)
    with files.locked(layout.lock):
        if _named_by(layout, name) != target:
            # Not synced: a power cut ends the container, and at its next start the copy is made again.
            files.write_bytes(f"{layout.root(name)}/view", target.encode(), durable=False)
        try:
            copy = files.open_beneath(layout.views, target)
        except FileNotFoundError:
            _copy(layout, tree, view, target)
            copy = files.open_beneath(layout.views, target)
        if os.fstat(copy).st_size != view.size:
            os.close(copy)
            raise invalid("the store's view has another size than config.json says")
        os.utime(copy)
        return copy


def drop_unused(layout: Layout) -> None:
    """Remove the copies that no container's `view` names and that none has used for a while (who runs one command in
    an image runs another), and what a crash left of a copy."""
    with files.locked(layout.lock):
        used = {_named_by(layout, name) for name in os.listdir(layout.roots)}
        with contextlib.suppress(FileNotFoundError):
            for name in set(os.listdir(layout.views)) - used:
                path = f"{layout.views}/{name}"
                if os.stat(path).st_mtime < time.time() - _KEPT_SECONDS or name == _PARTIAL:
                    os.unlink(path)


def _named_by(layout: Layout, name: str) -> str:
    """The copy that a container uses; empty: none."""
    try:
        with open(f"{layout.root(name)}/view", encoding="ascii") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _copy(layout: Layout, tree: str, view: View, target: str) -> None:
    source = _open_source(layout, tree, view)
    temporary = f"{layout.views}/{_PARTIAL}"  # one at a time: the caller holds the lock
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    output = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    try:
        _transfer(source, output, view)
        os.fsync(output)
        os.rename(temporary, f"{layout.views}/{target}")
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(source)
        os.close(output)


def _open_source(layout: Layout, tree: str, view: View) -> int:
    path = f"views/{tree}.{view.form}"
    try:
        source = files.open_beneath(layout.cas, path)
    except FileNotFoundError:
        raise Refusal("NOT_FOUND", f"the store has no view {tree[:12]}.{view.form}") from None
    except OSError as error:
        raise invalid(f"the store's {path} can't be opened: {error.strerror}") from None
    found = os.fstat(source)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.stat(layout.cas).st_uid or found.st_size != view.size:
        os.close(source)
        raise invalid(f"the store's {path} is not the file that config.json describes")
    return source


def _transfer(source: int, output: int, view: View) -> None:
    """Copy and hash what was copied; holes stay holes. Raises Refusal if the hash is another."""
    import hashlib  # OpenSSL, which takes longer to load than the rest of a start; a copy is made once

    digest = hashlib.sha256()
    left = view.size
    while left and (chunk := os.read(source, min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
        if chunk.count(0) == len(chunk):
            os.lseek(output, len(chunk), os.SEEK_CUR)
            continue
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(output, rest) :]
    os.ftruncate(output, view.size)
    if left or digest.hexdigest() != view.sha256:
        raise Refusal("CORRUPT", "the store's view is not the one that config.json names: its hash is another")


def mount(image: int, target: str) -> None:
    """Mount a verified copy: straight from the file (Linux 6.12 and later), else by a loop device."""
    path = f"/proc/self/fd/{image}"
    try:
        kernel.mount(path, target, "erofs", kernel.MS_RDONLY | kernel.MS_NODEV)
        return
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise Refusal("MISSING_DEPENDENCY", "this kernel has no EROFS (modprobe erofs)") from None
        if error.errno != errno.ENOTBLK:
            raise
    device, holder = _loop(image)
    try:
        kernel.mount(device, target, "erofs", kernel.MS_RDONLY | kernel.MS_NODEV)
    finally:
        os.close(holder)


def _loop(image: int) -> tuple[str, int]:
    """A loop device over the image that goes when its last user has gone; also a descriptor that holds it."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(64):  # another process may take the free one first
            device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            holder = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(holder, _LOOP_SET_FD, image)
            except OSError as error:
                os.close(holder)
                if error.errno != errno.EBUSY:
                    raise
                continue
            # struct loop_info64: seven u64/u32 fields before lo_flags at offset 52, 232 bytes in all
            info = bytearray(232)
            struct.pack_into("I", info, 52, _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR)
            buffer = ctypes.create_string_buffer(bytes(info), len(info))
            try:
                fcntl.ioctl(holder, _LOOP_SET_STATUS64, buffer)
            except OSError:
                fcntl.ioctl(holder, _LOOP_CLR_FD, 0)
                os.close(holder)
                raise
            return device, holder
    finally:
        os.close(control)
    raise Refusal("EXHAUSTED", "no loop device is free")
