"""A machine with a kernel of its own for each Debian suite, one at a time: these tests are about kernels and disks.

bookworm's kernel is 6.1, trixie's 6.12. VOLT_SUITES (default: bookworm,trixie) says which. VOLT_VM=NAME uses the
machine of that name, which is up, for its suite, and leaves it up: emulation makes a boot dear.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from system.conftest import IMAGE, LAB, Machine, debian_root

__all__ = ["debian_root"]  # a fixture of the system tests

SLOW = 600.0  # an emulated processor's patience, beside other work


class VirtualMachine(Machine):
    """As the system tests have it, with an emulated machine's patience."""

    def run(self, *command: str, timeout: float = SLOW, **options: object) -> subprocess.CompletedProcess[str]:
        return super().run(*command, timeout=timeout, **options)  # type: ignore[arg-type]

    def push(self, source: object, target: str) -> None:
        subprocess.run([LAB, "push", "--name", self.name, str(source), target], check=True, timeout=SLOW)

    def wait(self, script: str, seconds: float = SLOW) -> None:
        super().wait(script, seconds)


def up(name: str, suite: str, *options: str) -> VirtualMachine:
    """Boot a machine: a new one, or one that lost its power."""
    command = [LAB, "up", "--flavour", "vm", "--suite", suite, "--name", name, *options]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=1800)
    return VirtualMachine(name, suite)


def down(name: str) -> None:
    subprocess.run([LAB, "down", "--name", name], stdin=subprocess.DEVNULL, timeout=120)


@pytest.fixture(scope="session", params=os.environ.get("VOLT_SUITES", "bookworm,trixie").split(","))
def machine(request: pytest.FixtureRequest, debian_root) -> Iterator[VirtualMachine]:
    """With the suite's own Debian root as IMAGE, and unpacked in /root/source."""
    suite = request.param
    given = os.environ.get("VOLT_VM", "")
    name = given or f"v{os.getpid()}-{suite}"
    one = VirtualMachine(given, suite) if given else up(name, suite)
    try:
        if one.run("test", "-d", "/root/source").returncode:
            one.push(debian_root(suite), "/root/image.tar")
            one.sh("mkdir /root/part && tar -C /root/part --xattrs --xattrs-include='*' --acls --numeric-owner "
                   "-xpf /root/image.tar && rm /root/image.tar && mv /root/part /root/source")  # fmt: skip
            one.volt("image", "import", IMAGE, "/root/source", check=True)
        yield one
    finally:
        if not given:
            down(name)


@pytest.fixture
def clean(machine: VirtualMachine) -> Iterator[VirtualMachine]:
    """The machine, with no container before the test and none after it."""
    machine.clean()
    yield machine
    machine.clean()
