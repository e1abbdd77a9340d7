"""The bytes of one sample of every call, result, item and error, frozen in golden.json.

A failure here means that peers of another version no longer understand each other. If that is meant, decide first:
a new call, or a new field with a default in a reply, keeps the protocol's version; anything else raises
volt_common.wire.VERSION. Then write the file anew and commit it with the reason:

    PYTHONPATH=common python tests/wire/test_golden.py > tests/wire/golden.json
"""

import enum
import inspect
import json
import pathlib
import re
import sys
import types
import typing
from typing import Annotated

import msgspec

from volt_common.describe import DAEMONS, calls, result_and_item
from volt_common.errors import BY_CODE, of_code
from volt_common.wire import VERSION, Kind, Problem, Progress, encode, encode_header, problem_of

GOLDEN = pathlib.Path(__file__).with_name("golden.json")
ID = bytes(range(16))

# Of each pattern in the contracts one text that it takes.
TEXTS = {
    r"\A[0-9a-f]{64}\Z": "0123456789abcdef" * 4,
    r"\A([0-9a-f]{64})?\Z": "",
    r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z": "web-1",
    r"\A([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?\Z": "web",
    r"\A(tree|blob)\Z": "tree",
    r"\A[A-Za-z0-9_][A-Za-z0-9_.+:/-]*\Z": "debian:12",
    r"\A((SIG)?[A-Z0-9]{1,12}([+-][0-9]{1,2})?)?\Z": "SIGRTMIN+3",
    r"\ACAP_[A-Z_]{1,32}\Z": "CAP_NET_RAW",
    r"\A/[^\0]*\Z": "/srv/data",
    r"\A(/[^\0]*)?\Z": "/tmp",
    r"\A[^=\0]+\Z": "LANG",
    r"\A[^\0]*\Z": "täxt",
}


def text(meta):
    for pattern, sample in TEXTS.items():
        if meta.pattern == pattern:
            return sample
    for sample in ("images/debian.12", "www-data:33", "web", *TEXTS.values()):
        if re.search(meta.pattern, sample):
            return sample
    raise AssertionError(f"TEXTS needs a sample for the pattern {meta.pattern}")


def sample(hint):
    """A value of a field's type, never the default where another is possible."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        kind, *metas = arguments
        for meta in metas:
            if meta.pattern is not None:
                return text(meta)
            if meta.ge is not None:
                return max(meta.ge, min(meta.le, 1_000_000))
        return sample(kind)
    if origin in (typing.Union, types.UnionType):
        return sample(arguments[0])
    if origin is list:
        return [sample(arguments[0])]
    if origin is tuple:
        return tuple(sample(argument) for argument in arguments)
    if origin is dict:
        return {sample(arguments[0]): sample(arguments[1])}
    if issubclass(hint, enum.Enum):
        return list(hint)[-1]
    if issubclass(hint, msgspec.Struct):
        fields = msgspec.structs.fields(hint)
        return hint(**{field.name: sample(field.type) for field in fields})
    return {str: "text", bytes: b"b\xffyte", int: 1_000_000, float: 1.5, bool: True}[hint]


def structs():
    """Every struct that travels, by the name that golden.json gives it."""
    for daemon, contract in DAEMONS.items():
        for call in calls(contract):
            yield f"{daemon} {call.__struct_config__.tag}", call
            for part in result_and_item(call):
                if part is not None:
                    yield f"{daemon} {part.__name__}", part
        for name, value in vars(contract).items():
            here = inspect.isclass(value) and value.__module__ == contract.__name__
            if here and issubclass(value, msgspec.Struct) and value.__struct_config__.tag is None:
                yield f"{daemon} {name}", value
    yield "Progress", Progress


def errors():
    for code, kind in BY_CODE.items():
        fields = dict.fromkeys(re.findall(r"{(\w+)}", inspect.cleandoc(kind.__doc__)), "some")
        message = fields.pop("message", "")
        yield f"error {code}", kind(message, hint="do this", **fields)


def encoded():
    found = {f"header {kind.name}": encode_header(kind, ID, 5000) for kind in Kind}
    found |= {name: encode(sample(struct)) for name, struct in structs()}
    found |= {name: encode(problem_of(error)) for name, error in errors()}
    return {"version": VERSION, "messages": {name: found[name].hex() for name in sorted(found)}}


def test_the_wire_is_as_it_was():
    wanted, now = json.loads(GOLDEN.read_text()), encoded()
    changed = sorted(
        name
        for name in wanted["messages"].keys() | now["messages"].keys()
        if wanted["messages"].get(name) != now["messages"].get(name)
    )
    assert (changed, now["version"]) == ([], wanted["version"]), f"{changed} changed on the wire.{__doc__}"


def test_every_sample_is_taken_back():
    for name, struct in structs():
        value = sample(struct)
        assert msgspec.msgpack.decode(encode(value), type=struct) == value, name


def test_every_error_arrives_as_itself():
    for _, error in errors():
        problem = msgspec.msgpack.decode(encode(problem_of(error)), type=Problem)
        again = of_code(problem.code, problem.hint, problem.fields)
        assert (type(again), str(again)) == (type(error), str(error))


def test_another_msgpack_reads_the_same():
    msgpack = __import__("msgpack")
    for name, struct in structs():
        plain = msgpack.unpackb(encode(sample(struct)))
        names = [field.encode_name for field in msgspec.structs.fields(struct)]
        if struct.__struct_config__.array_like:
            assert len(plain) == len(names), name
        else:
            tag = struct.__struct_config__.tag
            assert plain.get("op") == tag, name
            assert set(plain) - {"op"} == set(names), name


if __name__ == "__main__":
    json.dump(encoded(), sys.stdout, indent=1)
    print()
