"""The cached disks that machines start from: a Debian base, and the same with Volt installed.

A layer is a sparse ext4 image named by what went into it. A machine's disk is a copy of one, so a second `up`
costs a copy. ext4 of its own, with a journal, because the host's file system may be anything: overlayfs can't
be an overlay's upper, and a directory on a file system without a journal can't tell what a crash leaves.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voltlab.failure import Failure

AGENT = Path(__file__).with_name("agent.py")
TREE = Path(__file__).resolve().parents[3]
SCRIPTS = TREE / "scripts"
DISK_BYTES = 24 << 30  # sparse; room for a 10 GiB sparse file's copy
KEEP = 4  # layers of a kind that are kept
# What every machine has beyond a bootable Debian: what Volt needs, and what tests judge it with.
PACKAGES = (
    "acl", "attr", "catatonit", "dbus", "e2fsprogs", "erofs-utils", "iproute2", "libcap2-bin", "nftables", "polkitd",
    "procps", "python3", "python3-venv", "strace", "systemd", "systemd-container", "systemd-sysv", "util-linux", "zstd",
)  # fmt: skip
KERNEL = ("linux-image-cloud-amd64", "initramfs-tools", "udev")  # of a machine that boots its own
PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
INSTALLED = ("scripts/install", "scripts/need", "scripts/requirements.lock", "units")  # beside the wheels


def state() -> Path:
    """Where the lab keeps everything: VOLT_LAB_DIR, or /var/tmp/volt-lab. Safe to delete when no machine is up."""
    return Path(os.environ.get("VOLT_LAB_DIR", "/var/tmp/volt-lab"))


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold one of the lab's locks; two that need the same layer make it once."""
    state().mkdir(parents=True, exist_ok=True)
    with (state() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def shell(script: str, *arguments: str | Path) -> None:
    """Run a shell script in a mount namespace of its own, so that what it mounts goes with it."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script, "sh", *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"{done.stdout}{done.stderr}".strip() or f"failed: {script}")


def script(name: str, *arguments: str) -> str:
    """The last line that one of the project's scripts prints; what it says on the way goes to stderr."""
    done = subprocess.run(
        [SCRIPTS / name, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise Failure(f"scripts/{name} failed ({done.returncode})")
    return done.stdout.rstrip().rpartition("\n")[2]


def copy(source: Path, target: Path) -> None:
    """Copy a disk, holes and shared blocks kept where the file system can."""
    subprocess.run(
        ["cp", "--sparse=always", "--reflink=auto", "--", source, target], check=True, stdin=subprocess.DEVNULL
    )


def base(suite: str, extra: list[str], kernel: bool) -> Path:
    """The disk of a Debian with PACKAGES and `extra`, made at the first call."""
    packages = sorted({*PACKAGES, *extra, *(KERNEL if kernel else ())})
    key = digest([suite.encode(), *(name.encode() for name in packages), _MAKE_DISK.encode(), str(DISK_BYTES).encode()])
    if kernel:
        key = digest([key.encode(), AGENT.read_bytes()])
    disk = state() / "disks" / f"base-{suite}-{key}.ext4"
    with locked("base"):
        if not disk.exists():
            disk.parent.mkdir(exist_ok=True)
            tar = script("debian-root", f"--include={','.join(packages)}", suite)
            part = disk.with_suffix(".part")
            part.unlink(missing_ok=True)
            with part.open("wb") as file:
                file.truncate(DISK_BYTES)
            mount = state() / "disks" / f".mount-{os.getpid()}"
            mount.mkdir()
            try:
                shell(_MAKE_DISK, part, mount, tar, AGENT if kernel else "")
                part.rename(disk)
            finally:
                mount.rmdir()
                part.unlink(missing_ok=True)
            Path(tar).unlink()  # the disk holds the same
            prune(f"base-{suite}-")
    os.utime(disk)
    return disk


_MAKE_DISK = """
mke2fs -q -F -t ext4 -L volt-lab -J size=32 -E lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0 "$1"
mount -o loop,noinit_itable,discard "$1" "$2"
tar -x -p --numeric-owner --xattrs --xattrs-include='*' -C "$2" -f "$3"
cd "$2"
: >etc/machine-id
rm -f etc/hostname var/lib/dbus/machine-id
ln -s /etc/machine-id var/lib/dbus/machine-id
ln -sf /usr/share/zoneinfo/UTC etc/localtime
printf '127.0.0.1 localhost\\n::1 localhost\\n' >etc/hosts
printf 'LABEL=volt-lab / ext4 noinit_itable,discard 0 0\\n' >etc/fstab
# A machine boots often and shortly: nothing that only costs start time.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer getty@tty1.service serial-getty@ttyS0.service systemd-networkd-wait-online.service nftables.service; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
# The journal stays over a reboot: a test may ask what happened before a power cut.
mkdir -p var/log/journal
if [ -n "$4" ]; then
    # A kernel of its own, which has to know just one kind of disk, and an agent instead of a network.
    printf 'MODULES=list\nCOMPRESS=lz4\n' >etc/initramfs-tools/conf.d/volt-lab
    printf 'virtio_pci\nvirtio_blk\next4\n' >>etc/initramfs-tools/modules
    mount -t proc proc proc
    chroot . update-initramfs -u -k all >/dev/null
    umount proc
    printf 'virtio_console\n' >etc/modules-load.d/volt-lab.conf
    install -D -m 0644 "$4" usr/lib/volt-lab/agent.py
    cat >etc/systemd/system/volt-lab-agent.service <<END
[Unit]
Description=Runs what the lab asks for
ConditionVirtualization=vm
Wants=modprobe@virtio_console.service
After=modprobe@virtio_console.service systemd-udev-settle.service
DefaultDependencies=no
Before=multi-user.target

[Service]
ExecStartPre=/bin/sh -c 'until [ -e /dev/vport0p8 ] || [ -e /dev/vport1p8 ] || [ -e /dev/vport2p8 ]; do sleep 0.1; done'
ExecStart=/usr/bin/python3 -IS /usr/lib/volt-lab/agent.py
Restart=always
KillMode=process
TasksMax=infinity
LimitNOFILE=1024:524288

[Install]
WantedBy=multi-user.target
END
    mkdir -p etc/systemd/system/multi-user.target.wants
    ln -s ../volt-lab-agent.service etc/systemd/system/multi-user.target.wants/
fi
cd /
umount "$2"
"""


def volt_key(wheels: Path) -> str:
    """A name for what `scripts/install --wheels` would install from this tree now."""
    parts = [path.name.encode() + path.read_bytes() for path in sorted(wheels.glob("*.whl"))]
    for name in INSTALLED:
        top = TREE / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file():
                parts.append(str(path.relative_to(TREE)).encode() + path.read_bytes())
    return digest(parts)


def digest(parts: list[bytes]) -> str:
    """A short name for some bytes; where one part ends counts."""
    running = hashlib.sha256()
    for part in parts:
        running.update(len(part).to_bytes(8, "big") + part)
    return running.hexdigest()[:12]


def prune(prefix: str) -> None:
    """Forget all but the few layers used last."""
    disks = sorted((state() / "disks").glob(f"{prefix}*.ext4"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in disks[KEEP:]:
        old.unlink(missing_ok=True)
