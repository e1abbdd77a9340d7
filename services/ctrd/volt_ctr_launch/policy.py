"""/etc/volt/policy.toml: what a host allows containers, and the check of a configuration against it."""

from __future__ import annotations

import contextlib
import os
import stat

from volt_ctr_launch import checks, files
from volt_ctr_launch.config import Config, Resources
from volt_ctr_launch.errors import Refusal, denied
from volt_ctr_launch.fields import Fields
from volt_ctr_launch.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from volt_ctr_launch.checks import Check

_HINT = "/etc/volt/policy.toml"


class Policy(Record):
    """The file, with the defaults of its absent keys."""

    networks: tuple[str, ...] = ("none",)
    bind_allow: tuple[str, ...] = ("/srv", "/home", "/mnt", "/media")
    bind_deny: tuple[str, ...] = ()
    root_binds: bool = False
    capabilities: tuple[str, ...] = ()
    id_base: int = 524288
    id_ranges: int = 4096
    memory_max: int = 0
    pids_max: int = 16384


def load(path: str, cache: str = "") -> Policy:
    """Read a file that must be root's; none at all means the defaults. `cache` is a file of root's in which what was
    read stays, till the file is another: reading TOML takes a launcher longer than most of a start. Raises Refusal."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return Policy()
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise Refusal("INVALID", f"{path} must be a file that only root can write")
        version = [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
        known = files.read_own(cache) if cache else {}
        table = known.get("table") if known.get("version") == version else None
        if not isinstance(table, dict):
            table = _table(file, path)
            if cache:
                with contextlib.suppress(TypeError):  # a date, which `parse` refuses
                    files.write_json(cache, {"version": version, "table": table}, 0o600, durable=False)
    return parse(table, path)


def _table(file: IO[bytes], path: str) -> dict[str, object]:
    import tomllib

    try:
        return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refusal("INVALID", f"{path}: {error}") from None


def parse(table: object, what: str) -> Policy:
    """Check every key. Raises Refusal naming the first that is wrong."""
    default = Policy()
    whole = Fields(table, what)
    host, binds, capabilities, ids, limits = (
        whole.table(key) if whole.has(key) else Fields({}, what)
        for key in ("host", "binds", "capabilities", "ids", "limits")
    )

    def texts(fields: Fields, key: str, check: Check, otherwise: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(fields.texts(key, check, 1024)) if fields.has(key) else otherwise

    policy = Policy(
        networks=texts(host, "networks", checks.network, default.networks),
        bind_allow=texts(binds, "allow", checks.absolute, default.bind_allow),
        bind_deny=texts(binds, "deny", checks.absolute, default.bind_deny),
        root_binds=binds.flag("root_binds") if binds.has("root_binds") else default.root_binds,
        capabilities=texts(capabilities, "allow", checks.capability, default.capabilities),
        id_base=ids.number("base", 65536, 0x7FFF0000) if ids.has("base") else default.id_base,
        id_ranges=ids.number("ranges", 1, 32767) if ids.has("ranges") else default.id_ranges,
        memory_max=limits.number("memory_max", 0, 1 << 50) if limits.has("memory_max") else default.memory_max,
        pids_max=limits.number("pids_max", 1, 4194304) if limits.has("pids_max") else default.pids_max,
    )
    for fields in (whole, host, binds, capabilities, ids, limits):
        fields.done()
    if policy.id_base % 65536 or policy.id_base + policy.id_ranges * 65536 > 0x80000000:
        raise Refusal("INVALID", f"{what}: ids.base must be a multiple of 65536, and all ranges lie below 2^31")
    return policy


def check(config: Config, policy: Policy) -> None:
    """Raises Refusal for what the policy does not allow. Binds are checked again when they are opened."""
    if config.network not in policy.networks:
        raise denied(f"the network {config.network} (host.networks in {_HINT})")
    for capability in config.capabilities:
        if capability not in policy.capabilities:
            raise denied(f"the capability {capability} (capabilities.allow in {_HINT})")
    for bind in config.binds:
        check_bind(bind.source, policy)
    check_limits(config.resources, policy)


def check_limits(asked: Resources, policy: Policy) -> None:
    """Whether limits lie within the policy's."""
    if policy.memory_max and max(asked.memory_max or 0, asked.memory_high or 0) > policy.memory_max:
        raise denied(f"more memory than {policy.memory_max} bytes (limits.memory_max in {_HINT})")
    if (asked.pids_max or 0) > policy.pids_max:
        raise denied(f"more than {policy.pids_max} processes (limits.pids_max in {_HINT})")


def check_bind(path: str, policy: Policy) -> None:
    """Whether a host path may be bound. `path` is absolute and plain."""
    if not any(_below(path, place) for place in policy.bind_allow) or any(_below(path, d) for d in policy.bind_deny):
        raise denied(f"a bind of {path} (binds in {_HINT})")


def bounded(asked: Resources, policy: Policy) -> Resources:
    """The limits in force: what was asked, and the policy's for what was not."""
    return asked.replace(
        memory_max=asked.memory_max or policy.memory_max or None, pids_max=asked.pids_max or policy.pids_max
    )


def _below(path: str, place: str) -> bool:
    place = place.rstrip("/")
    return path == place or path.startswith(place + "/")
