"""Where things are, and what names look like. Tests give another root; nothing else does."""

from __future__ import annotations

import re
from typing import NamedTuple

from volt_ctr_launch.errors import invalid

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
INSTANCE = re.compile(r"([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)-([0-9a-f]{16})\Z")


class Layout(NamedTuple):
    """The directories that launchers touch. All but `containers` and `cas` are root's alone."""

    containers: str = "/var/lib/volt/containers"
    roots: str = "/var/lib/volt/roots"
    cas: str = "/var/lib/volt/cas"
    run: str = "/run/volt-launch"
    policy: str = "/etc/volt/policy.toml"
    handover: str = "/run/volt/ctr-handover"
    init: str = "/usr/bin/catatonit"
    nspawn: str = "/usr/bin/systemd-nspawn"

    def root(self, name: str) -> str:
        """A container's root-owned directory."""
        return f"{self.roots}/{name}"

    def launch(self, name: str) -> str:
        """Its run-time directory."""
        return f"{self.run}/{name}"

    def lock_of(self, name: str) -> str:
        """Held while the container is started, or deleted."""
        return f"{self.run}/.{name}.lock"

    @property
    def lock(self) -> str:
        """Held while ids or views are given or freed."""
        return f"{self.roots}/.ids.lock"

    @property
    def views(self) -> str:
        """Root's own copies of views."""
        return f"{self.roots}/.views"


def name_of(argument: str) -> str:
    """A container's name, as systemd's %i gives it."""
    if not NAME.match(argument) or argument == "op":  # its run-time directory holds the answers of operations
        raise invalid(f"not a container's name: {argument[:80]!r}")
    return argument


def instance_of(argument: str) -> tuple[str, str]:
    """NAME-ID of an operation or an exec; the name may itself hold hyphens."""
    match = INSTANCE.match(argument)
    if not match or match[1] == "op":
        raise invalid(f"not NAME-ID: {argument[:80]!r}")
    return match[1], match[2]
