"""From what was asked and what the image says to config.json, the launcher's whole input."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import msgspec

from volt_common import durable
from volt_common.api import cas, ctr
from volt_common.errors import Invalid
from volt_ctrd.files import Places
from volt_ctrd.images import Image

VERSION = 1
JOURNAL, HANDOVER = "journal", "handover"  # what `streams` can be
_CONFIG, _HANDOVER, _SPEC = "config.json", "handover.json", "spec.json"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class View(msgspec.Struct, frozen=True):
    """Which image of the tree the root is mounted from; the launcher copies it and checks the hash."""

    form: str
    sha256: str
    size: int


class Root(msgspec.Struct, frozen=True):
    """The root directory's own metadata, which an overlay takes from its upper."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """config.json: these keys and no others, since the launcher refuses what it does not know."""

    version: int
    name: str
    id: str
    created_at: str
    uid: int
    image: str
    tree: str
    view: View
    root: Root
    mode: ctr.Mode
    args: list[str]
    env: dict[str, str]
    user: str
    workdir: str
    hostname: str
    tty: bool
    streams: str  # JOURNAL, or HANDOVER: the caller of Run brings them
    read_only: bool
    layer: ctr.Layer
    network: ctr.Network
    binds: list[ctr.Bind]
    tmpfs: list[str]
    capabilities: list[str]
    resources: ctr.Resources
    stop_signal: str
    stop_seconds: int
    remove: bool
    labels: dict[str, str]


def timestamp() -> str:
    """Now, RFC 3339 with milliseconds, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def of_spec(name: str, uid: int, spec: ctr.Spec, image: Image, view: cas.ViewReady) -> Config:
    """The configuration of a new container. Raises Invalid if neither caller nor image names a command."""
    return Config(
        version=VERSION,
        name=name,
        id=secrets.token_hex(16),
        created_at=timestamp(),
        uid=uid,
        image=spec.image,
        tree=image.tree,
        view=View(view.form.value, view.sha256, view.size),
        root=Root(stat.S_IMODE(view.root_mode), view.root_uid, view.root_gid, view.root_mtime_ns),
        mode=spec.mode,
        args=_arguments(spec, image),
        env=_environment(spec, image),
        user=spec.user or image.config.user,
        workdir=spec.workdir or image.config.workdir or "/",
        hostname=spec.hostname or name,
        tty=spec.tty,
        streams=JOURNAL,
        read_only=spec.read_only,
        layer=spec.layer,
        network=spec.network,
        binds=spec.binds,
        tmpfs=spec.tmpfs,
        capabilities=sorted(set(spec.capabilities)),
        resources=spec.resources,
        stop_signal=_stop_signal(spec, image),
        stop_seconds=spec.stop_seconds,
        remove=spec.remove,
        labels=spec.labels,
    )


def _arguments(spec: ctr.Spec, image: Image) -> list[str]:
    """Entrypoint and command as OCI has them: an entrypoint of the caller's drops the image's command.
    An image that boots has neither: its arguments are its init's."""
    if spec.mode is ctr.Mode.HYBRID_NATIVE:
        return list(spec.args)
    own = spec.entrypoint is None
    entrypoint = image.config.entrypoint if spec.entrypoint is None else spec.entrypoint
    command = spec.args or (image.config.cmd if own else [])
    argv = [*entrypoint, *command]
    if not argv:
        raise Invalid(f"the image {spec.image} names no command", hint="give one after the image's name")
    if not argv[0]:
        raise Invalid("a command can't be empty")
    return argv


def _environment(spec: ctr.Spec, image: Image) -> dict[str, str]:
    env = {"PATH": PATH} | image.config.env
    if spec.tty:
        env.setdefault("TERM", "xterm")
    return env | spec.env


def _stop_signal(spec: ctr.Spec, image: Image) -> str:
    if spec.stop_signal:
        return spec.stop_signal
    if spec.mode is ctr.Mode.HYBRID_NATIVE:
        return "SIGRTMIN+3"  # systemd(1): halt, the orderly way
    return image.config.stop_signal or "SIGTERM"


def write(directory: str, config: Config, spec: ctr.Spec) -> None:
    """All files, durably, into a directory that nobody sees yet. Beside config.json lies the same for a start
    with a caller's streams, so that such a start need not wait for the disk."""
    handover = with_streams(config, HANDOVER)
    contents = {_CONFIG: _pretty(config), _HANDOVER: _pretty(handover), _SPEC: msgspec.json.encode(spec)}
    fds = []
    try:
        for name, data in contents.items():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fds.append(os.open(f"{directory}/{name}", flags, 0o600))
            with open(fds[-1], "wb", closefd=False, buffering=0) as file:
                file.write(data)
        with ThreadPoolExecutor(len(fds)) as pool:  # one commit of the file system's journal serves them all
            list(pool.map(os.fsync, fds))
    finally:
        for fd in fds:
            os.close(fd)
    durable.sync_directory(directory)


def with_streams(config: Config, streams: str) -> Config:
    """The same container, started with other streams."""
    return msgspec.structs.replace(config, streams=streams)


def set_streams(places: Places, config: Config, streams: str) -> None:
    """Have the next start use `streams`. After a power cut either configuration is good: each start sets its own."""
    if streams == HANDOVER:
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{places.home(config.name)}/{_HANDOVER}", places.config(config.name))
            return
    durable.write_file(places.config(config.name), _pretty(with_streams(config, streams)), 0o600)


def read(places: Places, name: str) -> Config | None:
    """None if there is no such container. Raises Invalid if its file is damaged."""
    try:
        with open(places.config(name), "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        if os.path.isdir(places.home(name)):
            raise Invalid(f"the container {name} has no config.json", hint=f"delete it: volt rm {name}") from None
        return None
    try:
        return msgspec.json.decode(data, type=Config)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Invalid(f"config.json of {name} is damaged: {error}", hint=f"delete it: volt rm {name}") from None


def read_spec(places: Places, name: str) -> ctr.Spec | None:
    """None where it can't be read: a container runs without it."""
    try:
        with open(places.spec(name), "rb") as file:
            return msgspec.json.decode(file.read(), type=ctr.Spec)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _pretty(config: Config) -> bytes:
    return msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n"
