"""What every contract is made of: calls with their results, access, and the bounded types of fields."""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar, Generic, TypeVar

from msgspec import Meta, Struct

R = TypeVar("R")
I = TypeVar("I")  # noqa: E741 - the item's type


class Access(enum.IntEnum):
    """What a caller must be. uid 0 is ADMIN, whoever else may connect is OPERATE, a daemon has its row."""

    READ = 0
    OPERATE = 1
    ADMIN = 2


class Call(Struct, Generic[R], frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    """A request that one DONE of type R answers.

    `mutates` calls are journaled by their id: the same id again returns the first answer.
    `resource` names the field that an audit line calls the resource.
    """

    access: ClassVar[Access] = Access.OPERATE
    mutates: ClassVar[bool] = False
    resource: ClassVar[str] = ""
    descriptors: ClassVar[int | None] = 0  # how many travel with the call; None: any number up to 253


class Stream(Call[R], Generic[I, R], frozen=True, kw_only=True):
    """A request that any number of ITEMs of type I precede the DONE of type R."""


class Nothing(Struct, frozen=True):
    """The result of a call that only succeeds or fails."""


class Describe(Call["Description"], frozen=True, kw_only=True, tag="describe"):
    """What this daemon can do: its calls, with their fields and documentation."""

    access: ClassVar[Access] = Access.READ


class Description(Struct, frozen=True):
    daemon: str
    version: str
    text: str


Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""BLAKE3-256 in lower-case hex."""

Name = Annotated[str, Meta(pattern=r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")]
"""Of a workload."""

RefName = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}){0,15}\Z",
        max_length=512,
    ),
]
"""Of a ref: up to 16 parts of letters, digits and `_.+-`, none of which begins with a dot."""

Path = Annotated[bytes, Meta(max_length=4095)]
"""A path inside a tree: raw bytes, relative, without `.` or `..`; empty for the root."""

Size = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""Bytes."""
