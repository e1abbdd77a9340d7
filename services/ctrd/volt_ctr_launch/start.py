"""volt-container@NAME, ExecStart=: from config.json to systemd-nspawn, in the order below."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

from volt_ctr_launch import (
    attendant,
    binds,
    cgroup,
    config,
    files,
    filters,
    ids,
    image,
    notify,
    nspawn,
    policy,
    root,
    state,
    streams,
    views,
)
from volt_ctr_launch.config import Config
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.handover import Handover
from volt_ctr_launch.paths import Layout

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_MAKING_SECONDS = 60  # a few files, and the disk


def run(layout: Layout, name: str) -> None:
    """Become systemd-nspawn. What fails before is recorded in state.json, and raised."""
    found: Config | None = None
    try:
        rules = policy.load(layout.policy, layout.policy_cache)
        owner = os.stat(layout.containers).st_uid
        found, handover = _configuration(layout, name, owner)
        policy.check(found, rules)
        # Till nspawn runs: a delete that came between would free the ids that it is about to use.
        with files.locked(layout.lock_of(name)):
            launch(layout, found, rules, owner, handover)
    except Refusal as refusal:
        if found is None and refusal.code == "NOT_FOUND":
            raise  # there is no such container, and so nothing to keep a state of
        state.failed(layout, name, refusal.code, refusal.message, refusal.exit_code, found)
        raise
    except OSError as error:
        message = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        state.failed(layout, name, "GENERAL", message, 125, found)
        raise


def _configuration(layout: Layout, name: str, owner: int) -> tuple[Config, Handover | None]:
    """What is to be started. Where there is nothing yet, volt-ctrd may be about to make it, for a caller whose streams
    it then hands over."""
    try:
        return config.load(layout.containers, name, owner), None
    except Refusal as refusal:
        if refusal.code != "NOT_FOUND":
            raise
        try:
            handover = Handover(layout.handover, "run", name, "", _MAKING_SECONDS)
        except Refusal:
            raise refusal from None
    return config.load(layout.containers, name, owner), handover


def launch(layout: Layout, found: Config, rules: policy.Policy, owner: int, handover: Handover | None) -> None:
    """Prepare and exec. Everything mounted here is in this process's own mount namespace, and goes with it."""
    name = found.name
    for path in (layout.root(name), layout.launch(name)):
        files.make_directory(path, 0o711)
    base = ids.allocate(layout, rules, name)
    state.began(layout, found, base)
    view = views.fetch(layout, name, found.tree, found.view)

    unit = cgroup.of_unit()
    programs = filters.get(layout, nspawn.capabilities(found), f"{unit}/rehearsal")
    limits = policy.bounded(found.resources, rules)
    # Before the mount namespace, which what copies the streams would keep alive.
    watched = found.streams == "handover"
    if watched:
        standard = attendant.attend(layout, found, unit, owner, handover)
    cgroup.prepare(unit, limits)
    if not watched:
        standard = streams.prepare(layout, found, unit, owner)

    namespace = ids.user_namespace(root.identity(base), root.identity(base))
    root.private_namespaces(found.network)
    if found.network == "none":
        _loopback()
    rootfs = root.assemble(layout, found, base, namespace, view)
    os.close(view)
    os.close(namespace)
    root.check_places(rootfs)
    user = _check_image(found, rootfs)
    staged = binds.stage(found, rules, base, f"{layout.launch(name)}/binds")
    _mount_points(found, rootfs, staged, base)
    tools, needed = nspawn.switch_user(user) if not found.boots else ([], [])
    staged += [binds.Staged(source, target, True) for source, target in needed]
    variables = nspawn.variables(found, user)
    command = nspawn.command(layout, found, base, variables, staged, tools)
    nspawn.write_settings(layout, found, variables)
    streams.give(standard, base + user.uid, base + user.gid)

    sock = notify.start_socket(layout, name, own_network=found.network == "none")
    about: dict[str, object] = {
        "command": nspawn.shown(command),
        "mounts": [],
        "sandbox": _sandbox(found, base, limits),
        "stop_signal": found.stop_signal,
        "stop_seconds": found.stop_seconds,
        "boots": found.boots,
    }
    begun = notify.Start(layout, found, os.getpid(), base, f"{unit}/box", programs, about)
    streams.fork(unit, [sock.fileno()], lambda: notify.relay(begun, sock))
    sys.stdout.flush()
    streams.become_standard(standard)
    streams.close_others([0, 1, 2])
    environment = _environment(f"{layout.launch(name)}/notify", found)
    if programs is not None:
        filters.install(programs)
        environment["SYSTEMD_SECCOMP"] = "0"  # it need not make any
    os.execve(command[0], command, environment)


def _environment(notify_socket: str, found: Config) -> dict[str, str]:
    """nspawn's own."""
    own = nspawn.ENVIRONMENT | {"NOTIFY_SOCKET": notify_socket}
    return own | ({"TERM": "dumb"} if found.tty else {})


def _check_image(found: Config, rootfs: root.Rootfs) -> image.User:
    """The payload's user, and that what is asked for exists. Raises Refusal."""
    if found.boots:
        return image.User(0, 0, [0], "/root")
    user = image.find_user(found.user, rootfs.open_inside)
    targets = [bind.target for bind in found.binds] + found.tmpfs
    if not image.covered(found.workdir, targets):
        image.check_directory(found.workdir, rootfs.open_inside)
    if not (targets or image.covered(found.args[0], targets) or image.covered(found.workdir, targets)):
        image.find_command(found.args[0], found.env.get("PATH", ""), found.workdir, rootfs.open_inside)
    return user


def _mount_points(found: Config, rootfs: root.Rootfs, staged: list[binds.Staged], base: int) -> None:
    root.ensure_usr(rootfs, base)
    wanted = [(bind.target, os.path.isdir(bind.path)) for bind in staged] + [(path, True) for path in found.tmpfs]
    for target, directory in sorted(wanted):
        inner = any(target.startswith(f"{other}/") for other, _ in wanted)
        if not inner and not image.covered(target, []):
            root.make_mount_point(rootfs, target, directory, base)


def _loopback() -> None:
    """Bring lo up in a new network namespace, in which low ports and ping are anybody's: container root has no
    capability over a namespace of the host's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh22x", b"lo", _IFF_UP)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, request)
    for key, value in (("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 2147483647")):
        with open(f"/proc/sys/net/ipv4/{key}", "w", encoding="ascii") as file:
            file.write(value)


def _sandbox(found: Config, base: int, limits: config.Resources) -> dict[str, str]:
    about = {
        "user namespace": f"ids 0-65535 are {base}-{base + ids.COUNT - 1} on the host",
        "network": "its own, loopback only" if found.network == "none" else "the host's",
        "root": f"overlay over {found.tree[:12]}.{found.view.form}, "
        + {"overlay": "own upper", "tmpfs": "upper in memory", "none": "no upper"}[found.layer],
    }
    if found.read_only:
        about["read-only root"] = "yes"
    return about | {key: str(value) for key, value in limits.asdict().items() if value is not None}
