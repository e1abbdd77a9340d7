"""Logging to the journal with fields, and to stderr where there is none. Uses the journal's native protocol
(systemd.io/JOURNAL_NATIVE_PROTOCOL)."""

from __future__ import annotations

import logging
import os
import socket

_PRIORITY = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
SOCKET = "/run/systemd/journal/socket"


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


class JournalHandler(logging.Handler):
    """Fields come with the record as `extra={"volt": {"VOLT_REQUEST": "…"}}`."""

    def __init__(self, identifier: str, path: str = SOCKET) -> None:
        super().__init__()
        self._identifier = identifier
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._socket.connect(path)

    def emit(self, record: logging.LogRecord) -> None:
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(_PRIORITY.get(record.levelno, 6)),
            "SYSLOG_IDENTIFIER": self._identifier,
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            **getattr(record, "volt", {}),
        }
        try:
            self._socket.send(b"".join(_field(name, value) for name, value in fields.items()))
        except OSError:
            self.handleError(record)


def set_up(identifier: str, level: int = logging.INFO) -> logging.Logger:
    """The daemon's logger: the journal if systemd started us, else stderr."""
    log = logging.getLogger("volt")
    log.setLevel(level)
    log.propagate = False
    handler: logging.Handler
    if "JOURNAL_STREAM" in os.environ and os.path.exists(SOCKET):
        handler = JournalHandler(identifier)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(f"{identifier}: %(message)s"))
    log.handlers[:] = [handler]
    return log
