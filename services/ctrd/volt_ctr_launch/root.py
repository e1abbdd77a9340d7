"""A container's root file system: the view below, its own upper above, in this process's private mount namespace."""

from __future__ import annotations

import contextlib
import os
import stat

from volt_ctr_launch import files, kernel, views
from volt_ctr_launch.config import Config
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.ids import COUNT
from volt_ctr_launch.paths import Layout


class Rootfs:
    """The mounted root: its path for nspawn, and a descriptor to look inside from."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_inside(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open a path of the container's as the container would see it; links can't lead out. Never blocks, and
        never reaches a device (the root is mounted without)."""
        resolve = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS
        return kernel.openat2(self.descriptor, path, flags, resolve)


def assemble(layout: Layout, config: Config, base: int, namespace: int, image: int) -> Rootfs:
    """Mount everything below /run/volt-launch/NAME and roots/NAME. The caller is in its own mount namespace."""
    home, scratch = layout.root(config.name), layout.launch(config.name)
    lower, rootfs = f"{scratch}/lower", f"{home}/rootfs"
    for path in (lower, rootfs):
        files.make_directory(path, 0o755)
    views.mount(image, lower)
    _idmap(lower, namespace)
    options = [_lower(layout, config, lower)]
    if config.layer != "none":
        layer = _layer(home, scratch, config)
        _prepare_upper(f"{layer}/upper", config, base)
        files.make_directory(f"{layer}/work", 0o700)
        options += [f"upperdir={layer}/upper", f"workdir={layer}/work"]
    # In the full form trusted.overlay.* is the image's own data, and obeyed by nobody.
    follow = config.view.form == "redirect"
    options += ["redirect_dir=on", "metacopy=on"] if follow else ["redirect_dir=nofollow", "metacopy=off"]
    flags = kernel.MS_NODEV | (kernel.MS_RDONLY if config.layer == "none" else 0)
    try:
        kernel.mount("overlay", rootfs, "overlay", flags, ",".join(options))
    except OSError as error:
        if config.view.form == "redirect":
            hint = "views of the form redirect need Linux 6.5 or later"
            raise Refusal("MISSING_DEPENDENCY", f"the root of {config.name}: {error.strerror}; {hint}") from None
        raise
    return Rootfs(rootfs)


def _idmap(path: str, namespace: int) -> None:
    """Replace a mount by one of itself with shifted ids."""
    tree = kernel.open_tree(-100, path)
    try:
        kernel.mount_setattr(tree, idmap=namespace)
        kernel.umount(path, kernel.MNT_DETACH)
        kernel.move_mount(tree, path)
    finally:
        os.close(tree)


def _lower(layout: Layout, config: Config, lower: str) -> str:
    """The overlay's lower layers. A single one needs a second to be an overlay without an upper."""
    if config.view.form == "redirect":
        # By descriptor: casd owns the directory above, and could replace the objects' by a link.
        objects = files.open_beneath(layout.cas, "objects", os.O_PATH | os.O_DIRECTORY)
        os.set_inheritable(objects, False)
        return f"lowerdir={lower}::/proc/self/fd/{objects}"
    if config.layer == "none":
        empty = f"{os.path.dirname(lower)}/empty"
        files.make_directory(empty, 0o755)
        return f"lowerdir={lower}:{empty}"
    return f"lowerdir={lower}"


def _layer(home: str, scratch: str, config: Config) -> str:
    """Where upper and work are. Below a directory that only root can pass: a setuid program that the container
    leaves in its upper must be nothing to the host's users."""
    layer = f"{home}/layer" if config.layer == "overlay" else f"{scratch}/layer"
    files.make_directory(layer, 0o700)
    if config.layer == "tmpfs":
        kernel.mount("tmpfs", layer, "tmpfs", kernel.MS_NODEV, "mode=0700")
    return layer


def _prepare_upper(upper: str, config: Config, base: int) -> None:
    """A new upper takes the metadata of the image's root, which it hides; one that exists is left alone."""
    try:
        os.mkdir(upper, 0o700)
    except FileExistsError:
        if os.lstat(upper).st_uid != 0:
            return
    # Root still owns it: it is new, or a crash came between.
    os.chmod(upper, config.root.mode)
    os.utime(upper, ns=(config.root.mtime_ns, config.root.mtime_ns))
    os.chown(upper, base + config.root.uid, base + config.root.gid)
    if config.root.mode & 0o6000:
        os.chmod(upper, config.root.mode)


def private_namespaces(network: str) -> None:
    """Leave the host's mounts, and its network unless that is wanted."""
    kernel.unshare(kernel.CLONE_NEWNS | (kernel.CLONE_NEWNET if network == "none" else 0))
    kernel.mount(None, "/", None, kernel.MS_PRIVATE | kernel.MS_REC)


def identity(base: int) -> list[tuple[int, int, int]]:
    """The map of a container's range."""
    return [(0, base, COUNT)]


def make_mount_point(root: Rootfs, target: str, directory: bool, base: int) -> None:
    """Create a missing target of a mount, as container root would: nspawn would leave it to host root, who is nobody
    inside. Links are resolved as the container sees them. Raises Refusal."""
    parts = target.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        try:
            os.close(root.open_inside(path, os.O_PATH))
            continue
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Refusal("INVALID", f"nothing can be mounted on {target}: {error.strerror}") from None
        try:
            parent = root.open_inside("/".join(parts[: depth - 1]) or "/", os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise Refusal("INVALID", f"nothing can be mounted on {target}: {error.strerror}") from None
        try:
            if directory or depth < len(parts):
                os.mkdir(parts[depth - 1], 0o755, dir_fd=parent)
            else:
                os.close(os.open(parts[depth - 1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=parent))
            os.chown(parts[depth - 1], base, base, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            raise Refusal("INVALID", f"{target} is not in the image, and can't be made: {error.strerror}") from None
        finally:
            os.close(parent)


def check_places(root: Rootfs) -> None:
    """nspawn makes files in these before the container begins, as host root and by plain paths: a link in the image
    would lead it to the host's directories. Raises Refusal."""
    for place in ("dev", "proc", "run", "sys", "tmp"):
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(place, dir_fd=root.descriptor, follow_symlinks=False).st_mode):
                raise Refusal("INVALID", f"/{place} in the image must be a directory, or absent")


def ensure_usr(root: Rootfs, base: int) -> None:
    """nspawn refuses a root without /usr, which an image of one static program has not."""
    with contextlib.suppress(OSError):
        os.mkdir("usr", 0o755, dir_fd=root.descriptor)
        os.chown("usr", base, base, dir_fd=root.descriptor, follow_symlinks=False)
