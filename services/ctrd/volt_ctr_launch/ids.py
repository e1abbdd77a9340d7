"""Which 65,536 host ids a container has: given once, kept in roots/NAME/idmap, never the same twice."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterator

from volt_ctr_launch import files, kernel
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.paths import Layout
from volt_ctr_launch.policy import Policy

COUNT = 65536
Range = tuple[int, int, int]
"""First id inside, first id outside, how many: a line of /proc/PID/uid_map."""


def allocate(layout: Layout, policy: Policy, name: str) -> int:
    """The first host id of a container's range: its own if it has one, else a free one. Raises Refusal."""
    own = base_of(layout, name)
    if own is not None:
        return own
    with files.locked(layout.lock):
        used = {base_of(layout, other) for other in os.listdir(layout.roots) if not other.startswith(".")}
        others = list(_subordinate("/etc/subuid")) + list(_subordinate("/etc/subgid"))
        for number in range(policy.id_ranges):
            base = policy.id_base + number * COUNT
            if base in used or any(low < base + COUNT and base < high for low, high in others) or _known(base):
                continue
            files.write_bytes(f"{layout.root(name)}/idmap", b"%d\n" % base)
            return base
    raise Refusal("EXHAUSTED", f"all {policy.id_ranges} ranges of ids are taken (ids.ranges in {layout.policy})")


def base_of(layout: Layout, name: str) -> int | None:
    """A container's base; None if it has no range."""
    try:
        with open(f"{layout.root(name)}/idmap", "rb") as file:
            return int(file.read(32))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _known(base: int) -> bool:
    """Whether somebody else uses the range: systemd-machined answers for the machines it knows."""
    try:
        pwd.getpwuid(base)
    except KeyError:
        return False
    return True


def _subordinate(path: str) -> Iterator[tuple[int, int]]:
    """Ranges that the host gives its users, for containers of their own (subuid(5))."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        parts = line.split(":")
        if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
            yield int(parts[1]), int(parts[1]) + int(parts[2])


def user_namespace(uids: list[Range], gids: list[Range]) -> int:
    """A descriptor of a new user namespace with these maps; no process stays in it."""
    awake_r, awake_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            kernel.unshare(kernel.CLONE_NEWUSER)
            os.write(awake_w, b"x")
            signal.pause()
        finally:
            os._exit(1)
    try:
        os.close(awake_w)
        if os.read(awake_r, 1) != b"x":
            raise Refusal("MISSING_DEPENDENCY", "this host has no user namespaces (user.max_user_namespaces)")
        for kind, ranges in (("uid", uids), ("gid", gids)):
            with open(f"/proc/{pid}/{kind}_map", "w", encoding="ascii") as file:
                file.write("\n".join(f"{inside} {outside} {count}" for inside, outside, count in ranges))
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(awake_r)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
