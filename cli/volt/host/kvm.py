"""Whether KVM runs a guest here. /dev/kvm may be there and answer, and still run none: so one is run.

The guest is three instructions of real mode that write a byte to a port and halt. It runs in a child with a
time limit, since a host's KVM that can't do it may spin. https://docs.kernel.org/virt/kvm/api.html
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import select
import signal
import struct

DEVICE = "/dev/kvm"
SECONDS = 3.0

_GET_API_VERSION = 0xAE00
_CREATE_VM = 0xAE01
_GET_VCPU_MMAP_SIZE = 0xAE04
_CREATE_VCPU = 0xAE41
_SET_TSS_ADDR = 0xAE47
_RUN = 0xAE80
_SET_USER_MEMORY_REGION = 0x4020AE46
_GET_SREGS = 0x8138AE83
_SET_SREGS = 0x4138AE84
_SET_REGS = 0x4090AE82
_SREGS_SIZE = 0x138
_EXIT_IO, _EXIT_HLT = 2, 5

_GUEST = b"\xb0\x2a\xe6\x10\xf4"  # mov al, 42; out 0x10, al; hlt
_AT = 0x1000


def probe(device: str = DEVICE, seconds: float = SECONDS) -> str:
    """Empty if a guest ran; else why not, in words."""
    if not os.path.exists(device):
        return "there is no /dev/kvm"
    if not os.access(device, os.R_OK | os.W_OK):
        return "this user may not open /dev/kvm"
    if platform.machine() != "x86_64":
        return "it is not tried on this architecture"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = _guest(device)
        except BaseException as error:  # noqa: BLE001 - a child of fork has nobody to raise to
            text = f"{type(error).__name__}: {error}"
        os.write(writer, (text or "ok").encode())
        os._exit(0)
    os.close(writer)
    try:
        if not select.select([reader], [], [], seconds)[0]:
            return f"a guest of three instructions did not end within {seconds:g} s"
        answer = os.read(reader, 4096).decode(errors="replace")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
    return "" if answer == "ok" else answer or "the probe died"


def _guest(device: str) -> str:
    """Run it here. Empty if it did what it should."""
    kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    version = fcntl.ioctl(kvm, _GET_API_VERSION)
    if version != 12:
        return f"its API has version {version}"
    machine = fcntl.ioctl(kvm, _CREATE_VM, 0)
    try:
        fcntl.ioctl(machine, _SET_TSS_ADDR, 0x0FFBD000)  # older Intel processors want it for real mode
    except OSError:
        pass
    memory = mmap.mmap(-1, 0x1000)
    memory.write(_GUEST)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(machine, _SET_USER_MEMORY_REGION, struct.pack("=IIQQQ", 0, 0, _AT, 0x1000, address))
    cpu = fcntl.ioctl(machine, _CREATE_VCPU, 0)
    shared = mmap.mmap(cpu, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE))
    special = bytearray(_SREGS_SIZE)
    fcntl.ioctl(cpu, _GET_SREGS, special)
    special[0:8] = bytes(8)  # the code segment's base and, below, its selector
    special[12:14] = bytes(2)
    fcntl.ioctl(cpu, _SET_SREGS, bytes(special))
    registers = [0] * 18
    registers[16], registers[17] = _AT, 2  # rip, rflags
    fcntl.ioctl(cpu, _SET_REGS, struct.pack("=18Q", *registers))
    for expected in (_EXIT_IO, _EXIT_HLT):
        fcntl.ioctl(cpu, _RUN, 0)
        reason = struct.unpack_from("=I", shared, 8)[0]
        if reason != expected:
            return f"a guest stopped for reason {reason} instead of {expected}"
        if reason == _EXIT_IO and shared[struct.unpack_from("=Q", shared, 40)[0]] != 42:
            return "a guest wrote another byte than it was told to"
    return ""
