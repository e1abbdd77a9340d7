"""config.json, which volt-ctrd wrote: read as a hostile file, and every value checked by rules of our own."""

from __future__ import annotations

import posixpath
import signal
import stat

from volt_ctr_launch import checks, files
from volt_ctr_launch.errors import Refusal, invalid
from volt_ctr_launch.fields import Fields
from volt_ctr_launch.record import Record

_ARGUMENT = 131071  # MAX_ARG_STRLEN with the terminating NUL
MAX_ID = 65535  # ids in an image must lie in the container's range


class View(Record):
    """Which EROFS image the root is."""

    form: str
    sha256: str
    size: int


class Root(Record):
    """Metadata of the image's root directory."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int


class Bind(Record):
    source: str
    target: str
    read_only: bool


class Resources(Record):
    """None: not asked for."""

    memory_max: int | None = None
    memory_high: int | None = None
    cpu_percent: int | None = None
    cpu_weight: int | None = None
    pids_max: int | None = None


class Config(Record):
    """A checked config.json."""

    name: str
    id: str
    uid: int
    image: str  # what it was called; nothing is looked up by it
    tree: str
    view: View
    root: Root
    mode: str
    args: list[str]
    env: dict[str, str]
    user: str
    workdir: str
    hostname: str
    tty: bool
    streams: str
    read_only: bool
    layer: str
    network: str
    binds: list[Bind]
    tmpfs: list[str]
    capabilities: list[str]
    resources: Resources
    stop_signal: int
    stop_seconds: int
    remove: bool

    @property
    def boots(self) -> bool:
        """Whether the image's own init is its first process."""
        return self.mode == "hybrid-native"


def load(containers: str, name: str, owner: int | None) -> Config:
    """The configuration of a container, from a file of `owner`. Raises Refusal."""
    data = files.read_hostile(containers, f"{name}/config.json", owner)
    return parse(files.parse_json(data, "config.json"), name)


def parse(value: object, name: str) -> Config:
    """Check every key. Raises Refusal naming the first that is wrong."""
    fields = Fields(value, "config.json")
    fields.number("version", 1, 1)
    if fields.text("name") != name:
        raise invalid("config.json is of another container")
    fields.text("created_at", limit=64)
    fields.mapping("labels", checks.plain, 64, 4096)
    config = Config(
        name=name,
        id=fields.text("id", checks.container_id),
        uid=fields.number("uid", 0, 0xFFFFFFFE),
        image=fields.text("image", limit=512),
        tree=fields.text("tree", checks.digest),
        view=_view(fields.table("view")),
        root=_root(fields.table("root")),
        mode=fields.one_of("mode", "container", "hybrid-native"),
        args=fields.texts("args", count=4096, limit=_ARGUMENT),
        env=fields.mapping("env", checks.identifier, 1024, _ARGUMENT),
        user=fields.text("user", checks.user, 128),
        workdir=fields.text("workdir", checks.absolute, 4095),
        hostname=fields.text("hostname", checks.name),
        tty=fields.flag("tty"),
        streams=fields.one_of("streams", "journal", "handover"),
        read_only=fields.flag("read_only"),
        layer=fields.one_of("layer", "overlay", "tmpfs", "none"),
        network=fields.one_of("network", "none", "host"),
        binds=[_bind(Fields(bind, "config.json: binds")) for bind in fields.list("binds", 64)],
        tmpfs=[_path(path, "tmpfs") for path in fields.texts("tmpfs", checks.absolute, 64, 4095)],
        capabilities=fields.texts("capabilities", checks.capability, 64),
        resources=resources(fields.table("resources")),
        stop_signal=signal_number(fields.text("stop_signal", checks.signal) or "SIGTERM"),
        stop_seconds=fields.number("stop_seconds", 0, 3600),
        remove=fields.flag("remove"),
    )
    fields.done()
    _check_whole(config)
    return config


def _view(fields: Fields) -> View:
    view = View(
        fields.one_of("form", "redirect", "full"),
        fields.text("sha256", checks.digest),
        fields.number("size", 4096, 1 << 46),
    )
    fields.done()
    return view


def _root(fields: Fields) -> Root:
    mode = fields.number("mode", 0, 0o177777)
    ids = fields.number("uid", 0, MAX_ID), fields.number("gid", 0, MAX_ID)
    root = Root(stat.S_IMODE(mode), *ids, fields.number("mtime_ns", -(1 << 63), (1 << 63) - 1))
    fields.done()
    return root


def _bind(fields: Fields) -> Bind:
    source = _path(fields.text("source", checks.absolute, 4095), "a bind's source")
    bind = Bind(
        source, _path(fields.text("target", checks.absolute, 4095), "a bind's target"), fields.flag("read_only")
    )
    fields.done()
    return bind


def _path(path: str, what: str) -> str:
    """An absolute path in its plain form."""
    if ".." in path.split("/"):
        raise invalid(f"{what} may not hold ..: {path[:80]!r}")
    return "/" + posixpath.normpath(path).lstrip("/")


def resources(fields: Fields) -> Resources:
    """Limits, each of which may be absent."""
    found = Resources(
        fields.number_or_none("memory_max", 1 << 20, 1 << 50),
        fields.number_or_none("memory_high", 1 << 20, 1 << 50),
        fields.number_or_none("cpu_percent", 1, 100000),
        fields.number_or_none("cpu_weight", 1, 10000),
        fields.number_or_none("pids_max", 1, 4194304),
    )
    fields.done()
    return found


def signal_number(name: str) -> int:
    """A signal of a name with or without SIG, or a number. Raises Refusal."""
    full = name if name.startswith("SIG") else f"SIG{name}"
    first, last = int(signal.SIGRTMIN), int(signal.SIGRTMAX)
    number = 0
    try:
        if name.isdigit():
            number = int(name)
        elif full.startswith("SIGRTMIN+"):
            number = first + int(full[9:])
        elif full.startswith("SIGRTMAX-"):
            number = last - int(full[9:])
        else:
            number = int(signal.Signals[full])
    except (KeyError, ValueError):
        number = 0
    if not (0 < number < 32 or first <= number <= last):
        raise invalid(f"there is no signal {name[:40]!r}")
    return number


def _check_whole(config: Config) -> None:
    """What no key shows by itself."""
    if config.boots and config.user not in ("", "root", "0"):
        raise invalid("a container that boots its own systemd runs as root inside")
    if not config.boots and (not config.args or not config.args[0]):
        raise invalid("config.json: args names no command")
    for name, value in config.env.items():
        if len(name.encode()) + len(value.encode()) > _ARGUMENT - 16:
            raise Refusal("INVALID", f"the environment variable {name[:40]} is too long")
    targets = [bind.target for bind in config.binds] + config.tmpfs
    if "/" in targets:
        raise invalid("nothing can be mounted over the container's root")
    if len(set(targets)) != len(targets):
        raise invalid("two mounts on one place")
    if any(t == "/run/.volt" or t.startswith("/run/.volt/") for t in targets):
        raise invalid("/run/.volt is Volt's own")
