"""System calls that Python 3.11 does not have, each a function that raises OSError."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)

AT_EMPTY_PATH = 0x1000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 22, 24, 38, 47
PR_SET_PDEATHSIG, PR_SET_SECUREBITS = 1, 28
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 1, 2, 4, 8, 16
_OPENAT2, _OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 437, 428, 429, 442  # the same on every architecture
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_IDMAP = 1, 2, 4, 0x100000


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _call(number: int, what: str, *arguments: int | bytes | None) -> int:
    typed = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    return _check(int(_libc.syscall(ctypes.c_long(number), *typed)), what)


def openat2(directory: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2) that neither blocks (a fifo) nor takes a terminal. Raises OSError with the path."""
    flags |= 0 if flags & os.O_PATH else os.O_NONBLOCK | os.O_NOCTTY  # with O_PATH they are EINVAL
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    try:
        return _call(_OPENAT2, "openat2", directory, os.fsencode(path), how, len(how))
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from None


def open_tree(directory: int, path: str, *, recursive: bool = False) -> int:
    """A detached clone of the mount at `path`, or of the descriptor itself when `path` is empty."""
    flags = 1 | os.O_CLOEXEC | AT_EMPTY_PATH | (0x8000 if recursive else 0)
    return _call(_OPEN_TREE, f"open_tree {path}", directory, os.fsencode(path), flags)


def mount_setattr(tree: int, *, read_only: bool = False, confined: bool = False, idmap: int | None = None) -> None:
    """Change a detached mount: read-only, without setuid and devices, with the ids of a user namespace."""
    attributes = (_ATTR_RDONLY if read_only else 0) | (_ATTR_NOSUID | _ATTR_NODEV if confined else 0)
    attributes |= 0 if idmap is None else _ATTR_IDMAP
    packed = struct.pack("QQQQ", attributes, 0, 0, 0 if idmap is None else idmap)
    _call(_MOUNT_SETATTR, "mount_setattr", tree, b"", AT_EMPTY_PATH, packed, len(packed))


def move_mount(tree: int, target: str) -> None:
    """Attach a detached mount at an absolute path."""
    _call(_MOVE_MOUNT, f"move_mount {target}", tree, b"", -100, os.fsencode(target), 4)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""

    def encoded(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    arguments = (encoded(source), encoded(target), encoded(kind), ctypes.c_ulong(flags), encoded(data))
    _check(_libc.mount(*arguments), f"mount {kind or ''} on {target}")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """setns(2)."""
    _check(_libc.setns(descriptor, kind), "setns")


def prctl(option: int, *arguments: int) -> int:
    """prctl(2); missing arguments are 0."""
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(option, *padded), f"prctl {option}")


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling thread's capability sets, given as 64-bit masks."""
    header = struct.pack("Ii", 0x20080522, 0)
    low, high = (1 << 32) - 1, 32
    data = struct.pack(
        "IIIIII",
        effective & low,
        permitted & low,
        inheritable & low,
        effective >> high,
        permitted >> high,
        inheritable >> high,
    )
    _check(_libc.capset(header, data), "capset")


def install_filter(program: bytes) -> None:
    """Add a seccomp filter: instructions of 8 bytes each (seccomp(2)). Needs CAP_SYS_ADMIN or no_new_privs."""
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    holder = ctypes.create_string_buffer(head, len(head))
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(holder))


def ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    """ptrace(2)."""
    call = _libc.ptrace
    call.restype = ctypes.c_long
    arguments = (ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_ulong(address), ctypes.c_ulong(data))
    return _check(int(call(*arguments)), f"ptrace {request:#x}")
