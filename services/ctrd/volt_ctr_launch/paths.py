"""Where things are, and what names look like. Tests give another root; nothing else does."""

from __future__ import annotations

from volt_ctr_launch import checks
from volt_ctr_launch.errors import invalid
from volt_ctr_launch.record import Record


class Layout(Record):
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
    def policy_cache(self) -> str:
        """What `policy` holds, read once."""
        return f"{self.run}/.policy.json"

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
    if not checks.name(argument) or argument == "op":  # its run-time directory holds the answers of operations
        raise invalid(f"not a container's name: {argument[:80]!r}")
    return argument


def instance_of(argument: str) -> tuple[str, str]:
    """NAME-ID of an operation or an exec; the name may itself hold hyphens."""
    name, _, id = argument.rpartition("-")
    if not checks.name(name) or not checks.short_id(id) or name == "op":
        raise invalid(f"not NAME-ID: {argument[:80]!r}")
    return name, id
