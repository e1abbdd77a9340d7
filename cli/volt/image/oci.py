"""An OCI image layout, as a directory or packed in a tar: which layers make the image, and its configuration.

https://github.com/opencontainers/image-spec (image-layout.md, manifest.md, image-index.md). Every blob is
checked against the digest that names it before the tree is given a name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from volt_common.errors import Corrupt, Exhausted, Invalid, MissingDependency, NotFound

MAX_JSON = 4 << 20
MAX_LAYERS = 127  # descriptors of one call
_INDEX = {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "ppc64le": "ppc64le"}
T = TypeVar("T")

_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]{64}|[0-9a-f]{128})\Z")


class Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """A blob by its digest; fields of image-spec's descriptor.md."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] = {}


class Index(msgspec.Struct, frozen=True):
    manifests: list[Descriptor]


class Manifest(msgspec.Struct, frozen=True):
    config: Descriptor
    layers: list[Descriptor]


class Blob(NamedTuple):
    """A stretch of a file: the whole of it in a directory, a part of it in an archive."""

    fd: int
    offset: int
    size: int


class Layout(Protocol):
    """Where blobs come from."""

    def blob(self, name: str) -> Blob:
        """Of `index.json` or `blobs/sha256/…`. Raises NotFound."""


class DirectoryLayout:
    """A layout that lies open."""

    def __init__(self, path: str, stack: contextlib.ExitStack) -> None:
        self._path = path
        self._stack = stack

    def blob(self, name: str) -> Blob:
        try:
            fd = os.open(f"{self._path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Invalid(f"{self._path} is no whole OCI layout: {name} is not there") from None
        self._stack.callback(os.close, fd)
        return Blob(fd, 0, os.fstat(fd).st_size)


class ArchiveLayout:
    """A layout in an uncompressed tar: its blobs are stretches of the file."""

    def __init__(self, fd: int, shown: str) -> None:
        self._fd = fd
        self._shown = shown
        self._parts: dict[str, Blob] = {}
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            with os.fdopen(os.dup(fd), "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    if member.isreg() and not member.issparse():
                        name = member.name.removeprefix("./")
                        self._parts[name] = Blob(fd, member.offset_data, member.size)
        except (tarfile.TarError, EOFError) as error:
            raise Invalid(f"{shown} is no whole tar: {error}") from None

    def blob(self, name: str) -> Blob:
        if name not in self._parts:
            raise Invalid(f"{self._shown} is no whole OCI archive: {name} is not in it")
        return self._parts[name]


class Image:
    """One image of a layout. `finish` raises Corrupt if a layer was not what its digest says."""

    def __init__(self, layout: Layout, config: bytes, layers: list[tuple[Descriptor, Blob]]) -> None:
        self.config = config
        self._layout = layout
        self._layers = layers
        self._threads: list[threading.Thread] = []
        self._bad: list[str] = []

    def layers(self, stack: contextlib.ExitStack) -> list[int]:
        """A pipe per layer, lowest first. A thread of ours feeds each, and hashes what it feeds: casd knows
        objects by another digest, and reads layers wherever in a file they lie."""
        fds = []
        for descriptor, blob in self._layers:
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            fds.append(reader)
            thread = threading.Thread(target=self._feed, args=(descriptor, blob, writer), daemon=True)
            thread.start()
            self._threads.append(thread)
        return fds

    def finish(self) -> None:
        """When casd has read the layers. Raises Corrupt."""
        for thread in self._threads:
            thread.join()
        if self._bad:
            raise Corrupt("its bytes have another digest", what="layer", name=self._bad[0])

    def _feed(self, descriptor: Descriptor, blob: Blob, writer: int) -> None:
        algorithm, expected = _parse_digest(descriptor.digest)
        digest = hashlib.new(algorithm)
        at, end = blob.offset, blob.offset + blob.size
        open_ = True
        while at < end:
            data = os.pread(blob.fd, min(1 << 18, end - at), at)
            if not data:
                break
            at += len(data)
            digest.update(data)
            while data and open_:
                try:
                    data = data[os.write(writer, data) :]
                except BrokenPipeError:  # casd has seen the end of the tar, or has given up
                    open_ = False
        if digest.hexdigest() != expected:
            self._bad.append(descriptor.digest)
        os.close(writer)


def open_image(path: str, stack: contextlib.ExitStack) -> Image:
    """The image of a layout at `path`, or of an archive on standard input (`-`). Raises Invalid, Corrupt."""
    layout: Layout
    if path != "-" and os.path.isdir(path):
        layout = DirectoryLayout(path, stack)
    else:
        layout = ArchiveLayout(_archive(path, stack), path)
    return choose(layout, path)


def choose(layout: Layout, shown: str) -> Image:
    """The one manifest of the layout that this machine can run. Raises Invalid, Corrupt."""
    index = _decode(_read(layout.blob("index.json")), Index, "index.json")
    found = _pick(index.manifests, shown)
    if found.media_type in _INDEX:
        found = _pick(_decode(_blob(layout, found), Index, found.digest).manifests, shown)
    manifest = _decode(_blob(layout, found), Manifest, found.digest)
    if not manifest.layers:
        raise Invalid(f"{shown}: the image has no layers")
    if len(manifest.layers) > MAX_LAYERS:
        raise Exhausted(f"{shown} has {len(manifest.layers)}, and {MAX_LAYERS} can be built", resource="layers")
    config = _blob(layout, manifest.config)
    layers = []
    for descriptor in manifest.layers:
        blob = layout.blob(blob_name(descriptor.digest))
        if blob.size != descriptor.size:
            raise Corrupt(f"{blob.size} bytes, not {descriptor.size}", what="layer", name=descriptor.digest)
        layers.append((descriptor, blob))
    return Image(layout, config, layers)


def blob_name(digest: str) -> str:
    """Where a layout keeps a blob. Raises Invalid for a digest that is none, which could be a path."""
    algorithm, value = _parse_digest(digest)
    return f"blobs/{algorithm}/{value}"


def _parse_digest(digest: str) -> tuple[str, str]:
    match = _DIGEST.match(digest)
    if match is None or len(match[2]) != (64 if match[1] == "sha256" else 128):
        raise Invalid(f"{digest!r} is no digest")
    return match[1], match[2]


def _pick(manifests: list[Descriptor], shown: str) -> Descriptor:
    if len(manifests) == 1:
        return manifests[0]
    machine = _MACHINES.get(platform.machine(), platform.machine())
    wanted = ("linux", machine)
    fitting = [m for m in manifests if m.platform and (m.platform.os, m.platform.architecture) == wanted]
    if len(fitting) == 1:
        return fitting[0]
    if not manifests or (not fitting and any(m.platform for m in manifests)):
        raise NotFound(kind="image in it for", name=f"linux/{machine}")
    raise Invalid(f"{shown} holds {len(manifests)} images", hint="Copy the one wanted into a layout of its own.")


def _blob(layout: Layout, descriptor: Descriptor) -> bytes:
    blob = layout.blob(blob_name(descriptor.digest))
    if blob.size != descriptor.size:
        raise Corrupt(f"{blob.size} bytes, not {descriptor.size}", what="blob", name=descriptor.digest)
    data = _read(blob)
    algorithm, expected = _parse_digest(descriptor.digest)
    if hashlib.new(algorithm, data).hexdigest() != expected:
        raise Corrupt("its bytes have another digest", what="blob", name=descriptor.digest)
    return data


def _read(blob: Blob) -> bytes:
    if blob.size > MAX_JSON:
        raise Invalid(f"a manifest or configuration of {blob.size} bytes; {MAX_JSON} are read")
    return os.pread(blob.fd, blob.size, blob.offset)


def _decode(data: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"{what}: {error}") from None


def _archive(path: str, stack: contextlib.ExitStack) -> int:
    """A descriptor of the archive that can be read at any offset. What comes through a pipe, or is packed, is
    laid out in an unnamed file first."""
    fd = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if fd:
        stack.callback(os.close, fd)
    try:
        head = os.pread(fd, 4, 0)
        seekable = True
    except OSError:
        head, seekable = b"", False
    packer = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}.get(head[:2], "")
    if seekable and not packer:
        return fd
    file = tempfile.TemporaryFile(dir="/var/tmp")  # noqa: SIM115 - the stack closes it
    stack.callback(file.close)
    if packer:
        try:
            subprocess.run([packer, "-dc"], stdin=fd, stdout=file, check=True)
        except FileNotFoundError:
            raise MissingDependency(what=packer, hint=f"apt install {packer}") from None
        except subprocess.CalledProcessError:
            raise Invalid(f"{path} can't be unpacked by {packer}") from None
    else:
        with os.fdopen(os.dup(fd), "rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
    file.flush()
    return file.fileno()
