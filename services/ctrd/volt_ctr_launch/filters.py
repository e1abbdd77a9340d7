"""The system-call filters that nspawn gives a payload, made once for each set of capabilities and kept till the boot.

nspawn spends three quarters of a start on compiling them (libseccomp), and they depend on nothing but nspawn itself and
the capabilities that it is told. So a rehearsal of nspawn with a program of the host's is looked at once; a start
installs what the kernel held then, byte for byte, and tells nspawn to make none.

Never from a container that somebody wants to run: what its payload added would go to every other.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import zlib

from volt_ctr_launch import cgroup, confinement, files, root, trace
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.kernel import PR_SET_PDEATHSIG, install_filter, prctl
from volt_ctr_launch.nspawn import ENVIRONMENT, INSIDE
from volt_ctr_launch.paths import Layout

_MACHINE = "volt-filters"
_PATIENCE = 20.0  # seconds


def get(layout: Layout, capabilities: list[str], group: str) -> list[bytes] | None:
    """The filters of a payload that nspawn is started for with the options `capabilities`, oldest first; None where the
    kernel does not give them away, and nspawn has to make them at each start. `group` is a cgroup for the rehearsal,
    below this unit's. Raises Refusal."""
    directory = f"{layout.run}/.filters"
    files.make_directory(directory, 0o700)
    key = _key(layout, capabilities)
    path = f"{directory}/{zlib.crc32(key.encode()):08x}"
    with files.locked(f"{directory}/.lock"):
        found = _kept(path, key)
        if found is None:
            found = _rehearse(layout, capabilities, directory, group)
            if found is None:
                return None
            kept = {"key": key, "filters": [program.hex() for program in found]}
            files.write_json(path, kept, 0o600, durable=False)
        return found


def _key(layout: Layout, capabilities: list[str]) -> str:
    """Another nspawn may have other filters."""
    found = os.stat(layout.nspawn)
    return json.dumps([found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, *capabilities])


def _kept(path: str, key: str) -> list[bytes] | None:
    """What an earlier start found; None if none did."""
    known = files.read_own(path)
    programs = known.get("filters")
    if known.get("key") != key or not isinstance(programs, list):
        return None
    return [bytes.fromhex(program) for program in programs]


def install(programs: list[bytes]) -> None:
    """Put this process, and all that come of it, under filters."""
    for program in programs:
        install_filter(program)


def _rehearse(layout: Layout, capabilities: list[str], directory: str, group: str) -> list[bytes] | None:
    """Run nspawn with an init that does nothing in a root that holds nothing, and read what the kernel has of it."""
    empty = f"{directory}/root"
    for path in (empty, f"{empty}/usr"):
        files.make_directory(path, 0o755)
    address = f"{directory}/notify"
    if os.path.lexists(address):
        os.unlink(address)
    options = ["--quiet", "--settings=no", "--keep-unit", "--register=no", f"--machine={_MACHINE}"]
    options += ["--link-journal=no", "--timezone=off", "--resolv-conf=off", "--console=pipe", f"--directory={empty}"]
    options += [f"--bind-ro={layout.init}:{INSIDE}/init", *capabilities]
    argv = [layout.nspawn, *options, "--", f"{INSIDE}/init", "-P"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.bind(address)
        pid = os.fork()
        if pid == 0:
            try:
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                cgroup.enter(group)
                root.private_namespaces("host")
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, 0)
                os.dup2(null, 1)
                os.execve(argv[0], argv, ENVIRONMENT | {"NOTIFY_SOCKET": address})
            finally:
                os._exit(127)
        try:
            leader = _leader(notify, pid)
            with trace.stopped_at_payload(leader, layout.nspawn, lambda: None):
                return confinement.filters_of(leader)
        except ProcessLookupError:
            raise _failed() from None
        except OSError:  # no CONFIG_CHECKPOINT_RESTORE, or under a filter itself
            return None
        finally:
            cgroup.kill(group)
            os.waitpid(pid, 0)
            files.clear_leftovers(_MACHINE)


def _leader(notify: socket.socket, nspawn: int) -> int:
    """The pid of the rehearsal's first process. Raises Refusal."""
    watch = select.poll()
    watch.register(notify, select.POLLIN)
    watch.register(handle := os.pidfd_open(nspawn), select.POLLIN)
    try:
        while (ready := dict(watch.poll(_PATIENCE * 1000))) and notify.fileno() in ready:
            for line in notify.recv(65536).decode("utf-8", "replace").splitlines():
                if line.startswith("X_NSPAWN_LEADER_PID="):
                    return int(line.partition("=")[2])
    finally:
        os.close(handle)
    raise _failed()


def _failed() -> Refusal:
    return Refusal("GENERAL", "systemd-nspawn can't be rehearsed for its system-call filters; the journal says why")
