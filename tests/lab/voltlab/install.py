"""Giving a new machine its disk: the Debian base, with Volt installed in it by scripts/install."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

from voltlab import layers, machine, nspawn
from voltlab.failure import Failure
from voltlab.machine import Machine

HOST_PACKAGES = ("e2fsprogs", "mmdebstrap", "systemd-container", "util-linux")
SETTLE_SECONDS = 300


def prepare(target: Machine, include: str, *, bare: bool) -> None:
    """Copy the right layer to the machine's disk, making it first where it is missing."""
    base = layers.base(target.suite, [name for name in include.split(",") if name], target.flavour == "vm")
    layer = base if bare else with_volt(target.suite, base)
    target.layer = layer.stem
    layers.copy(layer, target.disk)
    target.save()


def with_volt(suite: str, base: Path) -> Path:
    """The layer with Volt as it is in this tree, installed on the running system as on a user's machine."""
    wheels = Path(layers.script("build-wheels", "--python", layers.PYTHON[suite]))
    disk = base.parent / f"volt-{suite}-{layers.digest([base.stem.encode(), layers.volt_key(wheels).encode()])}.ext4"
    with layers.locked(f"volt-{suite}"):
        if not disk.exists():
            one = machine.create(f"install-{suite}-{os.getpid()}", suite, "nspawn")
            try:
                layers.copy(base, one.disk)
                nspawn.boot(one)
                send(one, wheels)
                nspawn.power_off(one)
                one.disk.rename(disk)
            finally:
                nspawn.stop(one)
                one.remove()
            layers.prune(f"volt-{suite}-")
    os.utime(disk)
    return disk


def send(target: Machine, wheels: Path) -> None:
    """Run scripts/install in a machine from a copy of just what it needs, removed again afterwards."""
    archive = target.directory / "volt.tar"
    with tarfile.open(archive, "w") as tar:
        for name in layers.INSTALLED:
            tar.add(layers.TREE / name, arcname=f"volt/{name}")
        tar.add(wheels, arcname="volt/wheels")
    inner = "mkdir /opt/volt-install && cd /opt/volt-install && tar -x --no-same-owner -f - && " \
        "volt/scripts/install --wheels volt/wheels && cd / && rm -rf /opt/volt-install"  # fmt: skip
    lab = layers.TREE / "tests/lab/lab"
    with archive.open("rb") as file:
        done = subprocess.run(
            [lab, "run", "--name", target.name, "--", "sh", "-euc", inner],
            stdin=file, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=SETTLE_SECONDS, check=False,
        )  # fmt: skip
    if done.returncode:
        raise Failure(f"scripts/install failed in the machine ({done.returncode}):\n{done.stdout.rstrip()}")
