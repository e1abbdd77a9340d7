"""How a container is run, for a person who wants to see what confines it."""

from __future__ import annotations

from volt_common.api import ctr
from volt_ctrd.config import Config
from volt_ctrd.files import Places, Running, load, read
from volt_ctrd.units import container_unit


def explain(places: Places, config: Config) -> ctr.Explained:
    """The unit, the launcher's input, and what the launcher made of it when it last started."""
    data = read(places.config(config.name)) or b""
    running = load(places.running(config.name), Running) or Running()
    return ctr.Explained(
        unit=container_unit(config.name),
        config=data.decode("utf-8", "replace"),
        command=running.command,
        mounts=running.mounts,
        sandbox=running.sandbox,
    )
