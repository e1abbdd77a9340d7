"""The command line of systemd-nspawn for a container. Nothing of the configuration can become an option of it."""

from __future__ import annotations

import contextlib
import os

from volt_ctr_launch import files
from volt_ctr_launch.binds import Staged
from volt_ctr_launch.config import Config
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.ids import COUNT
from volt_ctr_launch.image import User
from volt_ctr_launch.paths import Layout

# What nspawn keeps by itself, and what of it a payload without a systemd of its own has a use for.
_DEFAULT = (
    "AUDIT_CONTROL AUDIT_WRITE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_OWNER KILL LEASE LINUX_IMMUTABLE "
    "MKNOD NET_BIND_SERVICE NET_BROADCAST NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_NICE "
    "SYS_PTRACE SYS_RESOURCE SYS_TTY_CONFIG"
)
_USUAL = "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP"
DROPPED = tuple(f"CAP_{name}" for name in _DEFAULT.split() if name not in (*_USUAL.split(), "SETUID", "SYS_CHROOT"))
INSIDE = "/run/.volt"
# The tints and titles that newer ones give a terminal would end up in the output.
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    "SYSTEMD_LOG_LEVEL": "warning",
    "SYSTEMD_TINT_BACKGROUND": "0",
    "SYSTEMD_ADJUST_TERMINAL_TITLE": "0",
}


def command(
    layout: Layout, config: Config, base: int, variables: dict[str, str], binds: list[Staged], tools: list[str]
) -> list[str]:
    """How to run a container whose root is mounted, and for whom `write_settings` was called. `tools` is the payload's
    prefix from `switch_user`."""
    fixed = [
        layout.nspawn,
        "--quiet",
        "--settings=yes",
        "--keep-unit",
        "--register=no",
        f"--machine={config.id}",
        f"--hostname={config.hostname}",
        f"--uuid={config.id}",
        f"--directory={layout.root(config.name)}/rootfs",
        f"--private-users={base}:{COUNT}",
        "--private-users-ownership=off",
        "--link-journal=no",
        "--timezone=off",
        "--resolv-conf=off",
        f"--kill-signal={_kill_signal(config)}",
        f"--console={'interactive' if config.tty else 'pipe'}",
        f"--notify-ready={'yes' if config.boots else 'no'}",
    ]
    if config.read_only:
        fixed.append("--read-only")
    fixed += capabilities(config)
    if not config.boots:
        fixed.append(f"--chdir={config.workdir}")
        fixed.append(f"--bind-ro={layout.init}:{INSIDE}/init")
    fixed += [
        f"--{'bind-ro' if bind.read_only else 'bind'}={_escaped(bind.path)}:{_escaped(bind.target)}:norbind"
        for bind in binds
    ]
    fixed += [f"--tmpfs={_escaped(path)}:mode=1777" for path in config.tmpfs]
    if not _fit_settings(variables):
        fixed += [f"--setenv={name}={value}" for name, value in variables.items()]
    if config.boots:
        return [*fixed, "--boot", "--", *config.args]
    return [*fixed, "--", f"{INSIDE}/init", "--", *tools, *config.args]


def write_settings(layout: Layout, config: Config, variables: dict[str, str]) -> None:
    """Give nspawn the variables in a settings file (systemd.nspawn(5)): what is on a command line, every user of the
    host can read. It is found beside the root directory by the machine's name, which is an id because a file of that
    name in /etc/systemd/nspawn would come first."""
    path = f"{layout.root(config.name)}/{config.id}.nspawn"
    if not _fit_settings(variables):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    lines = ["[Exec]"]
    for name, value in variables.items():
        # There are no escapes in it, but pieces in other quotes can be joined.
        quoted = value.replace('"', """"'"'\"""")
        lines.append(f'Environment="{name}={quoted}"')
    files.write_bytes(path, "\n".join([*lines, ""]).encode(), 0o600, durable=False)


def variables(config: Config, user: User) -> dict[str, str]:
    """Of the payload."""
    return config.env if config.boots else {"HOME": user.home} | config.env


def _fit_settings(variables: dict[str, str]) -> bool:
    """Whether every variable can be said in a settings file, which knows no way to write what nspawn takes for the end
    of a line. Anything that slipped through would be a setting of the container's own choice."""
    return not any(letter in value for value in variables.values() for letter in "\r\n\0")


def shown(command: list[str]) -> list[str]:
    """A command line for people to read: without the values of variables."""
    return ["=".join(word.split("=", 2)[:2]) if word.startswith("--setenv=") else word for word in command]


def capabilities(config: Config) -> list[str]:
    """The options on which a payload's capabilities and system-call filters depend."""
    options = [f"--capability={capability}" for capability in sorted(set(config.capabilities))]
    if not config.boots:
        dropped = [capability for capability in DROPPED if capability not in config.capabilities]
        options.append(f"--drop-capability={','.join(dropped)}")
    return options


def _kill_signal(config: Config) -> str:
    """nspawn takes names; 34 to 64 are SIGRTMIN+n to it. 32 and 33 are the C library's."""
    number = config.stop_signal
    return f"SIGRTMIN+{number - 34}" if number >= 34 else str(number)


def _escaped(path: str) -> str:
    """nspawn splits the arguments of binds at colons, and knows backslashes."""
    return path.replace("\\", "\\\\").replace(":", "\\:")


def switch_user(user: User) -> tuple[list[str], list[tuple[str, str]]]:
    """What runs a command as a user of the container, and the host files that it needs inside: the host's setpriv
    with its own libraries, since nspawn's --user= asks the image's getent, which many images lack, and knows no
    groups. Nothing for root."""
    if user.uid == 0 and user.gid == 0 and user.groups == [0]:
        return [], []
    import re  # only here, and slow to load
    import subprocess

    setpriv = "/usr/bin/setpriv"
    if not os.path.exists(setpriv):
        raise Refusal("MISSING_DEPENDENCY", "setpriv is missing on this host (package util-linux)")
    listing = subprocess.run(["/usr/bin/ldd", setpriv], check=True, capture_output=True, text=True).stdout
    found = [(match[1] or "loader", match[2]) for match in re.finditer(r"(?:(\S+) => )?(/\S+) \(0x", listing)]
    needed = [(path, f"{INSIDE}/{name}") for name, path in found] + [(setpriv, f"{INSIDE}/setpriv")]
    groups = ",".join(map(str, user.groups))
    run = [f"{INSIDE}/loader", "--library-path", INSIDE, f"{INSIDE}/setpriv"]
    run += [f"--reuid={user.uid}", f"--regid={user.gid}", f"--groups={groups}" if user.groups else "--clear-groups"]
    return [*run, "--inh-caps=-all", "--"], needed
