"""The audit logs of all daemons as rows, in the order of their times."""

from __future__ import annotations

import json
import os

from volt_common.errors import Denied, NotFound
from volt_common.paths import AUDIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.output import Row


def logs(directory: str = AUDIT) -> list[str]:
    """The files, by name. Raises NotFound, Denied."""
    try:
        return [f"{directory}/{name}" for name in sorted(os.listdir(directory)) if name.endswith(".log")]
    except FileNotFoundError:
        raise NotFound(kind="audit log", name=directory, hint="Volt has not been installed on this host.") from None
    except PermissionError:
        raise Denied(f"{directory} can't be read", hint="Only root reads the audit logs.") from None


def records(path: str) -> list[Row]:
    """Its whole lines; a torn one is `verify`'s to report."""
    daemon = os.path.basename(path).removesuffix(".log")
    found: list[Row] = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                line.pop("previous", None)
                found.append({"daemon": daemon, **line})
    return found
