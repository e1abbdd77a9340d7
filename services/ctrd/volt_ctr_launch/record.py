"""Immutable records with typed fields. typing.NamedTuple would do, but importing it and making its classes takes a
launcher longer than most of its own work."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self, dataclass_transform
else:

    def dataclass_transform(**_: object) -> object:
        """Only type checkers look at it."""
        return lambda kind: kind


@dataclass_transform(frozen_default=True)
class Record:
    """A subclass lists its fields as annotations, those with defaults last."""

    def __init__(self, *values: object, **named: object) -> None:
        fields = list(type(self).__annotations__)
        given = dict(zip(fields, values, strict=False)) | named
        if len(given) != len(values) + len(named) or not given.keys() <= set(fields):
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(fields)}, each once")
        for field in fields:
            if field not in given and not hasattr(type(self), field):
                raise TypeError(f"{type(self).__name__} needs {field}")
        self.__dict__.update(given)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} does not change")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.asdict() == self.asdict()

    __hash__ = None  # type: ignore[assignment]  # lists are among the fields

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.asdict().items())})"

    def asdict(self) -> dict[str, object]:
        """The fields by name, in their order."""
        return {field: getattr(self, field) for field in type(self).__annotations__}

    def replace(self, **changed: object) -> Self:
        """The same with other values."""
        return type(self)(**(self.asdict() | changed))
