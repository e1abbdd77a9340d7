"""What root keeps of a container for everybody to read: roots/NAME/state.json, and of a run: running.json."""

from __future__ import annotations

import os
import time

from volt_ctr_launch import files
from volt_ctr_launch.config import Config
from volt_ctr_launch.paths import Layout


def now() -> str:
    """RFC 3339 with milliseconds, UTC."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


def load(layout: Layout, name: str) -> dict[str, object]:
    """state.json; empty if there is none."""
    return files.read_own(f"{layout.root(name)}/state.json")


def began(layout: Layout, config: Config, base: int) -> None:
    """A run begins: what is known of earlier ones goes, but for their number."""
    before = load(layout, config.name)
    runs = before.get("restarts") if before.get("id") == config.id else None
    restarts = runs + 1 if isinstance(runs, int) else 0
    state = {
        "version": 1,
        "name": config.name,
        "id": config.id,
        "image": config.image,
        "tree": config.tree,
        "id_base": base,
        "started_at": now(),
        "ready_at": None,
        "ended_at": None,
        "exit": None,
        "restarts": restarts,
    }
    files.write_json(f"{layout.root(config.name)}/state.json", state, durable=False)
    files.write_bytes(_begun(layout, config.name), config.id.encode(), durable=False)


def is_present(layout: Layout, name: str) -> bool:
    """Whether state.json is of the present run: a launcher that dies early leaves that of the run before."""
    return os.path.exists(_begun(layout, name))


def machine_of(layout: Layout, name: str) -> str:
    """What nspawn calls the present run; empty if nothing has begun."""
    try:
        with open(_begun(layout, name), encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _begun(layout: Layout, name: str) -> str:
    return f"{layout.launch(name)}/begun"


def became_ready(layout: Layout, name: str) -> None:
    """The payload runs."""
    state = load(layout, name)
    files.write_json(f"{layout.root(name)}/state.json", {**state, "ready_at": now()}, durable=False)


def failed(layout: Layout, name: str, code: str, message: str, exit_code: int, config: Config | None) -> None:
    """It could not be started. The reason also holds where the configuration is unreadable."""
    os.makedirs(layout.root(name), 0o711, exist_ok=True)
    files.make_directory(layout.root(name), 0o711)
    state: dict[str, object] = load(layout, name) or {"version": 1, "name": name, "started_at": now()}
    if config is not None:
        state |= {"id": config.id, "image": config.image, "tree": config.tree}
    end = {"code": exit_code, "signal": 0, "reason": "start-failure", "message": message, "error": code}
    state |= {"ready_at": None, "ended_at": now(), "exit": end}
    files.write_json(f"{layout.root(name)}/state.json", state, durable=False)


def finished(layout: Layout, name: str, end: dict[str, object], *, durable: bool = True) -> dict[str, object]:
    """The run is over; returns what is written of it."""
    state = {**load(layout, name), "ended_at": now(), "exit": end}
    files.write_json(f"{layout.root(name)}/state.json", state, durable=durable)
    return state
