"""Whether KVM runs a guest here. /dev/kvm may be there and answer, and still run none: so one is run.

The guest is a few instructions that write a byte to a port and halt, in 64-bit mode with paging: real mode
alone proves nothing, for KVM may emulate it where nothing else runs (a paravirtual host). It runs in a child with
a time limit, since a KVM that can't do it may spin. https://docs.kernel.org/virt/kvm/api.html
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
_GET_SUPPORTED_CPUID = 0xC008AE05
_SET_CPUID2 = 0x4008AE90
_GET_MSRS = 0xC008AE88
_SET_MSRS = 0x4008AE89
_ARCH_CAPABILITIES = 0x10A
_SREGS_SIZE = 0x138
_EXIT_IO, _EXIT_HLT = 2, 5

_GUEST = b"\xb0\x2a\xe6\x10\xf4"  # mov al, 42; out 0x10, al; hlt
_CODE, _TABLES, _MEMORY = 0x1000, 0x2000, 0x10000
_CR0, _CR4, _EFER = 0x80050033, 0x20, 0x500  # protection and paging; PAE; long mode
_SEGMENT = struct.Struct("=QIHBBBBBBBBBx")  # base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable


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
            return f"a guest of a few instructions did not end within {seconds:g} s"
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
    memory = mmap.mmap(-1, _MEMORY)
    memory[_CODE : _CODE + len(_GUEST)] = _GUEST
    for level, entry in enumerate((_TABLES + 0x1003, _TABLES + 0x2003, 0x83)):  # the first 2 MiB as they are
        memory[_TABLES + level * 0x1000 : _TABLES + level * 0x1000 + 8] = struct.pack("=Q", entry)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(machine, _SET_USER_MEMORY_REGION, struct.pack("=IIQQQ", 0, 0, 0, _MEMORY, address))
    cpu = fcntl.ioctl(machine, _CREATE_VCPU, 0)
    if not _takes_its_own_processor(kvm, cpu):
        return "the host's processor can't be given to a guest (QEMU aborts with -cpu host)"
    shared = mmap.mmap(cpu, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE))
    special = bytearray(_SREGS_SIZE)
    fcntl.ioctl(cpu, _GET_SREGS, special)
    _SEGMENT.pack_into(special, 0, 0, 0xFFFFFFFF, 8, 11, 1, 0, 0, 1, 1, 1, 0, 0)
    for segment in range(1, 6):
        _SEGMENT.pack_into(special, segment * _SEGMENT.size, 0, 0xFFFFFFFF, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0)
    struct.pack_into("=QQQQ", special, 224, _CR0, 0, _TABLES, _CR4)
    struct.pack_into("=Q", special, 264, _EFER)
    fcntl.ioctl(cpu, _SET_SREGS, bytes(special))
    registers = [0] * 18
    registers[16], registers[17] = _CODE, 2  # rip, rflags
    fcntl.ioctl(cpu, _SET_REGS, struct.pack("=18Q", *registers))
    for expected in (_EXIT_IO, _EXIT_HLT):
        fcntl.ioctl(cpu, _RUN, 0)
        reason = struct.unpack_from("=I", shared, 8)[0]
        if reason != expected:
            return f"a guest stopped for reason {reason} instead of {expected}"
        if reason == _EXIT_IO and shared[struct.unpack_from("=Q", shared, 40)[0]] != 42:
            return "a guest wrote another byte than it was told to"
    return ""


def _takes_its_own_processor(kvm: int, cpu: int) -> bool:
    """Set what it says it can: the features, and the register that says which flaws the processor has not.
    QEMU does, and aborts where this fails."""
    features = bytearray(struct.pack("=II", 256, 0) + bytes(256 * 40))
    fcntl.ioctl(kvm, _GET_SUPPORTED_CPUID, features)
    fcntl.ioctl(cpu, _SET_CPUID2, features)
    register = bytearray(struct.pack("=IIIIQ", 1, 0, _ARCH_CAPABILITIES, 0, 0))
    try:
        if fcntl.ioctl(kvm, _GET_MSRS, register) != 1:
            return True
    except OSError:  # before Linux 4.17 the question can't be asked
        return True
    taken: int = fcntl.ioctl(cpu, _SET_MSRS, register)
    return taken == 1
