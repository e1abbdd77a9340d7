"""What Volt's other daemons may do here: their rows of calls, and the refs that are theirs to change."""

from __future__ import annotations

import pwd
from collections.abc import Mapping
from typing import Any, Final

from volt_common.api import cas
from volt_common.api.base import Call, Describe
from volt_common.errors import Denied

_READING: Final[tuple[type[Call[Any]], ...]] = (
    cas.RefGet,
    cas.RefList,
    cas.Ls,
    cas.Diff,
    cas.Cat,
    cas.Open,
    cas.View,
    cas.OpenView,
    cas.Status,
    Describe,
)
ROWS: Final[Mapping[str, tuple[type[Call[Any]], ...]]] = {
    "volt-ctr": (*_READING, cas.RefSet, cas.RefDelete),
    "volt-vm": _READING,
    "volt-registry": (cas.Put, cas.Open, cas.RefGet, cas.RefList, cas.RefSet, cas.RefDelete, Describe),
}
NAMESPACES: Final[Mapping[str, tuple[str, ...]]] = {
    "volt-ctr": ("containers/",),  # what a container runs from is kept while it exists
    "volt-registry": ("registry/", "images/"),
}


class Namespaces:
    """Under which prefixes a uid may change refs; a uid that is not named here, under any."""

    def __init__(self, prefixes: Mapping[int, tuple[str, ...]]) -> None:
        self._prefixes = dict(prefixes)

    @classmethod
    def of_host(cls) -> Namespaces:
        """Those of the daemons' users that this host has."""
        found = {}
        for user, prefixes in NAMESPACES.items():
            try:
                found[pwd.getpwnam(user).pw_uid] = prefixes
            except KeyError:
                continue
        return cls(found)

    def check(self, uid: int, ref: str | None) -> None:
        """Raises Denied unless `uid` may change this ref (None: it changes none)."""
        prefixes = self._prefixes.get(uid)
        if ref is not None and prefixes is not None and not ref.startswith(prefixes):
            raise Denied(f"this daemon may change refs under {' and '.join(prefixes)} only, not {ref}")
