"""What a start needs to know of a container's files: its users, and whether the command and directory exist.

Reads are the container's to forge, so they are bounded, never block, and decide nothing about the host.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable

from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.files import read_up_to
from volt_ctr_launch.record import Record

_MAX_ACCOUNTS = 1 << 20
_MAX_ID = 65535
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Open = Callable[[str, int], int]
"""Opens an absolute path of the container's, with flags; raises OSError."""


class User(Record):
    """Ids as they are inside the container."""

    uid: int
    gid: int
    groups: list[int]
    home: str


def find_user(wanted: str, open_inside: Open) -> User:
    """The account that `user`, `user:group`, numbers or nothing (root) mean. Raises Refusal for an unknown name."""
    name, _, group = wanted.partition(":")
    accounts = _table(open_inside, "/etc/passwd", 7)
    groups = _table(open_inside, "/etc/group", 4)
    entry = next((e for e in accounts if e[0] == name or (name.isdigit() and e[2] == name)), None) if name else None
    if not name:
        entry = next((e for e in accounts if e[2] == "0"), None)
    if name and not name.isdigit() and entry is None:
        raise Refusal("INVALID", f"there is no user {name} in the container", 126)
    uid = _number(entry[2]) if entry else _asked(name or "0")
    gid = _number(entry[3]) if entry else 0
    home = entry[5] if entry and _is_home(entry[5]) else ("/root" if uid == 0 else "/")
    if group:
        gid = _group(group, groups)
        return User(uid, gid, [gid], home)
    member = {_number(e[2]) for e in groups if entry and entry[0] in e[3].split(",")}
    return User(uid, gid, sorted(member | {gid}), home)


def _is_home(path: str) -> bool:
    """What may become a variable, and a line of nspawn's settings: the container wrote it."""
    return path.startswith("/") and path.isprintable() and len(path) < 4096


def _group(wanted: str, groups: list[list[str]]) -> int:
    for entry in groups:
        if entry[0] == wanted:
            return _number(entry[2])
    if wanted.isdigit():
        return _asked(wanted)
    raise Refusal("INVALID", f"there is no group {wanted} in the container", 126)


def _asked(number: str) -> int:
    """An id past the range would be another container's on the host."""
    if int(number) > _MAX_ID:
        raise Refusal("INVALID", f"a container has the ids 0 to {_MAX_ID}, not {number}", 126)
    return int(number)


def _number(text: str) -> int:
    if not text.isdigit() or int(text) > _MAX_ID:
        raise Refusal("INVALID", "the container's /etc/passwd or /etc/group holds an id that is not 0 to 65535", 126)
    return int(text)


def _table(open_inside: Open, path: str, columns: int) -> list[list[str]]:
    """The rows of passwd(5) or group(5); none where there is no such regular file."""
    try:
        descriptor = open_inside(path, os.O_RDONLY)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return []
        text = read_up_to(descriptor, _MAX_ACCOUNTS).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
    return [row for row in (line.split(":") for line in text.split("\n")) if len(row) == columns]


def find_command(command: str, path: str, workdir: str, open_inside: Open) -> None:
    """Refuses, as a shell does, a command that is not there (127) or can't be executed (126)."""
    if "/" in command:
        places = [posixpath.join(workdir, command)]
    else:
        places = [posixpath.join(workdir, part, command) for part in (path or DEFAULT_PATH).split(":")]
    seen = False
    for place in places:
        mode = _mode(place, open_inside)
        if mode is None or (stat.S_ISDIR(mode) and "/" not in command):
            continue
        if stat.S_ISREG(mode) and mode & 0o111:
            return
        seen = True
    if seen:
        raise Refusal("INVALID", f"{command}: permission denied, it is not a program", 126)
    raise Refusal("INVALID", f"{command}: command not found in the container", 127)


def check_directory(path: str, open_inside: Open) -> None:
    """Refuses a working directory that is none."""
    mode = _mode(path, open_inside)
    if mode is None or not stat.S_ISDIR(mode):
        raise Refusal("INVALID", f"{path}: no such directory in the container", 126)


def _mode(path: str, open_inside: Open) -> int | None:
    try:
        descriptor = open_inside(path, os.O_PATH)
    except OSError:
        return None
    try:
        return os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)


def covered(path: str, targets: list[str]) -> bool:
    """Whether a path lies in a mount that is made later, so that it can't be looked at now. /run, /tmp, /dev, /proc
    and /sys are the container's own at run time."""
    places = [*targets, "/run", "/tmp", "/dev", "/proc", "/sys"]
    return any(path == place or path.startswith(place.rstrip("/") + "/") for place in places)
