"""Giving a tree in the store an image's name, as one step that others see whole."""

from __future__ import annotations

import contextlib
import os

from volt.daemon import checked, client, packets
from volt.image.names import config_ref, tree_ref
from volt.settings import Settings
from volt_common.api import cas
from volt_common.client.blocking import Client
from volt_common.errors import Invalid, NotFound
from volt_common.packets import close_all

MAX_CONFIG = 1 << 20


def check_name(image: str) -> None:
    """Raises Invalid, before any work is done for an image that could not be named."""
    if not image or image.startswith("cas:"):
        raise Invalid(f"an image is called NAME or NAME:TAG, not {image!r}")
    checked(cas.RefGet(name=tree_ref(image)))


def publish(settings: Settings, image: str, tree: str, config: bytes | None) -> None:
    """Name the tree. Its configuration comes first: an image that is there is there with it, and never with
    the configuration of the one before."""
    if config is not None:
        if len(config) > MAX_CONFIG:
            raise Invalid(f"the image's configuration has more than {MAX_CONFIG} bytes")
        fd = os.memfd_create("image-config")
        try:
            os.write(fd, config)
            os.lseek(fd, 0, os.SEEK_SET)
            reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                with packets(settings, "casd") as daemon:
                    _, fds = daemon.call(cas.Put(ref=config_ref(image)), [reader])
                    close_all(fds)
            finally:
                os.close(reader)
        finally:
            os.close(fd)
    with client(settings, "casd") as daemon:
        if config is None:
            forget_config(daemon, image)
        daemon.call(cas.RefSet(name=tree_ref(image), kind="tree", digest=tree))


def forget_config(daemon: Client, image: str) -> None:
    """Asked for first, so that the audit log does not fill with what was not there to be deleted."""
    with contextlib.suppress(NotFound):
        daemon.call(cas.RefGet(name=config_ref(image)))
        daemon.call(cas.RefDelete(name=config_ref(image)))


def read_config(settings: Settings, image: str) -> bytes | None:
    """The OCI configuration of an image, None if it has none."""
    with client(settings, "casd") as daemon:
        try:
            ref = daemon.call(cas.RefGet(name=config_ref(image)))
        except NotFound:
            return None
    with packets(settings, "casd") as daemon:
        _, fds = daemon.call(cas.Open(digest=ref.digest))
    with open(fds[0], "rb") as file:
        close_all(fds[1:])
        return file.read(MAX_CONFIG)
