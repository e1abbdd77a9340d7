"""Sending a walked directory to casd: batches of names with their descriptors, few of them in flight."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from volt.walk import Found
from volt_common.api import cas
from volt_common.client.blocking import PacketClient
from volt_common.errors import Invalid
from volt_common.packets import close_all
from volt_common.wire import MAX_DESCRIPTORS, MAX_PACKET, Kind, encode

IN_FLIGHT = 3
"""Unanswered batches: more descriptors on their way than RLIMIT_NOFILE is refused (ETOOMANYREFS)."""

_ROOM = MAX_PACKET - 256  # for the header and the frame of a batch

OnFiles = Callable[[int, int], None]


def build_directory(
    daemon: PacketClient, found: Iterable[Found], ref: str | None = None, on_taken: OnFiles | None = None
) -> cas.Built:
    """The tree of what a Walk finds. `on_taken(files, bytes)` follows casd. Raises its errors."""
    call = cas.Build(ref=ref)
    id = daemon.begin(call, [])
    waiting = 0

    def answered() -> cas.Built | None:
        kind, value, fds = daemon.next(id, call, item_type=cas.Taken)
        close_all(fds)
        if kind is Kind.DONE:
            built: cas.Built = value
            return built
        if on_taken is not None:
            on_taken(value.files, value.bytes)
        return None

    for nodes, fds, last in batches(found):
        while waiting >= IN_FLIGHT or (waiting and daemon.ready()):
            answered()
            waiting -= 1
        try:
            daemon.more(id, cas.Batch(nodes=nodes, last=last), fds)
        finally:
            close_all(fds)
        waiting += 1
    while True:
        built = answered()
        if built is not None:
            return built


def batches(found: Iterable[Found]) -> Iterable[tuple[list[cas.Node], list[int], bool]]:
    """Nodes, the descriptors that go with them, and whether they are the last; each fits a packet."""
    nodes: list[cas.Node] = []
    fds: list[int] = []
    size = 0
    try:
        for node, fd, _ in found:
            length = len(encode(node))
            if length > _ROOM:
                if fd >= 0:
                    os.close(fd)
                raise Invalid(f"{os.fsdecode(node.path)}: its extended attributes are larger than {_ROOM} bytes")
            if size + length > _ROOM or (fd >= 0 and len(fds) == MAX_DESCRIPTORS):
                full, passed = nodes, fds
                nodes, fds, size = [], [], 0
                if fd >= 0:
                    fds.append(fd)
                nodes.append(node)
                size = length
                yield full, passed, False
                continue
            nodes.append(node)
            size += length
            if fd >= 0:
                fds.append(fd)
        last, fds = fds, []
        yield nodes, last, True
    finally:
        close_all(fds)
