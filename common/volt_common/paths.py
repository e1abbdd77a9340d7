"""Where things are on a host. Nothing here looks at the environment: who takes paths from it passes them on."""

from __future__ import annotations

from typing import Final

RUN: Final = "/run/volt"
LAUNCH_RUN: Final = "/run/volt-launch"
STATE: Final = "/var/lib/volt"
CAS: Final = f"{STATE}/cas"
CONTAINERS: Final = f"{STATE}/containers"
ROOTS: Final = f"{STATE}/roots"
CACHE: Final = "/var/cache/volt"
AUDIT: Final = "/var/log/volt/audit"
ETC: Final = "/etc/volt"
CONFIG: Final = f"{ETC}/config.yaml"
POLICY: Final = f"{ETC}/policy.toml"


def socket_path(daemon: str, run: str = RUN) -> str:
    """The ZeroMQ socket of a daemon (`casd`, `ctrd`, …)."""
    return f"{run}/{daemon}.sock"


def fd_path(daemon: str, run: str = RUN) -> str:
    """The descriptor socket of a daemon."""
    return f"{run}/{daemon}.fd"
