"""Landlock: after `restrict` the thread, and all it starts, reaches only the files and TCP ports it named.

Call it before any other thread exists: libzmq's I/O thread, started earlier, would stay free. With any restriction
mount(2) and its kin fail too. Not covered by any kernel yet: connecting to AF_UNIX sockets by path, stat, chmod.

What each ABI brings (https://docs.kernel.org/userspace-api/landlock.html, "Kernel interface"): 1 files (5.13),
2 renames across directories (5.19; before, always refused), 3 truncate (6.2), 4 TCP (6.7), 5 device ioctls (6.10),
6 abstract sockets and signals to outside (6.12), 7 what the kernel's audit log tells (6.15), nothing to enforce.
An older kernel enforces less, never fails, and `Enforced` says what is missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Sequence
from typing import Final, NamedTuple

from volt_common.errors import Denied, NotFound, VoltError

NEWEST: Final = 7

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
REMOVE_DIR: Final = 1 << 4
REMOVE_FILE: Final = 1 << 5
MAKE_CHAR: Final = 1 << 6
MAKE_DIR: Final = 1 << 7
MAKE_REG: Final = 1 << 8
MAKE_SOCK: Final = 1 << 9
MAKE_FIFO: Final = 1 << 10
MAKE_BLOCK: Final = 1 << 11
MAKE_SYM: Final = 1 << 12
REFER: Final = 1 << 13
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15

BIND_TCP: Final = 1 << 0
CONNECT_TCP: Final = 1 << 1

_ALL_SCOPES: Final = 1 << 0 | 1 << 1  # abstract sockets, signals
_OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # the rest means nothing for a file
_FILES: Final = ((1, (1 << 13) - 1), (2, REFER), (3, TRUNCATE), (5, IOCTL_DEV))

_READ: Final = READ_FILE | READ_DIR
_EXECUTE: Final = _READ | EXECUTE
_WRITE: Final = ((1 << 16) - 1) & ~(EXECUTE | MAKE_CHAR | MAKE_BLOCK)  # what a daemon wrote it need not run

_CREATE_RULESET: Final = 444  # the numbers of every architecture
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1
_RULE_PATH: Final = 1
_RULE_PORT: Final = 2
_PR_SET_NO_NEW_PRIVS: Final = 38

# Loaded with the module: once restricted, a late import fails.
_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("fd", ctypes.c_int32))


class _PortRule(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


class Enforced(NamedTuple):
    """What holds now. `abi` 0: nothing; `missing` names what this kernel can't enforce."""

    abi: int
    missing: tuple[str, ...]

    def __str__(self) -> str:
        if not self.abi:
            return "Landlock is not there"
        return f"Landlock ABI {self.abi}" + (f", without {', '.join(self.missing)}" if self.missing else "")


_BROUGHT: Final = ((1, "files"), (3, "truncate"), (4, "tcp"), (5, "device ioctls"), (6, "abstract sockets and signals"))


def abi() -> int:
    """The kernel's Landlock ABI; 0 if it has none or it is switched off."""
    found = int(_syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION)))
    return max(found, 0)


def enforceable(version: int) -> Enforced:
    """What `restrict` enforces on a kernel of this ABI."""
    return Enforced(min(version, NEWEST), tuple(what for since, what in _BROUGHT if version < since))


def restrict(
    read: Sequence[str] = (),
    write: Sequence[str] = (),
    *,
    execute: Sequence[str] = (),
    optional: Sequence[str] = (),
    bind_tcp: Sequence[int] = (),
    connect_tcp: Sequence[int] = (),
    at_most: int = NEWEST,
) -> Enforced:
    """Confine this thread, for good, to files under these paths and to these TCP ports.

    `read`: read files and list directories. `write`: these, and change, make and remove everything beneath but device
    nodes. `execute`: read and execve. Of the named paths those in `optional` may be absent. No port given: no TCP.
    `at_most` pretends an older kernel. Raises NotFound for an absent path, Denied for one that can't be opened,
    VoltError if another thread runs; then nothing is confined.
    """
    version = min(abi(), at_most)
    enforced = enforceable(version)
    if version < 1:
        return enforced
    _alone()
    files = sum(rights for since, rights in _FILES if version >= since)
    net = BIND_TCP | CONNECT_TCP if version >= 4 else 0
    attr = _Ruleset(files, net, _ALL_SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24  # an older kernel refuses bytes it does not know
    ruleset = _call("landlock_create_ruleset", _CREATE_RULESET, ctypes.byref(attr), ctypes.c_size_t(size), 0)
    try:
        for paths, rights in ((read, _READ), (execute, _EXECUTE), (write, _WRITE)):
            for path in paths:
                _allow(ruleset, path, rights & files, may_be_absent=path in optional)
        for ports, right in ((bind_tcp, BIND_TCP), (connect_tcp, CONNECT_TCP)):
            for port in ports if net else ():
                rule = _PortRule(right, port)
                _call("landlock_add_rule", _ADD_RULE, ruleset, _RULE_PORT, ctypes.byref(rule), 0)
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3) != 0:
            raise _error("prctl(PR_SET_NO_NEW_PRIVS)", ctypes.get_errno())
        _call("landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return enforced


def _allow(ruleset: int, path: str, rights: int, *, may_be_absent: bool) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        if may_be_absent:
            return
        raise NotFound(kind="path", name=path, hint="Landlock rules need what they name to exist") from None
    except OSError as error:
        raise Denied(f"{path}: {error.strerror}") from None
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
        rule = _PathRule(rights, fd)
        _call(f"landlock_add_rule for {path}", _ADD_RULE, ruleset, _RULE_PATH, ctypes.byref(rule), 0)
    finally:
        os.close(fd)


def _alone() -> None:
    with contextlib.suppress(OSError):  # no /proc: it can't be told
        if len(os.listdir("/proc/self/task")) > 1:
            raise VoltError("Landlock comes too late: threads that run already would stay free")


def _call(what: str, number: int, *arguments: object) -> int:
    done = int(_syscall(number, *arguments))
    if done < 0:
        raise _error(what, ctypes.get_errno())
    return done


def _error(what: str, number: int) -> VoltError:
    if number == errno.EPERM:
        return Denied(f"{what}: {os.strerror(number)}", hint="a system-call filter without Landlock's calls does this")
    return VoltError(f"{what}: {os.strerror(number)}")
