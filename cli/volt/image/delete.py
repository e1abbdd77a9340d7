"""`volt image delete`."""

from __future__ import annotations

from volt.daemon import checked, client, each, would
from volt.image.names import tree_ref
from volt.image.store import forget_config
from volt.options import Argument, Asked, Verb
from volt.output import done
from volt.settings import Settings
from volt_common.api import cas
from volt_common.errors import NotFound


def run(asked: Asked, settings: Settings) -> int:
    with client(settings, "casd") as daemon:

        def act(image: str) -> None:
            call = checked(cas.RefDelete(name=tree_ref(image)))
            try:
                if settings.dry_run:
                    daemon.call(cas.RefGet(name=tree_ref(image)))
                    would(f"delete the image {image}")
                    return
                daemon.call(call)
            except NotFound:
                raise NotFound(kind="image", name=image) from None
            forget_config(daemon, image)
            done(settings, {"name": image, "deleted": True}, f"{image} is deleted")

        return each(asked, settings, asked.texts("IMAGE"), act)


VERB = Verb(
    "Take the names of images away. Containers made of them keep what they need.",
    run,
    examples=("volt image delete debian:12",),
    arguments=(Argument("IMAGE", "NAME or NAME:TAG", many=True, complete="images"),),
    changes=True,
)
