"""The vm flavour: Debian's own kernel under QEMU, without KVM: cgroup v2, and power that can be cut."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import time
import tty
import uuid
from pathlib import Path

from voltlab import agent, layers
from voltlab.failure import Failure
from voltlab.machine import Machine, start_time

HOST_PACKAGES = ("qemu-system-x86",)
BOOT_SECONDS = 300
PORTS = 8  # commands at the same time
ASK_AGAIN_SECONDS = 1.0
MEMORY = "2048"
# Debian's kernel and an initramfs that knows just this disk; see layers._MAKE_DISK. Nothing in the machine is
# a secret, so it needs no mitigations, and emulation makes those dear.
CMDLINE = "root=/dev/vda rw rootflags=noinit_itable console=ttyS0 quiet mitigations=off panic=-1 systemd.show_status=1"
GET_KERNEL = """
mount -o loop,ro,noload "$1" "$2"
cp "$(ls "$2"/boot/vmlinuz-* | tail -n 1)" "$3/vmlinuz"
cp "$(ls "$2"/boot/initrd.img-* | tail -n 1)" "$3/initrd"
umount "$2"
"""


def boot(machine: Machine) -> None:
    """Start QEMU and wait until the machine runs a command. A disk that had its power cut is booted as it is."""
    directory = machine.directory
    if not (directory / "vmlinuz").exists():
        root = directory / "root"
        root.mkdir(exist_ok=True)
        layers.shell(GET_KERNEL, machine.disk, root, directory)
    # Nobody cuts this host's power: a flush need not go further than QEMU, or than the log of writes.
    drive = f"driver=file,filename={machine.disk},node-name=disk,discard=unmap,cache.no-flush=on"
    top = "disk"
    command: list[str | Path] = []
    if os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        command = ["systemd-run", "--scope", "--quiet", "--collect", f"--unit=volt-lab-{machine.name}", "--"]
    command += [
        "qemu-system-x86_64", "-name", machine.name, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY,
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-kernel", directory / "vmlinuz", "-initrd", directory / "initrd", "-append", CMDLINE, "-serial", "stdio",
        "-blockdev", drive,
    ]  # fmt: skip
    if machine.log_writes:
        log = directory / "writes.log"
        log.touch()
        command += [
            "-blockdev", f"driver=file,filename={log},node-name=log,cache.no-flush=on",
            "-blockdev", "driver=blklogwrites,node-name=logged,file=disk,log=log,"
            + ("log-append=on" if log.stat().st_size else "log-sector-size=512"),
        ]  # fmt: skip
        # QEMU logs the data of a write of zeros apart from its entry, with others in between; Linux writes them then.
        top = "logged,write-zeroes=off"
    command += ["-device", f"virtio-blk-pci,drive={top}", "-device", f"virtio-serial-pci,max_ports={PORTS + 1}"]
    for number in range(1, PORTS + 1):
        command += [
            "-chardev", f"socket,id=port{number},path={port(machine, number)},server=on,wait=off",
            "-device", f"virtserialport,chardev=port{number},name=volt-lab.{number},nr={number}",
        ]  # fmt: skip
    with machine.log.open("ab") as log_file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, start_new_session=True, cwd="/"
        )
    machine.pid, machine.started = process.pid, start_time(process.pid)
    machine.save()
    probe = ["systemctl", "is-system-running", "--wait"]
    lab = [str(Path(__file__).resolve().parents[1] / "lab"), "run", "--name", machine.name, "--", *probe]
    try:
        end = time.monotonic() + BOOT_SECONDS
        while not port(machine, PORTS).exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        done = subprocess.run(lab, stdin=subprocess.DEVNULL, capture_output=True, timeout=BOOT_SECONDS, check=False)
        if done.stdout.strip() not in (b"running", b"degraded"):
            raise Failure(f"the machine did not come up: {(done.stdout + done.stderr).decode().strip()}")
    except (Failure, subprocess.TimeoutExpired) as failure:
        stop(machine)
        tail = machine.log.read_text(errors="replace").splitlines()[-15:]
        raise Failure("\n".join([str(failure), *tail])) from failure


def port(machine: Machine, number: int) -> Path:
    """The socket on which QEMU listens for one of the machine's serial ports."""
    return machine.directory / f"port{number}"


def connect(machine: Machine) -> tuple[socket.socket, int]:
    """A free port, held by a lock for as long as the descriptor returned is open."""
    for number in range(1, PORTS + 1):
        lock = os.open(machine.directory / f"port{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        if os.read(lock, 1):
            # Whoever had it before was killed: give the agent the time to see that, and to drop what was unread.
            time.sleep(0.5)
        os.pwrite(lock, b"x", 0)
        end = socket.socket(socket.AF_UNIX)
        end.connect(str(port(machine, number)))
        return end, lock
    raise Failure(f"machine {machine.name} runs {PORTS} commands already, which is all it can at once")


def enter(machine: Machine, argv: list[str], user: str | None, environment: list[str]) -> int:
    """Run `argv` in the machine with this process' streams; its exit status, as a shell would give it."""
    end, lock = connect(machine)
    raw = termios.tcgetattr(0) if os.isatty(0) else None
    try:
        if raw:
            tty.setraw(0)
        code = carry(end, ask(end, argv, user, environment))
        os.ftruncate(lock, 0)
    except OSError as error:
        raise Failure(f"machine {machine.name} went away: {error}") from error
    finally:
        if raw:
            termios.tcsetattr(0, termios.TCSADRAIN, raw)
        end.close()
    return code if code >= 0 else 128 - code


def packed(kind: int, data: bytes) -> bytes:
    """A frame."""
    return agent.HEADER.pack(kind, len(data)) + data


def ask(end: socket.socket, argv: list[str], user: str | None, environment: list[str]) -> bytearray:
    """Send the request until the agent has accepted it; what came after that.

    What is sent while the agent reopens its port after the session before is lost, and so is not answered. What
    comes before the acceptance is the rest of that session.
    """
    identity = uuid.uuid4().hex
    request = {"id": identity, "argv": argv, "user": user, "env": environment}
    accepted = packed(agent.ACCEPTED, identity.encode())
    buffer = bytearray()
    while accepted not in buffer:
        if not select.select([end], [], [], 0)[0]:
            end.sendall(packed(agent.REQUEST, json.dumps(request).encode()))
        if select.select([end], [], [], ASK_AGAIN_SECONDS)[0]:
            piece = end.recv(1 << 18)
            if not piece:
                raise ConnectionResetError("it stopped")
            buffer += piece
    return buffer[buffer.index(accepted) + len(accepted) :]


def carry(end: socket.socket, buffer: bytearray) -> int:
    """Pass streams until the command has ended; its status. `buffer` is what has been received already."""
    reading = [0]
    while (code := frames(buffer)) is None:
        ready, _, _ = select.select([end.fileno(), *reading], [], [])
        if 0 in ready:
            data = os.read(0, agent.CHUNK)
            end.sendall(packed(agent.STDIN, data))
            if not data:
                reading = []
        if end.fileno() in ready:
            piece = end.recv(1 << 18)
            if not piece:
                raise ConnectionResetError("it stopped")
            buffer += piece
    return code


def frames(buffer: bytearray) -> int | None:
    """Take the whole frames off the buffer, write out what they carry; the command's status once that has come."""
    while len(buffer) >= agent.HEADER.size:
        kind, size = agent.HEADER.unpack_from(buffer)
        whole = agent.HEADER.size + size
        if len(buffer) < whole:
            break
        body = bytes(buffer[agent.HEADER.size : whole])
        del buffer[:whole]
        if kind == agent.EXIT:
            return int(json.loads(body))
        if kind != agent.ACCEPTED:
            out = sys.stdout.buffer if kind == agent.STDOUT else sys.stderr.buffer
            out.write(body)
            out.flush()
    return None


def power_cut(machine: Machine) -> None:
    """As if the plug were pulled: QEMU is killed, and the disk stays as it is."""
    if machine.running:
        handle = os.pidfd_open(machine.pid)
        try:
            os.kill(machine.pid, signal.SIGKILL)
            select.select([handle], [], [], 10)
        finally:
            os.close(handle)
    for number in range(1, PORTS + 1):
        port(machine, number).unlink(missing_ok=True)
        (machine.directory / f"port{number}.lock").unlink(missing_ok=True)
    machine.pid = machine.started = 0
    if machine.directory.exists():
        machine.save()


def stop(machine: Machine) -> None:
    """End the machine at once."""
    power_cut(machine)
