"""/etc/volt/config.yaml: what an administrator sets for all daemons. Unknown keys are refused by name."""

from __future__ import annotations

import difflib
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from volt_common.errors import Invalid, NotFound
from volt_common.paths import CONFIG

MAX_BYTES: Final = 1 << 20


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every key, with the value it has when the file does not name it."""

    idle_seconds: Annotated[float, Meta(ge=0, le=86400)] = 30.0
    """A daemon with nothing to do leaves after this time; 0: never."""


def load(path: str = CONFIG) -> Config:
    """The file's configuration; without a file the defaults. Raises Invalid, naming the file and the key."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise Invalid(f"{path} can't be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise Invalid(f"{path} is larger than {MAX_BYTES} bytes")
    return parse(data, path)


def parse(data: bytes, path: str = CONFIG) -> Config:
    """What `load` does with a file's bytes. Raises Invalid."""
    try:
        found: object = msgspec.yaml.decode(data)  # imports PyYAML here: 15 ms that a host without a file does not pay
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Invalid(f"{path}: {_one_line(error)}", hint="the file is YAML, a `key: value` a line") from None
    if found is None:
        return Config()
    if not isinstance(found, dict):
        raise Invalid(f"{path}: a mapping is wanted", hint="the file is YAML, a `key: value` a line")
    for key in found:
        if key not in Config.__struct_fields__:
            raise Invalid(f"{path}: no setting is called {key!r}", hint=_nearest(str(key)))
    try:
        return msgspec.convert(found, Config)
    except msgspec.ValidationError as error:
        raise Invalid(f"{path}: {error}") from None


def get(config: Config, key: str) -> str:
    """One setting as text. Raises NotFound."""
    if key not in Config.__struct_fields__:
        raise NotFound(kind="setting", name=key, hint=_nearest(key))
    return str(getattr(config, key))


def _nearest(key: str) -> str:
    close = difflib.get_close_matches(key, Config.__struct_fields__, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(Config.__struct_fields__)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
