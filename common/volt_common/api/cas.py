"""casd, the content-addressed store: objects, trees, refs and views."""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from volt_common.api.base import Access, Call, Describe, Digest, Nothing, Path, RefName, Stream


class Form(enum.Enum):
    """Of a view: metadata that redirects to objects, or the same image with the data inside."""

    REDIRECT = "redirect"
    FULL = "full"


class Compression(enum.Enum):
    """Of a tar stream. AUTO looks at its first bytes."""

    AUTO = "auto"
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


class Ref(Struct, frozen=True):
    """A durable name for a tree or a blob; what a ref names is never collected."""

    name: str
    kind: str  # "tree" or "blob"
    digest: str
    size: int = 0  # of a tree: the sum of its files; of a blob: its bytes
    set_at: int = 0  # ns since 1970


class RefSet(Call[Ref], frozen=True, kw_only=True, tag="cas.ref_set"):
    """Name a tree or blob that is in the store. With `expect` (a digest, or "" for absent) only if the
    ref is that now. Raises NotFound (the digest), Corrupt (a tree that is none), Conflict (expect)."""

    mutates: ClassVar = True
    resource: ClassVar = "name"
    name: RefName
    kind: Annotated[str, Meta(pattern=r"\A(tree|blob)\Z")]
    digest: Digest
    expect: Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z")] | None = None


class RefGet(Call[Ref], frozen=True, kw_only=True, tag="cas.ref_get"):
    """Raises NotFound."""

    access: ClassVar = Access.READ
    name: RefName


class RefList(Stream[Ref, Nothing], frozen=True, kw_only=True, tag="cas.ref_list"):
    """Every ref whose name is `prefix` or lies under `prefix/`, by name."""

    access: ClassVar = Access.READ
    prefix: Annotated[str, Meta(max_length=512)] = ""


class RefDelete(Call[Nothing], frozen=True, kw_only=True, tag="cas.ref_delete"):
    """Raises NotFound, Conflict (expect)."""

    mutates: ClassVar = True
    resource: ClassVar = "name"
    name: RefName
    expect: Digest | None = None


class Status(Call["StoreStatus"], frozen=True, kw_only=True, tag="cas.status"):
    """Counts and bytes of the store."""

    access: ClassVar = Access.READ


class StoreStatus(Struct, frozen=True):
    objects: int
    object_bytes: int
    trees: int
    tree_bytes: int
    refs: int
    logical_bytes: int  # sum over the refs' trees and blobs, each counted whole
    views: int
    view_bytes: int
    quarantined: int
    free_bytes: int
    clean: bool  # False: objects await re-verification after an unclean stop


class Verify(Stream["BadObject", "Verified"], frozen=True, kw_only=True, tag="cas.verify"):
    """Hash every object and tree again and check that every ref is complete. Bad objects are moved to
    quarantine/ and reported with the refs that need them."""

    resource: ClassVar = "store"


class BadObject(Struct, frozen=True):
    digest: str
    problem: str
    refs: list[str]


class Verified(Struct, frozen=True):
    objects: int
    bytes: int
    bad: int


class Entry(Struct, frozen=True):
    """One path of a tree. `type` is one of file, directory, symlink, char, block, fifo."""

    path: bytes
    type: str
    mode: int  # permission bits, with setuid, setgid and sticky
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    digest: str = ""
    target: bytes = b""
    major: int = 0
    minor: int = 0
    links: int = 1
    xattrs: dict[str, bytes] = {}


class Ls(Stream[Entry, Nothing], frozen=True, kw_only=True, tag="cas.ls"):
    """The entry at `path`, or a directory's entries; all below it with `recursive`. `tree` is a digest or
    a ref's name. Raises NotFound."""

    access: ClassVar = Access.READ
    tree: Annotated[str, Meta(max_length=512)]
    path: Path = b""
    recursive: bool = False


class Change(Struct, frozen=True):
    """A path that two trees do not share: without `before` it came, without `after` it went. Else `what` names the
    differences: type, or of content, target, device, mode, owner, time, xattrs, links."""

    path: bytes
    before: Entry | None = None
    after: Entry | None = None
    what: list[str] = []


class Diff(Stream[Change, Nothing], frozen=True, kw_only=True, tag="cas.diff"):
    """What differs between two trees, by path; each is a digest or a ref's name. Raises NotFound."""

    access: ClassVar = Access.READ
    old: Annotated[str, Meta(max_length=512)]
    new: Annotated[str, Meta(max_length=512)]


class View(Call["ViewReady"], frozen=True, kw_only=True, tag="cas.view"):
    """Make the EROFS image of a tree unless it is there. Raises NotFound, Exhausted."""

    access: ClassVar = Access.READ
    tree: Digest
    form: Form


class ViewReady(Struct, frozen=True):
    tree: str
    form: Form
    size: int
    sha256: str  # of the image: who mounts it copies it and checks this
    root_mode: int  # st_mode, owner and time of the tree's root, which an overlay takes from its upper
    root_uid: int
    root_gid: int
    root_mtime_ns: int


# Calls of the descriptor socket.


class Put(Call["Stored"], frozen=True, kw_only=True, tag="cas.put"):
    """Store what the one descriptor with this packet reads: a file, or a pipe to its end. With `ref`, name
    it as a blob."""

    mutates: ClassVar = True
    resource: ClassVar = "ref"
    descriptors: ClassVar = 1
    ref: RefName | None = None


class Stored(Struct, frozen=True):
    digest: str
    size: int
    new: bool


class Open(Call["Opened"], frozen=True, kw_only=True, tag="cas.open"):
    """A read-only descriptor of an object. Raises NotFound, Corrupt."""

    access: ClassVar = Access.READ
    digest: Digest


class Opened(Struct, frozen=True):
    """One descriptor travels with this reply."""

    size: int


class Cat(Call[Opened], frozen=True, kw_only=True, tag="cas.cat"):
    """A read-only descriptor of a file of a tree (digest or ref). Raises NotFound, Invalid (no file)."""

    access: ClassVar = Access.READ
    tree: Annotated[str, Meta(max_length=512)]
    path: Path


class OpenView(Call[Opened], frozen=True, kw_only=True, tag="cas.open_view"):
    """A read-only descriptor of a view's image, made if need be."""

    access: ClassVar = Access.READ
    tree: Digest
    form: Form


class Node(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One path that a client walked, as lstat gave it. A regular file's bytes come by descriptor: the
    n-th Node with `fd` true belongs to the n-th descriptor of the packet. `link` groups names of one
    inode (0: none); only the first name of a group carries a descriptor."""

    path: Path
    mode: Annotated[int, Meta(ge=0, le=0o177777)]
    uid: Annotated[int, Meta(ge=0, le=0xFFFFFFFE)]
    gid: Annotated[int, Meta(ge=0, le=0xFFFFFFFE)]
    mtime_ns: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
    fd: bool = False
    target: Path = b""
    major: Annotated[int, Meta(ge=0, le=0xFFF)] = 0
    minor: Annotated[int, Meta(ge=0, le=0xFFFFF)] = 0
    link: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] = 0
    xattrs: list[tuple[Annotated[bytes, Meta(max_length=255)], Annotated[bytes, Meta(max_length=65535)]]] = []


class Build(Call["Built"], frozen=True, kw_only=True, tag="cas.build"):
    """Begin a tree from a directory that the caller walks. MORE packets of the same id follow, each a
    `Batch` with its descriptors, each answered by an ITEM `Taken`; the last has `last` true and is
    answered by DONE. At most 3 batches may be unanswered. With `ref`, name the tree.
    Raises Changed, Invalid, Exhausted."""

    mutates: ClassVar = True
    resource: ClassVar = "ref"
    ref: RefName | None = None


class Batch(Struct, frozen=True, forbid_unknown_fields=True):
    nodes: list[Node]
    last: bool = False


class Taken(Struct, frozen=True):
    files: int
    bytes: int


class BuildTar(Call["Built"], frozen=True, kw_only=True, tag="cas.build_tar"):
    """A tree from the tar stream that the one descriptor reads, with PROGRESS. Raises Invalid (a stream
    that escapes, lies or is cut short, by name), Exhausted."""

    mutates: ClassVar = True
    resource: ClassVar = "ref"
    descriptors: ClassVar = 1
    ref: RefName | None = None
    compression: Compression = Compression.AUTO


class BuildLayers(Call["Built"], frozen=True, kw_only=True, tag="cas.build_layers"):
    """A tree from OCI layers, lowest first, one descriptor each (at most 127), with whiteouts and opaque
    directories. Raises as BuildTar."""

    mutates: ClassVar = True
    resource: ClassVar = "ref"
    descriptors: ClassVar = None
    ref: RefName | None = None


class Built(Struct, frozen=True):
    tree: str
    entries: int
    files: int
    bytes: int
    new_objects: int
    new_bytes: int
    skipped: list[str] = []  # sockets, and what else a tree cannot hold, at most 20 of them


Interface = RefSet | RefGet | RefList | RefDelete | Status | Verify | Ls | Diff | View | Describe
"""What the ZeroMQ socket takes."""

Descriptors = Put | Open | Cat | OpenView | Build | BuildTar | BuildLayers
"""What the descriptor socket takes."""
