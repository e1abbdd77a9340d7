"""ctrd, containers on systemd-nspawn."""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from volt_common.api.base import Access, Call, Describe, Name, Nothing, Stream

Text = Annotated[str, Meta(max_length=4096, pattern=r"\A[^\0]*\Z")]
Argument = Annotated[str, Meta(max_length=131071, pattern=r"\A[^\0]*\Z")]
Absolute = Annotated[str, Meta(max_length=4095, pattern=r"\A/[^\0]*\Z")]
Variable = Annotated[str, Meta(max_length=255, pattern=r"\A[^=\0]+\Z")]
Arguments = Annotated[list[Argument], Meta(max_length=4096)]
Environment = Annotated[dict[Variable, Argument], Meta(max_length=1024)]
_ID = r"([A-Za-z_][A-Za-z0-9_.-]*|[0-9]{1,5})"
User = Annotated[str, Meta(max_length=128, pattern=rf"\A({_ID}(:{_ID})?)?\Z")]
"""A user's name or number, with a group after a colon; empty for the default."""
Image = Annotated[str, Meta(min_length=1, max_length=512, pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.+:/-]*\Z")]
Signal = Annotated[str, Meta(pattern=r"\A((SIG)?[A-Z0-9]{1,12}([+-][0-9]{1,2})?)?\Z")]


class Mode(enum.Enum):
    """`container` runs a command under a small init; `hybrid-native` boots the image's own systemd."""

    CONTAINER = "container"
    HYBRID_NATIVE = "hybrid-native"


class Network(enum.Enum):
    """A namespace with loopback only, or the host's own network (if the policy lets)."""

    NONE = "none"
    HOST = "host"


class Layer(enum.Enum):
    """Where a container's writes go: its own directory, memory, or nowhere (a read-only root)."""

    OVERLAY = "overlay"
    TMPFS = "tmpfs"
    NONE = "none"


class State(enum.Enum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    FAILED = "failed"  # it could not be started


class Bind(Struct, frozen=True, forbid_unknown_fields=True):
    """A directory or file of the host, mapped to the uid that asked for it."""

    source: Absolute
    target: Absolute
    read_only: bool = False


class Resources(Struct, frozen=True, forbid_unknown_fields=True):
    """None: no limit. Memory in bytes, cpu_percent of one core (200: two cores), weight 1-10000."""

    memory_max: Annotated[int, Meta(ge=1 << 20, le=1 << 50)] | None = None
    memory_high: Annotated[int, Meta(ge=1 << 20, le=1 << 50)] | None = None
    cpu_percent: Annotated[int, Meta(ge=1, le=100000)] | None = None
    cpu_weight: Annotated[int, Meta(ge=1, le=10000)] | None = None
    pids_max: Annotated[int, Meta(ge=1, le=4194304)] | None = None


class Spec(Struct, frozen=True, forbid_unknown_fields=True):
    """What a container is asked to be."""

    image: Image
    mode: Mode = Mode.CONTAINER
    args: Arguments = []  # empty: the image's own command
    entrypoint: Arguments | None = None  # None: the image's
    env: Environment = {}
    user: User = ""  # empty: the image's, else root
    workdir: Annotated[str, Meta(max_length=4095, pattern=r"\A(/[^\0]*)?\Z")] = ""
    hostname: Annotated[str, Meta(max_length=63, pattern=r"\A([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?\Z")] = ""
    tty: bool = False
    interactive: bool = False
    read_only: bool = False
    layer: Layer = Layer.OVERLAY
    network: Network = Network.NONE
    binds: Annotated[list[Bind], Meta(max_length=64)] = []
    tmpfs: Annotated[list[Absolute], Meta(max_length=64)] = []
    capabilities: Annotated[list[Annotated[str, Meta(pattern=r"\ACAP_[A-Z_]{1,32}\Z")]], Meta(max_length=64)] = []
    resources: Resources = Resources()
    stop_signal: Signal = ""  # empty: the image's, else SIGTERM
    stop_seconds: Annotated[int, Meta(ge=0, le=3600)] = 10
    remove: bool = False  # delete it when it has ended
    labels: Annotated[dict[Text, Text], Meta(max_length=64)] = {}


class Exit(Struct, frozen=True):
    """How a container's last run ended. `reason` is one of exit, signal, oom, start-failure, lost."""

    code: int  # the payload's own; 128+n for a signal
    signal: int  # 0: none
    reason: str
    at: str  # RFC 3339, UTC
    message: str = ""


class Container(Struct, frozen=True):
    """A container as it is now."""

    name: str
    id: str  # 32 hex digits, new with each create
    image: str
    tree: str
    mode: Mode
    state: State
    created_at: str
    uid: int  # who asked for it
    args: list[str]
    started_at: str = ""
    ready_at: str = ""
    leader: int = 0  # the host's pid of its first process
    exit: Exit | None = None
    restarts: int = 0
    id_base: int = 0  # first host uid of its range of 65,536
    spec: Spec | None = None  # with Inspect only


class Create(Call[Container], frozen=True, kw_only=True, tag="ctr.create"):
    """A container that is stopped. Without a name one is made up. Raises AlreadyExists, NotFound (image),
    Invalid, Denied (policy)."""

    mutates: ClassVar = True
    resource: ClassVar = "name"
    name: Name | None = None
    spec: Spec


class Start(Call[Container], frozen=True, kw_only=True, tag="ctr.start"):
    """Start one that is stopped, and return when it runs. Raises NotFound, Conflict, Denied, Exhausted."""

    mutates: ClassVar = True
    resource: ClassVar = "name"
    name: Name


class Stop(Call[Container], frozen=True, kw_only=True, tag="ctr.stop"):
    """Ask it to end, and after `seconds` (None: its own) kill it. Stopping a stopped one changes nothing.
    Raises NotFound."""

    mutates: ClassVar = True
    resource: ClassVar = "name"
    name: Name
    seconds: Annotated[int, Meta(ge=0, le=3600)] | None = None


class Restart(Call[Container], frozen=True, kw_only=True, tag="ctr.restart"):
    """Stop, then start."""

    mutates: ClassVar = True
    resource: ClassVar = "name"
    name: Name
    seconds: Annotated[int, Meta(ge=0, le=3600)] | None = None


class Kill(Call[Nothing], frozen=True, kw_only=True, tag="ctr.kill"):
    """Send its first process a signal. Raises NotFound, Conflict (not running)."""

    mutates: ClassVar = True
    resource: ClassVar = "name"
    name: Name
    signal: Signal = "SIGKILL"


class Pause(Call[Container], frozen=True, kw_only=True, tag="ctr.pause"):
    """Freeze every process of it. Raises NotFound, Conflict."""

    mutates: ClassVar = True
    resource: ClassVar = "name"
    name: Name


class Resume(Call[Container], frozen=True, kw_only=True, tag="ctr.resume"):
    """Raises NotFound, Conflict."""

    mutates: ClassVar = True
    resource: ClassVar = "name"
    name: Name


class Delete(Call[Nothing], frozen=True, kw_only=True, tag="ctr.delete"):
    """Remove it and all it wrote. Raises NotFound, Conflict (running, unless `force`)."""

    mutates: ClassVar = True
    resource: ClassVar = "name"
    name: Name
    force: bool = False


class List(Stream[Container, Nothing], frozen=True, kw_only=True, tag="ctr.list"):
    """Every container, by name."""

    access: ClassVar = Access.READ


class Inspect(Call[Container], frozen=True, kw_only=True, tag="ctr.inspect"):
    """One container with its spec. Raises NotFound."""

    access: ClassVar = Access.READ
    name: Name


class Wait(Call[Exit], frozen=True, kw_only=True, tag="ctr.wait"):
    """Returns when the container has ended, at once if it is not running. Raises NotFound, Conflict (never
    started)."""

    access: ClassVar = Access.READ
    name: Name


class Event(Struct, frozen=True):
    """`type` is one of create, start, ready, oom, exit, delete, pause, resume."""

    at: str
    type: str
    name: str
    detail: dict[str, str] = {}


class Events(Stream[Event, Nothing], frozen=True, kw_only=True, tag="ctr.events"):
    """What happens from now on; ends when the caller goes. A reader too slow to keep up ends with Exhausted."""

    access: ClassVar = Access.READ
    name: Name | None = None


class Explain(Call["Explained"], frozen=True, kw_only=True, tag="ctr.explain"):
    """How a container is run: everything a person needs to see what confines it. Raises NotFound."""

    access: ClassVar = Access.READ
    name: Name


class Explained(Struct, frozen=True):
    unit: str
    config: str  # the launcher's input, JSON
    command: list[str]  # nspawn's command line as last started; empty before
    mounts: list[str]
    sandbox: dict[str, str]


# Calls of the descriptor socket. Streams of bytes are the caller's own descriptors: stdin, stdout and stderr
# as three pipes or files; for a terminal one end of a SOCK_SEQPACKET pair (docs/ctrd.md, Consoles).


class Run(Call["Running"], frozen=True, kw_only=True, tag="ctr.run"):
    """Start a created container with its streams joined to the caller's: 3 descriptors, or 1 if it has a
    terminal. Raises as Start."""

    mutates: ClassVar = True
    resource: ClassVar = "name"
    descriptors: ClassVar = None
    name: Name


class RunNew(Call["Running"], frozen=True, kw_only=True, tag="ctr.run_new"):
    """Create and Run in one, which is quicker: 3 descriptors, or 1 with `spec.tty`. Nothing stays of a container that
    could not be started. Raises as Create and Start."""

    mutates: ClassVar = True
    resource: ClassVar = "name"
    descriptors: ClassVar = None
    name: Name | None = None
    spec: Spec


class Running(Struct, frozen=True):
    name: str
    leader: int = 0


class Attach(Call[Nothing], frozen=True, kw_only=True, tag="ctr.attach"):
    """Join the terminal of a running container: 1 descriptor. Raises NotFound, Conflict (no terminal)."""

    resource: ClassVar = "name"
    descriptors: ClassVar = 1
    name: Name


class Exec(Call["Exit"], frozen=True, kw_only=True, tag="ctr.exec"):
    """Run a command in a running container, confined like its payload: 3 descriptors, or 1 with `tty`. ITEM
    `Running` when it has begun, DONE with its exit. The command ends when the caller goes.
    Raises NotFound, Conflict (not running), Invalid (no such command or user)."""

    mutates: ClassVar = True
    resource: ClassVar = "name"
    descriptors: ClassVar = None
    name: Name
    args: Annotated[list[Argument], Meta(min_length=1, max_length=4096)]
    env: Environment = {}  # noqa: RUF012 - msgspec copies it
    user: User = ""
    workdir: Annotated[str, Meta(max_length=4095, pattern=r"\A(/[^\0]*)?\Z")] = ""
    tty: bool = False


Interface = (
    Create
    | Start
    | Stop
    | Restart
    | Kill
    | Pause
    | Resume
    | Delete
    | List
    | Inspect
    | Wait
    | Events
    | Explain
    | Describe
)
"""What the ZeroMQ socket takes."""

Descriptors = Run | RunNew | Attach | Exec
"""What the descriptor socket takes."""
