"""The nspawn flavour: real systemd as pid 1, on this host's kernel, up in about a second."""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

from voltlab.failure import Failure
from voltlab.machine import Machine, start_time

BOOT_SECONDS = 120
STOP_SECONDS = 60
DEVICES = ("/dev/fuse", "/dev/kvm", "/dev/loop-control", "/dev/net/tun", *(f"/dev/loop{n}" for n in range(16)))
# Without these a machine's systemd would find a cgroup v1 tree on hybrid hosts, keys and BPF refused, and sysctls
# read-only. It is a machine for tests: what it may do to the host's kernel, root on this host may too.
ENVIRONMENT = {
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    "SYSTEMD_SECCOMP": "0",
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes",
}
# The process becomes systemd-nspawn, in a mount namespace of its own: when that goes, so do the mount and the
# loop device, whatever ended it.
START = """
cgroup=$1 disk=$2 root=$3 id=$4
shift 4
[ -z "$cgroup" ] || echo $$ >"$cgroup/cgroup.procs"
mount -o loop,noinit_itable,discard "$disk" "$root"
printf '%s\\n' "$id" >"$root/etc/machine-id"
exec systemd-nspawn "$@"
"""


def cgroup_for(name: str) -> Path | None:
    """A cgroup for the machine where no systemd runs to give one: two machines can't share their starter's."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    top = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    if top is None:
        return None
    place = top / "volt-lab" / name
    place.mkdir(parents=True, exist_ok=True)
    return place


def boot(machine: Machine) -> None:
    """Start the machine and wait until its systemd says that it is ready.

    The process gets no descriptor of the caller's: it outlives the call, and must not keep a pipe open.
    """
    unit = f"volt-lab-{machine.name}"
    root = machine.directory / "root"
    root.mkdir(exist_ok=True)
    prefix: list[str] = []
    if os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        prefix = ["systemd-run", "--scope", "--quiet", "--collect", f"--unit={unit}", "--property=Delegate=yes", "--"]
    else:
        machine.cgroup = str(cgroup_for(machine.name) or "")
    command: list[str | Path] = [
        *prefix,
        "unshare", "--mount", "--propagation", "private",
        "sh", "-euc", START, "sh", machine.cgroup, machine.disk, root, uuid.uuid4().hex,
        "--quiet", "--boot", "--register=no", "--keep-unit", "--settings=no", "--notify-ready=yes",
        f"--directory={root}", f"--machine={unit}", f"--hostname={machine.name}",
        "--capability=all", "--private-network", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
        "--console=read-only", *(f"--bind={path}" for path in DEVICES if os.path.exists(path)),
        # The host's devices are not the machine's to name, though it may write to /sys.
        "systemd.mask=systemd-udevd.service", "systemd.mask=systemd-udev-trigger.service",
        "systemd.mask=systemd-udevd-kernel.socket", "systemd.mask=systemd-udevd-control.socket",
    ]  # fmt: skip
    address = machine.directory / "notify"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, machine.log.open("ab") as log:
        notify.bind(str(address))
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            env={**os.environ, **ENVIRONMENT, "NOTIFY_SOCKET": str(address)},
        )  # fmt: skip
        machine.pid, machine.started = process.pid, start_time(process.pid)
        machine.save()
        try:
            machine.leader = wait_ready(notify, process)
        except Failure as failure:
            stop(machine)
            tail = machine.log.read_text(errors="replace").splitlines()[-15:]
            raise Failure("\n".join([str(failure), *tail])) from failure
    address.unlink()
    machine.save()


def wait_ready(notify: socket.socket, process: subprocess.Popen[bytes]) -> int:
    """The machine's leader, once nspawn has passed on READY=1."""
    leader = 0
    gone = os.pidfd_open(process.pid)
    mailbox = notify.fileno()
    try:
        end = time.monotonic() + BOOT_SECONDS
        while (left := end - time.monotonic()) > 0:
            readable, _, _ = select.select([mailbox, gone], [], [], left)
            if mailbox in readable:
                fields = dict(line.partition("=")[::2] for line in notify.recv(65536).decode().splitlines())
                leader = int(fields.get("X_NSPAWN_LEADER_PID", leader))
                if "READY" in fields and leader:
                    return leader
            elif gone in readable:
                raise Failure(f"systemd-nspawn ended with status {process.wait()} before the machine was up")
    finally:
        os.close(gone)
    raise Failure(f"the machine was not ready after {BOOT_SECONDS} s")


def enter(machine: Machine, argv: list[str], user: str | None, environment: list[str]) -> int:
    """Replace this process by `argv` in the machine's cgroup and namespaces, limited as systemd limits a service.

    By nsenter rather than `systemd-run --machine=`: that needs machined on this host, and takes 30 ms instead
    of 5. The exit status is exact, death by a signal included; when the caller dies, the command is killed.
    """
    scope = leader_cgroup(machine) / "lab-run"  # the machine's systemd leaves alone what it didn't make
    try:
        scope.mkdir(exist_ok=True)
        (scope / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        raise Failure(f"can't enter the cgroup of machine {machine.name}: {error}") from error
    inner = ["env", *environment, *argv] if environment else argv
    become = ["setpriv", "--pdeathsig", "KILL", "--reset-env"]
    if user is not None:
        # The primary group is known inside only.
        switch = 'u=$1; shift; g=$(id -g "$u") && exec setpriv --pdeathsig KILL --reuid "$u" --regid "$g" '
        become = ["sh", "-c", f'{switch} --init-groups --reset-env -- "$@"', "sh", user]
    else:
        become.append("--")
    namespaces = ["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    os.umask(0o022)
    os.execvp("nsenter", ["nsenter", "-t", str(machine.leader), *namespaces, "--", *become, *inner])


def leader_cgroup(machine: Machine) -> Path:
    """The cgroup that is the machine's own root: its systemd moved itself one below."""
    own = Path(f"/proc/{machine.leader}/cgroup").read_text().splitlines()
    path = next(line.partition("::")[2] for line in own if line.startswith("0::"))
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    top = next(Path(fields[1]) for fields in mounts if fields[2] == "cgroup2")
    return (top / path.lstrip("/")).parent


def power_off(machine: Machine) -> None:
    """Shut down in order, as a person would, and wait for it."""
    if not machine.running:
        return
    handle = os.pidfd_open(machine.pid)
    try:
        os.kill(machine.leader, signal.SIGRTMIN + 4)  # systemd: start poweroff.target
        if not select.select([handle], [], [], STOP_SECONDS)[0]:
            raise Failure(f"machine {machine.name} did not shut down in {STOP_SECONDS} s")
    finally:
        os.close(handle)
    stop(machine)


def stop(machine: Machine) -> None:
    """End the machine at once; nothing of it is left but its directory."""
    if machine.running:
        handle = os.pidfd_open(machine.pid)
        try:
            # Its pid 1 first: nspawn sees it go, and tidies up after itself.
            if machine.leader and start_time(machine.leader):
                os.kill(machine.leader, signal.SIGKILL)
                select.select([handle], [], [], 10)
            if machine.running:
                os.kill(machine.pid, signal.SIGKILL)
                select.select([handle], [], [], 10)
        finally:
            os.close(handle)
    if machine.cgroup:
        clear_cgroup(Path(machine.cgroup))
    for place in (f"propagate/volt-lab-{machine.name}", f"unix-export/volt-lab-{machine.name}"):
        shutil.rmtree(f"/run/systemd/nspawn/{place}", ignore_errors=True)
    machine.pid = machine.started = machine.leader = 0
    machine.cgroup = ""
    if machine.directory.exists():
        machine.save()


def clear_cgroup(top: Path) -> None:
    """Kill what is left in a cgroup and remove it, inner ones first."""
    if not top.exists():
        return
    end = time.monotonic() + 10
    while time.monotonic() < end:
        busy = False
        for place, _, _ in os.walk(top, topdown=False):
            for pid in Path(place, "cgroup.procs").read_text().split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
                busy = True
            try:
                os.rmdir(place)
            except OSError:
                busy = True
        if not busy:
            break
        time.sleep(0.01)
    try:
        top.parent.rmdir()  # when this was the last machine
    except OSError:
        pass
