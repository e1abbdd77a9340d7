"""Every error a person or a peer can meet: one tree, each with its wire code and exit status.

    VoltError                1   general
    ├── Usage                2   the command line is wrong
    ├── NotFound             3
    ├── AlreadyExists        4
    ├── Denied               5
    ├── Unreachable          6   no daemon answers
    ├── TimedOut             7
    ├── NetworkFailed        8
    ├── Conflict             9   the state forbids it
    │   ├── Changed          9   it changed while it was read
    │   └── Unknown          9   a mutation was cut off and its outcome is not known
    ├── MissingDependency   10
    ├── Exhausted           11   disk, memory, connections, ids
    ├── Invalid             12   a configuration, a name, a file that cannot be used
    │   ├── Malformed       12   bytes that are no message of this protocol
    │   └── Corrupt         12   stored bytes that do not match their name
    ├── Interrupted         13
    └── Internal             1   a fault of ours

The docstring is the message's template; its fields travel on the wire beside the code, so that the
client raises the same class with the same fields.
"""

from __future__ import annotations

from typing import ClassVar


class VoltError(Exception):
    """{message}"""

    code: ClassVar[str] = "GENERAL"
    exit: ClassVar[int] = 1

    def __init__(self, message: str = "", *, hint: str = "", **fields: str | int) -> None:
        self.fields: dict[str, str | int] = dict(fields)
        if message:
            self.fields["message"] = message
        self.hint = hint
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """One line: what failed, on what, and why."""
        template = " ".join((type(self).__doc__ or "").split())
        if "message" in self.fields and "{message}" not in template:
            return str(self.fields["message"])
        try:
            return template.format_map(self.fields)
        except (KeyError, IndexError, ValueError):  # a peer of another version sent other fields
            return f"{template} {self.fields}"

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class Usage(VoltError):
    """{message}"""

    code = "USAGE"
    exit = 2


class NotFound(VoltError):
    """no {kind} named {name}"""

    code = "NOT_FOUND"
    exit = 3


class AlreadyExists(VoltError):
    """{kind} {name} exists already"""

    code = "ALREADY_EXISTS"
    exit = 4


class Denied(VoltError):
    """not allowed: {message}"""

    code = "DENIED"
    exit = 5


class Unreachable(VoltError):
    """{daemon} does not answer: {message}"""

    code = "UNREACHABLE"
    exit = 6


class TimedOut(VoltError):
    """{what} took longer than {seconds} s"""

    code = "TIMED_OUT"
    exit = 7


class NetworkFailed(VoltError):
    """{message}"""

    code = "NETWORK"
    exit = 8


class Conflict(VoltError):
    """{kind} {name} is {state}"""

    code = "CONFLICT"
    exit = 9


class Changed(Conflict):
    """{name} changed while it was read"""

    code = "CHANGED"


class Unknown(Conflict):
    """{what} was cut off, and whether it took effect is not known"""

    code = "UNKNOWN_OUTCOME"


class MissingDependency(VoltError):
    """{what} is missing on this host"""

    code = "MISSING_DEPENDENCY"
    exit = 10


class Exhausted(VoltError):
    """not enough {resource}: {message}"""

    code = "EXHAUSTED"
    exit = 11


class Invalid(VoltError):
    """{message}"""

    code = "INVALID"
    exit = 12


class Malformed(Invalid):
    """not a message of this protocol: {message}"""

    code = "MALFORMED"


class Corrupt(Invalid):
    """{what} {name} is damaged: {message}"""

    code = "CORRUPT"


class Interrupted(VoltError):
    """interrupted by {signal}"""

    code = "INTERRUPTED"
    exit = 13


class Internal(VoltError):
    """a fault inside {daemon} (request {id}); its log has the details"""

    code = "INTERNAL"


def _tree(root: type[VoltError]) -> dict[str, type[VoltError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


BY_CODE: dict[str, type[VoltError]] = _tree(VoltError)


def of_code(code: str, hint: str, fields: dict[str, str | int]) -> VoltError:
    """The error a reply names; a code this version does not know becomes the root of the tree."""
    kind = BY_CODE.get(code, VoltError)
    if kind is VoltError and "message" not in fields:
        fields = {"message": f"{code} {fields}"}
    rest = {k: v for k, v in fields.items() if k != "message"}
    return kind(str(fields.get("message", "")), hint=hint, **rest)
