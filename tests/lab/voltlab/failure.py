"""What goes wrong in the lab, as one line for the person who called it."""

from __future__ import annotations


class Failure(Exception):
    """The lab can't do what was asked; the message says why and, where known, what to do."""
