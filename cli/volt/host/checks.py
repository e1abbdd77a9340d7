"""What a host needs for Volt, each need as a question with an answer and an advice."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

from volt.host import kvm
from volt_common import landlock

OK, WARN, MISSING = "ok", "warn", "missing"
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 16384, 1 << 18


class Finding(NamedTuple):
    """One line of `volt doctor`."""

    name: str
    state: str
    detail: str
    advice: str = ""


def findings() -> Iterator[Finding]:
    """Every check, in the order of how much depends on it."""
    for check in CHECKS:
        yield check()


def kernel() -> Finding:
    release = os.uname().release
    if version(release) >= (6, 6):
        return Finding("kernel", OK, release)
    if version(release) >= (5, 19):
        return Finding("kernel", OK, f"{release}: views hold their data; from 6.6 on it is shared")
    return Finding("kernel", MISSING, release, "Containers need 5.19: Debian 12 or newer.")


def file_systems() -> Finding:
    lacking = [name for name in ("erofs", "overlay") if not has_file_system(name)]
    if lacking:
        advice = "Boot Debian's own kernel, or build one with CONFIG_EROFS_FS and CONFIG_OVERLAY_FS."
        return Finding("file systems", MISSING, f"no {' and no '.join(lacking)}", advice)
    return Finding("file systems", OK, "erofs, overlay")


def data_only() -> Finding:
    name = "shared file data"
    if version(os.uname().release) < (6, 5):
        return Finding(name, OK, "not in this kernel; views hold the data themselves")
    tried = try_overlay()
    if tried is None:
        return Finding(name, OK, "by the kernel's version; root can try it")
    if tried:
        return Finding(name, WARN, f"an overlay with a data-only layer failed: {tried}", "Report it, with `uname -a`.")
    return Finding(name, OK, "overlay with a data-only layer was mounted")


def cgroups() -> Finding:
    wanted = ("cpu", "memory", "pids", "io")
    try:
        with open("/sys/fs/cgroup/cgroup.controllers") as file:
            here = file.read().split()
    except OSError:
        advice = "Boot without systemd.unified_cgroup_hierarchy=0 and cgroup_no_v1=. Limits fail until then."
        return Finding("cgroups", WARN, "version 2 is not what /sys/fs/cgroup is", advice)
    lacking = [name for name in wanted if name not in here]
    if lacking:
        advice = "Limits on these fail: boot with cgroup_enable=memory, and no version 1 mounted."
        return Finding("cgroups", WARN, f"version 2 without {', '.join(lacking)}", advice)
    return Finding("cgroups", OK, f"version 2 with {', '.join(wanted)}")


def confinement() -> Finding:
    abi = landlock.abi()
    if abi == 0:
        return Finding("landlock", WARN, "off", "Boot with lsm=landlock,… to confine the daemons further.")
    return Finding("landlock", OK, str(landlock.enforceable(abi)))


def user_namespaces() -> Finding:
    if not os.path.exists("/proc/self/ns/user"):
        return Finding("user namespaces", MISSING, "not in this kernel", "It needs CONFIG_USER_NS.")
    try:
        with open("/proc/sys/user/max_user_namespaces") as file:
            if int(file.read()) == 0:
                return Finding("user namespaces", MISSING, "switched off", "sysctl user.max_user_namespaces=15000")
    except (OSError, ValueError):
        pass
    return Finding("user namespaces", OK, "each container gets 65,536 ids of its own")


def idmapped_mounts() -> Finding:
    release = version(os.uname().release)
    if release < (5, 19):
        return Finding("idmapped mounts", MISSING, "not below an overlay before 5.19", "Use a newer kernel.")
    return Finding("idmapped mounts", OK, "below an overlay since 5.19")


def systemd() -> Finding:
    found = program_version(["systemctl", "--version"])
    if found is None:
        return Finding("systemd", MISSING, "not installed", "apt install systemd systemd-sysv")
    if not os.path.isdir("/run/systemd/system"):
        return Finding("systemd", MISSING, f"{found} is installed, and is not what runs here", "Boot with it as PID 1.")
    if found < 252:
        return Finding("systemd", MISSING, f"{found}", "Volt needs 252: Debian 12 or newer.")
    return Finding("systemd", OK, str(found))


def nspawn() -> Finding:
    found = program_version(["systemd-nspawn", "--version"])
    if found is None:
        return Finding("nspawn", MISSING, "not installed", "apt install systemd-container")
    return Finding("nspawn", OK if found >= 252 else MISSING, str(found), "" if found >= 252 else "Volt needs 252.")


def system_bus() -> Finding:
    if not os.path.exists("/run/dbus/system_bus_socket"):
        return Finding("system bus", MISSING, "no socket at /run/dbus", "apt install dbus; systemctl start dbus.socket")
    return Finding("system bus", OK, "/run/dbus/system_bus_socket")


def polkit() -> Finding:
    services = "/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service"
    if not os.path.exists(services):
        return Finding("polkit", MISSING, "not installed", "apt install polkitd")
    rule = "/etc/polkit-1/rules.d", "/usr/share/polkit-1/rules.d"
    return Finding("polkit", OK, "installed; rules in " + " and ".join(path for path in rule if os.path.isdir(path)))


def init() -> Finding:
    if shutil.which("catatonit") is None:
        return Finding("init", MISSING, "no catatonit", "apt install catatonit")
    return Finding("init", OK, "catatonit")


def builder() -> Finding:
    if shutil.which("mmdebstrap") is None:
        return Finding("mmdebstrap", WARN, "not installed", "apt install mmdebstrap, for `volt image build`")
    return Finding("mmdebstrap", OK, "installed")


def accelerator() -> Finding:
    why = kvm.probe()
    if not why:
        return Finding("kvm", OK, "a guest ran")
    return Finding("kvm", WARN, why, "Virtual machines will be emulated, about ten times slower.")


def daemons(run: str = "/run/volt") -> Finding:
    sockets = [f"{run}/{name}" for name in ("casd.sock", "casd.fd", "ctrd.sock", "ctrd.fd")]
    lacking = [os.path.basename(path) for path in sockets if not os.path.exists(path)]
    if lacking:
        return Finding("daemons", WARN, f"no {', '.join(lacking)} in {run}", "systemctl start volt.target")
    if not all(os.access(path, os.W_OK) for path in sockets):
        return Finding("daemons", WARN, "this user may not talk to them", "usermod -aG volt USER, and log in again")
    return Finding("daemons", OK, "their sockets listen")


def space(path: str = "/var/lib/volt") -> Finding:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    text = f"{free / (1 << 30):.1f} GiB free at {path}"
    if free < 1 << 30:
        return Finding("disk", WARN, text, "A Debian image takes about 0.3 GiB.")
    return Finding("disk", OK, text)


CHECKS: tuple[Callable[[], Finding], ...] = (
    kernel,
    file_systems,
    data_only,
    cgroups,
    user_namespaces,
    idmapped_mounts,
    confinement,
    systemd,
    nspawn,
    system_bus,
    polkit,
    init,
    daemons,
    space,
    builder,
    accelerator,
)


def version(release: str) -> tuple[int, int]:
    """(6, 12) of `6.12.9-amd64`."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def program_version(command: list[str]) -> int | None:
    """252 of `systemd 252 (252.38-1~deb12u1)`; None if it can't be run."""
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\b(\d{3})\b", text)
    return int(found[1]) if found else None


def has_file_system(name: str) -> bool:
    """Built in, loaded, or there to be loaded."""
    with open("/proc/filesystems") as file:
        if any(line.split()[-1:] == [name] for line in file):
            return True
    modules = f"/lib/modules/{os.uname().release}"
    for index in ("modules.builtin", "modules.dep"):
        try:
            with open(f"{modules}/{index}") as file:
                if any(re.search(rf"/{name}\.ko", line.split(":")[0]) for line in file):
                    return True
        except OSError:
            continue
    return False


def try_overlay() -> str | None:
    """Mount one with a data-only layer, in a mount namespace of a child's own. Empty if it worked, else why it
    did not; None when this user can't have such a namespace."""
    if platform.system() != "Linux":
        return None
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            answer = _mount_overlay()
        except BaseException as error:  # noqa: BLE001 - a child of fork has nobody to raise to
            answer = str(error)
        os.write(writer, b"-" if answer is None else b"+" + answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return data[1:].decode() if data.startswith(b"+") else None


def _mount_overlay() -> str | None:
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0:
        return None
    if libc.unshare(_CLONE_NEWNS):
        return None
    libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    if libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, None):
        return None
    for name in ("meta", "data", "at"):
        os.mkdir(f"/run/{name}")
    options = b"lowerdir=/run/meta::/run/data,metacopy=on,redirect_dir=on"
    if libc.mount(b"overlay", b"/run/at", b"overlay", 1, options):
        return os.strerror(ctypes.get_errno())
    return ""
