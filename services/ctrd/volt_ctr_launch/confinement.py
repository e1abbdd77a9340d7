"""What confines a payload, read from its first process before it runs, and put on what exec adds later.

nspawn's seccomp filters can't be had from outside by reading /proc, so they are taken out of the kernel with ptrace(2)
once, between nspawn's set-up and the payload's first instruction, and kept in a file of root's.
"""

from __future__ import annotations

import errno
import os
import resource

from volt_ctr_launch import files, kernel, trace
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.record import Record

_LIMITS = tuple(sorted(number for name, number in vars(resource).items() if name.startswith("RLIMIT_")))
_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
"""By number, without CAP_ (linux/capability.h)."""


class Confinement(Record):
    """Of a payload's first process. `born` tells its pid from a later process with the same number."""

    leader: int
    born: int
    id_base: int
    cgroup: str
    bounding: int
    inheritable: int
    effective: int
    no_new_privs: bool
    limits: dict[int, tuple[int, int]]
    filters: list[bytes]
    env: dict[str, str]
    workdir: str


def capture(
    leader: int, id_base: int, cgroup: str, env: dict[str, str], workdir: str, filters: list[bytes] | None
) -> Confinement:
    """Read everything of a process that `trace` holds, and keep what the payload was given. `filters` are those that
    were installed for it; None: nspawn has made them."""
    state = status(leader)
    if filters is None or len(filters) != int(state["Seccomp_filters"]) - int(status("self")["Seccomp_filters"]):
        filters = filters_of(leader)
    return Confinement(
        leader,
        born(leader),
        id_base,
        cgroup,
        int(state["CapBnd"], 16),
        int(state["CapInh"], 16),
        int(state["CapEff"], 16),
        state["NoNewPrivs"] == "1",
        {number: resource.prlimit(leader, number) for number in _LIMITS},
        filters,
        env,
        workdir,
    )


def filters_of(pid: int) -> list[bytes]:
    """The seccomp filters of a process that `trace` holds, oldest first, without those that this process is under
    too, which every launcher's children inherit. Raises OSError."""
    found = trace.filters(pid)
    if len(found) != int(status(pid)["Seccomp_filters"]):
        raise OSError(errno.EIO, "not every seccomp filter can be read")
    return found[int(status("self")["Seccomp_filters"]) :]


def status(pid: int | str) -> dict[str, str]:
    """proc(5), /proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def born(pid: int) -> int:
    """When a process began, in clock ticks since the boot: proc(5), field 22."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def save(path: str, found: Confinement) -> None:
    """Keep it where only root reads."""
    value = found.asdict() | {"filters": [code.hex() for code in found.filters]}
    files.write_json(path, value, 0o600, durable=False)


def load(path: str) -> Confinement:
    """Raises Refusal (CONFLICT) if the container does not run."""
    value = files.read_own(path)
    try:
        limits, filters, env = value["limits"], value["filters"], value["env"]
        assert isinstance(limits, dict)
        assert isinstance(filters, list)
        assert isinstance(env, dict)
        numbers = {k: v for k, v in value.items() if isinstance(v, int)}
        return Confinement(
            numbers["leader"],
            numbers["born"],
            numbers["id_base"],
            str(value["cgroup"]),
            numbers["bounding"],
            numbers["inheritable"],
            numbers["effective"],
            bool(value["no_new_privs"]),
            {int(number): (soft, hard) for number, (soft, hard) in limits.items()},
            [bytes.fromhex(code) for code in filters],
            {str(key): str(text) for key, text in env.items()},
            str(value["workdir"]),
        )
    except (KeyError, AssertionError):
        raise Refusal("CONFLICT", "the container is not running") from None


def open_leader(found: Confinement) -> int:
    """A pidfd of the first process; it is that one and no later. Raises Refusal (CONFLICT) when it has gone."""
    try:
        descriptor = os.pidfd_open(found.leader)
        if born(found.leader) == found.born:
            return descriptor
        os.close(descriptor)
    except OSError:
        pass
    raise Refusal("CONFLICT", "the container is not running")


def limit(found: Confinement) -> None:
    """Give this process the payload's resource limits. Raising one needs CAP_SYS_RESOURCE on the host."""
    for number, pair in found.limits.items():
        resource.setrlimit(number, pair)


def bound(found: Confinement) -> None:
    """Drop from the bounding set what the payload's does not have, and add its seccomp filters. Needs every
    capability over the user namespace, and keeps them."""
    for number in range(64):
        try:
            if not found.bounding >> number & 1:
                kernel.prctl(kernel.PR_CAPBSET_DROP, number)
        except OSError:  # EINVAL: past the last capability
            break
    for program in found.filters:
        kernel.install_filter(program)


def become(found: Confinement, uid: int, gid: int, groups: list[int]) -> None:
    """Take on a user's ids and, if it is root, the payload's capabilities; nobody else has any."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if uid == 0:
        kernel.capset(found.effective, found.effective, found.inheritable)
    else:
        kernel.capset(0, 0, 0)
    if found.no_new_privs:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def describe(found: Confinement) -> dict[str, str]:
    """In words, for explain."""
    held = [name for number, name in enumerate(_NAMES.split()) if found.bounding >> number & 1]
    return {
        "capabilities": " ".join(f"CAP_{name}" for name in held) or "none",
        "seccomp": f"{len(found.filters)} filters" if found.filters else "none",
        "no_new_privs": "yes" if found.no_new_privs else "no",
    }
