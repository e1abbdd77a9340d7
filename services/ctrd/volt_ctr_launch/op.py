"""volt-container-op@NAME-ID: one operation that volt-ctrd may ask for but not do.

The request is containers/NAME/op-ID.json, hostile; the answer goes to /run/volt-launch/op/NAME-ID.json.
"""

from __future__ import annotations

import contextlib
import os
import time

from volt_ctr_launch import cgroup, config, confinement, files, policy, stop, views
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.fields import Fields
from volt_ctr_launch.paths import Layout

_MAX_REQUEST = 65536
_KEPT_SECONDS = 600


def run(layout: Layout, name: str, id: str) -> None:
    """Do it and write the answer. Raises Refusal when the answer is one."""
    files.make_directory(f"{layout.run}/op", 0o711)
    _forget_old(layout)
    answer = f"{layout.run}/op/{name}-{id}.json"
    try:
        owner = os.stat(layout.containers).st_uid
        data = files.read_hostile(layout.containers, f"{name}/op-{id}.json", owner, _MAX_REQUEST)
        request = Fields(files.parse_json(data, "the request"), "the request")
        request.number("version", 1, 1)
        _do(layout, name, request)
    except Refusal as refusal:
        _answer(answer, {"ok": False, "code": refusal.code, "message": refusal.message})
        raise
    except OSError as error:
        _answer(answer, {"ok": False, "code": "GENERAL", "message": str(error)})
        raise
    _answer(answer, {"ok": True})


def _do(layout: Layout, name: str, request: Fields) -> None:
    operation = request.one_of("op", "delete", "pause", "resume", "signal", "limits")
    number = config.signal_number(request.text("signal", limit=16)) if operation == "signal" else 0
    asked = config.resources(request.table("resources")) if operation == "limits" else config.Resources()
    request.done()
    if operation == "delete":
        delete(layout, name)
        return
    found = confinement.load(f"{layout.launch(name)}/confinement.json")
    leader = confinement.open_leader(found)
    try:
        if operation == "signal":
            stop.deliver(layout, found, name, leader, number)
        elif operation == "limits":
            rules = policy.load(layout.policy, layout.policy_cache)
            policy.check_limits(asked, rules)
            cgroup.apply(found.cgroup, policy.bounded(asked, rules))
        else:
            cgroup.freeze(f"{found.cgroup}/payload", operation == "pause")
    finally:
        os.close(leader)


def delete(layout: Layout, name: str, *, over: bool = False) -> None:
    """Remove all that root keeps of a container; its range of ids is free then. Raises Refusal (CONFLICT) while it
    runs; `over` says that its run is over, though the unit is not. Cut off at any point, it can be done again."""
    with files.locked(layout.lock_of(name)):
        if not over and _runs(layout, name):
            raise Refusal("CONFLICT", f"the container {name} is running")
        files.remove_below(layout.run, name)
        # The range is given to another container only when nothing owned by it is left: idmap goes last.
        with contextlib.suppress(FileNotFoundError):
            holder = os.open(layout.root(name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                for child in sorted(os.listdir(holder), key=lambda entry: (entry == "idmap", entry)):
                    files.remove_tree(holder, child)
            finally:
                os.close(holder)
            files.remove_below(layout.roots, name)
        views.drop_unused(layout)
        os.unlink(layout.lock_of(name))


def _runs(layout: Layout, name: str) -> bool:
    """Whether anything of it is alive, from the start's first instruction to the end of its clean-up."""
    if not cgroup.is_empty(cgroup.of_container(name)):
        return True
    try:
        os.close(confinement.open_leader(confinement.load(f"{layout.launch(name)}/confinement.json")))
    except Refusal:
        return False
    return True


def _answer(path: str, value: dict[str, object]) -> None:
    files.write_json(path, value, durable=False)


def _forget_old(layout: Layout) -> None:
    """Answers that nobody fetched."""
    before = time.time() - _KEPT_SECONDS
    for entry in os.scandir(f"{layout.run}/op"):
        with contextlib.suppress(FileNotFoundError):
            if entry.stat(follow_symlinks=False).st_mtime < before:
                os.unlink(entry.path)
