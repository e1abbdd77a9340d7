"""Refuse early, and in clear words, what the launcher would refuse at the start.

This is a courtesy: the launcher checks everything again, against the same policy file, and trusts nothing
here. So whatever this module cannot read or does not know passes.
"""

from __future__ import annotations

import posixpath
import re
import signal
import tomllib
from collections.abc import Iterable

import msgspec

from volt_common.api import ctr
from volt_common.errors import Denied, Invalid

_REALTIME = re.compile(r"SIGRTM(IN\+|AX-)([0-9]{1,2})\Z")


class _Host(msgspec.Struct, frozen=True):
    networks: tuple[str, ...] = ("none",)


class _Binds(msgspec.Struct, frozen=True):
    allow: tuple[str, ...] = ("/srv", "/home", "/mnt", "/media")
    deny: tuple[str, ...] = ()


class _Capabilities(msgspec.Struct, frozen=True):
    allow: tuple[str, ...] = ()


class Policy(msgspec.Struct, frozen=True):
    """The parts of policy.toml that can be told to a caller beforehand, with the defaults of absent keys."""

    host: _Host = _Host()
    binds: _Binds = _Binds()
    capabilities: _Capabilities = _Capabilities()


def load(path: str) -> Policy | None:
    """What the file says; None if it can't be used: then it is the launcher's to complain."""
    try:
        with open(path, "rb") as file:
            return msgspec.convert(tomllib.load(file), type=Policy)
    except FileNotFoundError:
        return Policy()
    except (OSError, ValueError, msgspec.ValidationError):
        return None


def check(spec: ctr.Spec, policy: Policy | None) -> None:
    """Raises Invalid for what can't be meant, Denied for what the policy does not allow."""
    signal_number(spec.stop_signal or "SIGTERM")
    _check_paths(spec)
    if spec.mode is ctr.Mode.HYBRID_NATIVE and spec.user:
        raise Invalid("a container that boots its own systemd runs as root inside", hint="leave the user away")
    if spec.mode is ctr.Mode.HYBRID_NATIVE and spec.entrypoint:
        raise Invalid("a container that boots its own systemd has no entrypoint")
    high, most = spec.resources.memory_high, spec.resources.memory_max
    if high is not None and most is not None and high > most:
        raise Invalid("memory_high lies above memory_max, where it has no effect")
    if policy is None:
        return
    _allow(spec.network.value, policy.host.networks, "the network", "host.networks")
    for bind in spec.binds:
        if any(_below(bind.source, prefix) for prefix in policy.binds.deny):
            raise Denied(f"a bind of {bind.source}", hint="binds.deny in /etc/volt/policy.toml")
        if not any(_below(bind.source, prefix) for prefix in policy.binds.allow):
            raise Denied(f"a bind of {bind.source}", hint="binds.allow in /etc/volt/policy.toml")
    for capability in spec.capabilities:
        _allow(capability, policy.capabilities.allow, "the capability", "capabilities.allow")


def signal_number(name: str) -> int:
    """Of a name with or without SIG, or a number. Raises Invalid."""
    if name.isdigit() and (0 < int(name) < 32 or signal.SIGRTMIN <= int(name) <= signal.SIGRTMAX):
        return int(name)
    full = name if name.startswith("SIG") else f"SIG{name}"
    if match := _REALTIME.match(full):
        number = signal.SIGRTMIN + int(match[2]) if match[1] == "IN+" else signal.SIGRTMAX - int(match[2])
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    try:
        return signal.Signals[full].value
    except KeyError:
        raise Invalid(f"there is no signal {name}") from None


def signal_name(number: int) -> str:
    """The opposite: SIGTERM, SIGRTMIN+3."""
    if number > signal.SIGRTMIN:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    return signal.Signals(number).name


def _check_paths(spec: ctr.Spec) -> None:
    targets = [bind.target for bind in spec.binds] + spec.tmpfs
    for path in [bind.source for bind in spec.binds] + targets:
        if ".." in path.split("/"):
            raise Invalid(f"{path}: a path may not hold ..")
    seen = set()
    for target in map(posixpath.normpath, targets):
        if target.strip("/") == "":
            raise Invalid("nothing can be mounted over the container's root")
        if target in seen:
            raise Invalid(f"two mounts on {target}")
        seen.add(target)


def _allow(value: str, allowed: Iterable[str], what: str, key: str) -> None:
    if value not in allowed:
        raise Denied(f"{what} {value}", hint=f"{key} in /etc/volt/policy.toml")


def _below(path: str, prefix: str) -> bool:
    path, prefix = posixpath.normpath(path), posixpath.normpath(prefix)
    return path == prefix or prefix == "/" or path.startswith(prefix + "/")
