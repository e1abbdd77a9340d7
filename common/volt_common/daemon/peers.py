"""Who calls: the kernel's word for it, what that caller may do, and how many connections it may hold."""

from __future__ import annotations

import pwd
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from volt_common.api.base import Access, Call
from volt_common.errors import Denied

DAEMON_USERS = ("volt-cas", "volt-ctr", "volt-vm", "volt-net", "volt-dns", "volt-registry", "volt-ingress")
CONNECTIONS_PER_UID = 256


class Peer(NamedTuple):
    uid: int
    gid: int
    pid: int


def peer_of_address(address: str) -> Peer | None:
    """From libzmq's `Peer-Address`, "name:uid:gid:pid" of SO_PEERCRED; None if it is anything else."""
    try:
        _, uid, gid, pid = address.rsplit(":", 3)
        return Peer(int(uid), int(gid), int(pid))
    except ValueError:
        return None


def peer_of_socket(sock: socket.socket) -> Peer:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("iII", raw)
    return Peer(uid, gid, pid)


class Roles:
    """What each uid may call. A daemon's uid has exactly its row, 0 is ADMIN, anyone else OPERATE."""

    def __init__(self, rows: Mapping[str, tuple[type[Call[object]], ...]]) -> None:
        self._rows: dict[int, tuple[type[Call[object]], ...]] = {}
        for user in DAEMON_USERS:
            try:
                uid = pwd.getpwnam(user).pw_uid
            except KeyError:
                continue
            self._rows[uid] = tuple(rows.get(user, ()))

    def check(self, peer: Peer, call: Call[object]) -> None:
        """Raises Denied."""
        row = self._rows.get(peer.uid)
        if row is not None and peer.uid != 0:
            if not isinstance(call, row):
                raise Denied(f"this daemon has no right to {call.__struct_config__.tag}")
            return
        have = Access.ADMIN if peer.uid == 0 else Access.OPERATE
        if call.access > have:
            raise Denied(f"{call.__struct_config__.tag} needs root", hint="use sudo")


class Connections:
    """Open connections by uid, and how many of them were admitted. One that was refused, or has not said who it
    is, ends within seconds, so a uid's admitted ones are never more than its open ones."""

    def __init__(self, limit: int = CONNECTIONS_PER_UID) -> None:
        self._limit = limit
        self._count: Counter[int] = Counter()
        self._admitted: Counter[int] = Counter()

    @property
    def total(self) -> int:
        return self._count.total()

    def opened(self, uid: int) -> None:
        self._count[uid] += 1

    def admit(self, uid: int) -> bool:
        """False if the uid has its share."""
        if self._admitted[uid] >= self._limit:
            return False
        self._admitted[uid] += 1
        return True

    def closed(self, uid: int) -> None:
        self._count[uid] -= 1
        self._admitted[uid] = min(self._admitted[uid], self._count[uid])
        if self._count[uid] <= 0:
            del self._count[uid]
            del self._admitted[uid]
