"""What a launcher can fail with: a code of Volt's wire, one line, and what to do about it."""

from __future__ import annotations


class Refusal(Exception):
    """One line for a person. `code` is one of Volt's error codes; `exit` is the container's exit code."""

    def __init__(self, code: str, message: str, exit_code: int = 125) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.exit_code = exit_code


def invalid(message: str) -> Refusal:
    """The request makes no sense."""
    return Refusal("INVALID", message)


def denied(message: str) -> Refusal:
    """The host's policy does not allow it."""
    return Refusal("DENIED", message)
