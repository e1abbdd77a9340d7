"""docs/protocol.md, made from the contracts: `python -m volt_common.describe > docs/protocol.md`.

A daemon answers `describe` with its own part of it.
"""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from volt_common.api import base, cas, ctr
from volt_common.api.base import Access, Call, Nothing, Stream
from volt_common.errors import BY_CODE, NotFound
from volt_common.wire import (
    MAX_DEADLINE_MS,
    MAX_DESCRIPTORS,
    MAX_MESSAGE,
    MAX_PACKET,
    VERSION,
    Kind,
    Problem,
    Progress,
)

DAEMONS: Final[dict[str, ModuleType]] = {"casd": cas, "ctrd": ctr}

_KINDS: Final = {
    Kind.CALL: "up: a call",
    Kind.CANCEL: "up: stop the call of this id; its ERROR still comes. Its body is not looked at",
    Kind.MORE: "up: a further packet of a call that takes several (descriptor socket only)",
    Kind.ITEM: "down: one of any number of items that come before the DONE",
    Kind.PROGRESS: "down: how far the call is",
    Kind.DONE: "down: the result; the call has ended",
    Kind.ERROR: "down: the call has failed and ended",
}
_WHO: Final = {Access.READ: "read", Access.OPERATE: "operate", Access.ADMIN: "admin (uid 0)"}
_MEANINGS: Final = {
    "GENERAL": "any other failure",
    "USAGE": "the command line is wrong",
    "NETWORK": "the network failed",
    "INVALID": "a configuration, a name or a file that can't be used",
}
_PLAIN: Final = {str: "text", bytes: "bytes", int: "integer", float: "number", bool: "true or false"}


def describe_daemon(name: str) -> str:
    """The calls of a daemon (`casd`, or its tag `cas`) with all their types, as Markdown. Raises NotFound."""
    for daemon, contract in DAEMONS.items():
        if name in (daemon, _tag(contract)):
            return "\n".join([*_daemon(daemon, contract), *_named()])
    raise NotFound(kind="contract", name=name)


def protocol() -> str:
    """All of docs/protocol.md."""
    parts = [*_introduction(), *_errors(), *_named()]
    for daemon, contract in DAEMONS.items():
        parts += _daemon(daemon, contract)
    return "\n".join(parts) + "\n"


def calls(contract: ModuleType) -> Iterator[type[Call[Any]]]:
    """Every call of a contract once, those of the ZeroMQ socket first."""
    yield from typing.get_args(contract.Interface)
    yield from typing.get_args(contract.Descriptors)


def result_and_item(call: type[Call[Any]]) -> tuple[type[Struct], type[Struct] | None]:
    """What DONE carries, and what each ITEM carries if the call has any."""
    of = call.__orig_bases__[0]  # type: ignore[attr-defined] # every contract class is a parametrised Call or Stream
    found = [_resolved(call, argument) for argument in typing.get_args(of)]
    return (found[1], found[0]) if typing.get_origin(of) is Stream else (found[0], None)


def _resolved(call: type[Call[Any]], argument: object) -> type[Struct]:
    if isinstance(argument, typing.ForwardRef):
        argument = getattr(inspect.getmodule(call), argument.__forward_arg__)
    assert isinstance(argument, type)
    assert issubclass(argument, Struct)
    return argument


def _tag(contract: ModuleType) -> str:
    return contract.__name__.rpartition(".")[2]


# -- the parts of the page


def _introduction() -> list[str]:
    days = MAX_DEADLINE_MS // 86_400_000
    return [
        "# The protocol",
        "",
        "Made by `python -m volt_common.describe` from `volt_common/api`; do not edit.",
        "",
        f"Version {VERSION}. Plain msgpack over plain ZMTP 3: a peer needs only a ZeroMQ and a msgpack library.",
        "",
        "## Messages",
        "",
        "A daemon has two sockets in `/run/volt`. Each message is a header and a body.",
        "",
        "- `NAME.sock`: ZeroMQ, a ROUTER at `ipc:///run/volt/NAME.sock`. A client is a DEALER and sends exactly two",
        f"  frames, the header and the body, each of at most {MAX_MESSAGE:,} bytes.",
        "- `NAME.fd`: AF_UNIX, SOCK_SEQPACKET. One packet holds the header's bytes and then, with nothing between",
        f"  them, the body's: together at most {MAX_PACKET:,}. At most {MAX_DESCRIPTORS} descriptors travel beside it",
        "  (SCM_RIGHTS), either way; a call that comes with more or fewer than it takes is refused. A connection",
        "  carries one call at a time, and its end cancels that call.",
        "",
        "**Header**: a msgpack array `[version, id, deadline_ms, kind]`: an integer; 16 bytes, random, the caller's;",
        "milliseconds from the call's arrival after which nobody wants the answer, 0 for none, at most",
        f"{days} days; and one of the kinds below. Replies carry their call's id and the deadline 0.",
        "",
        "**Body**: a msgpack map. A call's holds `op`, the call's name, and its fields: one that is not known is",
        "refused, one that is absent has its default. Whoever reads replies ignores fields that it does not know.",
        "",
        *_table(("kind", "number", "goes"), [(kind.name, str(int(kind)), _KINDS[kind]) for kind in Kind]),
        "",
        "A call is answered by any number of ITEM and PROGRESS, then by one DONE or ERROR. A slow reader slows the",
        "daemon's sending and loses nothing. A call marked *changes* that arrives again with its id, from the same",
        "uid, gets the first answer again and is not done twice: after a daemon's restart send it again, with the",
        "same id.",
        "",
        "**Who**: the kernel says who calls (SO_PEERCRED). *read* and *operate* are for whoever may connect, *admin*",
        "for uid 0. A daemon's own uid may call what its role lists and nothing else.",
        "",
        *_struct(Progress),
        "",
    ]


def _errors() -> list[str]:
    rows = []
    for code, kind in BY_CODE.items():
        meaning = _MEANINGS.get(code) or inspect.cleandoc(kind.__doc__ or "")
        rows.append((f"`{code}`", str(kind.exit), meaning))
    return [
        "## Errors",
        "",
        "The body of an ERROR. `message` is one line to show; `fields` are the words in braces below.",
        "",
        *_struct(Problem),
        "",
        "`exit` is the exit status of the `volt` command. A peer takes a code it does not know for `GENERAL`.",
        "",
        *_table(("code", "exit", "meaning"), rows),
        "",
    ]


def _named() -> list[str]:
    rows = [(f"`{name}`", _bounds(hint)) for name, hint in _aliases().items()]
    return [
        "## Named types",
        "",
        "Lengths of text count characters; patterns are Python's.",
        "",
        *_table(("name", "is"), rows),
        "",
    ]


def _daemon(daemon: str, contract: ModuleType) -> list[str]:
    lines = [f"## {daemon}", "", inspect.cleandoc(contract.__doc__ or ""), ""]
    values: dict[str, type[Any]] = {}
    for union, title in ((contract.Interface, f"{daemon}.sock"), (contract.Descriptors, f"{daemon}.fd")):
        lines += [f"### Calls on {title}", ""]
        for call in typing.get_args(union):
            lines += [*_call(call), ""]
            for used in (call, *result_and_item(call)):
                _collect(used, values)
        if union is contract.Descriptors:
            for more in vars(contract).values():  # bodies of MORE packets: structs that no call's field leads to
                if isinstance(more, type) and issubclass(more, Struct) and more.__module__ == contract.__name__:
                    _collect(more, values)
    lines += [f"### Values of {daemon}", ""]
    for value in values.values():
        lines += [*(_enum(value) if issubclass(value, enum.Enum) else _struct(value)), ""]
    return lines


def _call(call: type[Call[Any]]) -> list[str]:
    result, item = result_and_item(call)
    facts = [_WHO[call.access]]
    if call.mutates:
        facts.append("changes")
    if call.descriptors != 0:
        facts.append("descriptors: " + ("as said" if call.descriptors is None else str(call.descriptors)))
    answer = f"ITEM `{item.__name__}`, " if item else ""
    answer += "DONE empty" if result is Nothing else f"DONE `{result.__name__}`"
    title = f"#### `{call.__struct_config__.tag}`"
    return [title, "", _prose(call), "", f"*{', '.join(facts)}* → {answer}", *_fields(call)]


def _struct(struct: type[Struct]) -> list[str]:
    shape = "an array, in this order" if struct.__struct_config__.array_like else "a map"
    prose = _prose(struct)
    return [f"**`{struct.__name__}`**, {shape}.{' ' + prose if prose else ''}", *_fields(struct)]


def _enum(kind: type[enum.Enum]) -> list[str]:
    values = ", ".join(f"`{member.value}`" for member in kind)
    prose = inspect.cleandoc(kind.__doc__ or "") if "__doc__" in vars(kind) else ""
    return [f"**`{kind.__name__}`**: {values}.{' ' + ' '.join(prose.split()) if prose else ''}"]


def _fields(struct: type[Struct]) -> list[str]:
    notes = _notes(struct)
    rows = []
    for field in msgspec.structs.fields(struct):
        if field.required:
            default = "required"
        elif field.default is not msgspec.NODEFAULT:
            default = _literal(field.default)
        else:
            default = _literal(typing.cast(Any, field.default_factory)())
        rows.append((f"`{field.encode_name}`", _type(field.type), default, notes.get(field.name, "")))
    return ["", *_table(("field", "type", "default", ""), rows)] if rows else []


# -- words


def _type(hint: Any) -> str:
    for name, alias in _aliases().items():
        if hint == alias:
            return f"`{name}`"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _bounds(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is tuple:
        return f"array of ({', '.join(_type(argument) for argument in arguments)})"
    if origin is dict:
        return f"map of {_type(arguments[0])} to {_type(arguments[1])}"
    if hint is None or hint is type(None):
        return "null"
    return _PLAIN.get(hint) or f"`{hint.__name__}`"


def _bounds(hint: Any) -> str:
    if typing.get_origin(hint) is not Annotated:
        return _type_of_alias(hint)
    kind, *metas = typing.get_args(hint)
    words = [_type(kind)]
    for meta in metas:
        assert isinstance(meta, Meta)
        if meta.ge is not None or meta.le is not None:
            words.append(f"{meta.ge} to {meta.le}")
        if meta.min_length is not None:
            words.append(f"length from {meta.min_length}")
        if meta.max_length is not None:
            words.append(f"length up to {meta.max_length}")
        if meta.pattern is not None:
            words.append(f"`{meta.pattern}`")
    return ", ".join(words)


def _type_of_alias(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    assert origin in (list, dict), hint
    of = [_type(argument) for argument in arguments]
    return f"list of {of[0]}" if origin is list else f"map of {of[0]} to {of[1]}"


def _aliases() -> dict[str, Any]:
    """The contracts' own names for bounded types."""
    found = {}
    for module in (base, *DAEMONS.values()):
        for name, value in vars(module).items():
            if name[0].isupper() and typing.get_origin(value) in (Annotated, list, dict):
                found[name] = value
    return found


def _collect(kind: Any, found: dict[str, type[Any]]) -> None:
    """All structs and enums that `kind`'s fields lead to, in the order of their first use; calls themselves not."""
    if isinstance(kind, type) and issubclass(kind, Struct | enum.Enum):
        if kind is Nothing or kind.__name__ in found:
            return
        if not issubclass(kind, Call):
            found[kind.__name__] = kind
        if issubclass(kind, Struct):
            for field in msgspec.structs.fields(kind):
                _collect(field.type, found)
    else:
        for argument in typing.get_args(kind):
            _collect(argument, found)


def _literal(value: object) -> str:
    if isinstance(value, enum.Enum):
        return f"`{value.value}`"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Struct):
        return "all defaults"
    if value in ("", b"", [], {}):
        return "empty"
    return f"`{value}`"


def _prose(kind: type[Any]) -> str:
    """The class's own docstring; not one that it inherits."""
    return " ".join(inspect.cleandoc(vars(kind).get("__doc__") or "").split())


def _notes(struct: type[Struct]) -> dict[str, str]:
    """The comments beside the fields, where the source is at hand."""
    try:
        source = inspect.getsource(struct)
    except (OSError, TypeError):
        return {}
    return dict(re.findall(r"^    (\w+): .*?  # (?!noqa|type:)(.+)$", source, re.MULTILINE))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def main() -> None:
    print(protocol(), end="")


if __name__ == "__main__":
    main()
