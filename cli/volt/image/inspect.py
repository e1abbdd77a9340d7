"""`volt image inspect`."""

from __future__ import annotations

import json

from volt.daemon import checked, client, each
from volt.image.names import tree_ref
from volt.image.store import read_config
from volt.options import Argument, Asked, Verb
from volt.output import as_json, one
from volt.settings import Settings
from volt_common.api import cas
from volt_common.errors import Invalid, NotFound


def run(asked: Asked, settings: Settings) -> int:
    def act(image: str) -> None:
        with client(settings, "casd") as daemon:
            try:
                ref = daemon.call(checked(cas.RefGet(name=tree_ref(image))))
            except NotFound:
                raise NotFound(kind="image", name=image) from None
        data = read_config(settings, image)
        try:
            config = None if data is None else json.loads(data)
        except ValueError as error:
            raise Invalid(f"{image}: its configuration is no JSON: {error}") from None
        row = {"name": image, "tree": ref.digest, "size": ref.size, "set_at": ref.set_at, "config": config}
        if settings.output in ("table", "wide"):
            print(as_json(row))
        else:
            one(settings, row)

    return each(asked, settings, asked.texts("IMAGE"), act)


VERB = Verb(
    "An image's tree, size and OCI configuration.",
    run,
    examples=("volt image inspect debian:12",),
    arguments=(Argument("IMAGE", "NAME or NAME:TAG", many=True, complete="images"),),
)
