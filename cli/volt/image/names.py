"""From what a person calls an image to its refs: `debian:12` is `images/debian/12`."""

from __future__ import annotations

TAG = "latest"
TREES = "images/"
CONFIGS = "image-config/"


def path_of(image: str) -> str:
    """NAME/TAG of `NAME[:TAG]`. A colon counts only in the last part, so a registry's port is none of it."""
    head, slash, last = image.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}/{tag or TAG}"


def tree_ref(image: str) -> str:
    return TREES + path_of(image)


def config_ref(image: str) -> str:
    return CONFIGS + path_of(image)


def shown(ref: str) -> str:
    """The image's name of one of its refs."""
    path = ref.removeprefix(TREES).removeprefix(CONFIGS)
    name, _, tag = path.rpartition("/")
    return f"{name}:{tag}"
