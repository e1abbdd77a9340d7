"""Inside a vm machine: runs what `lab run` asks for over virtio-serial ports. Python's standard library only.

Each port carries one session at a time: the host connects, sends a request, and once that is accepted standard
input; the agent answers with output and, last, how the command ended. When the host goes away the command is
killed. Frames both ways are a type byte, a length (4 bytes, big-endian) and that many bytes; `vm.py` is the other
end. A port forgets what is unread when it is closed, and says nothing of it, so the host asks again until its
request is accepted, and the agent knows a request that it has by its id.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import signal
import struct
import subprocess
import threading
import time

REQUEST, STDIN, ACCEPTED, STDOUT, STDERR, EXIT = range(6)
HEADER = struct.Struct("!BI")
CHUNK = 1 << 18
LARGEST = 1 << 20  # of a frame; more is no frame, but the rest of one that was cut


class Gone(Exception):
    """The host closed its end of the port."""


def read_exactly(port: int, size: int) -> bytes:
    """That many bytes of the port, waiting for them. A port without a host reads as ended, at once."""
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        count = os.readv(port, [rest])
        if not count:
            raise Gone
        rest = rest[count:]
    return bytes(data)


def frame(port: int) -> tuple[int, bytes]:
    """The next frame."""
    kind, size = HEADER.unpack(read_exactly(port, HEADER.size))
    if kind not in (REQUEST, STDIN) or size > LARGEST:
        raise Gone
    return kind, read_exactly(port, size)


class Session:
    """One command and the threads that carry its streams."""

    def __init__(self, port: int, request: dict[str, object]) -> None:
        self.port = port
        self.id = str(request["id"])
        self.over = False
        self.writing = threading.Lock()
        self.child = start(request)
        self.pumps = [
            threading.Thread(target=self.pump, args=(self.child.stdout, STDOUT), daemon=True),
            threading.Thread(target=self.pump, args=(self.child.stderr, STDERR), daemon=True),
        ]
        self.send(ACCEPTED, self.id.encode())  # before anything the command says
        self.threads = [*self.pumps, threading.Thread(target=self.finish, daemon=True)]
        for thread in self.threads:
            thread.start()

    def send(self, kind: int, data: bytes) -> None:
        """One frame to the host, whole; nothing once the session is over, for the port may be another's then."""
        with self.writing:
            if self.over:
                return
            rest = memoryview(HEADER.pack(kind, len(data)) + data)
            while rest:
                rest = rest[os.write(self.port, rest) :]

    def pump(self, stream: object, kind: int) -> None:
        """Output to the host, until its end."""
        while data := os.read(stream.fileno(), CHUNK):  # type: ignore[attr-defined]
            self.send(kind, data)

    def finish(self) -> None:
        """Tell how the command ended, after all it said."""
        code = self.child.wait()
        for thread in self.pumps:
            thread.join()
        for stream in (self.child.stdin, self.child.stdout, self.child.stderr):
            assert stream is not None
            try:
                stream.close()
            except OSError:
                pass  # what was not written, nobody reads
        self.send(EXIT, json.dumps(code).encode())

    def stdin(self, data: bytes) -> None:
        """Input from the host; none means its end."""
        assert self.child.stdin is not None
        try:
            if data:
                self.child.stdin.write(data)
                self.child.stdin.flush()
            else:
                self.child.stdin.close()
        except (OSError, ValueError):
            pass  # the command reads no more

    def kill(self) -> None:
        """End the command and what it started in its session."""
        with self.writing:
            self.over = True
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()


def start(request: dict[str, object]) -> subprocess.Popen[bytes]:
    """Start the command of a request: argv, user, env."""
    argv, name, extra = request["argv"], request["user"], request["env"]
    entry = pwd.getpwnam(str(name or "root"))
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {
        "HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell,
        "PATH": system if entry.pw_uid == 0 else "/usr/local/bin:/usr/bin:/bin",
        **dict(str(item).partition("=")[::2] for item in extra),  # type: ignore[attr-defined]
    }  # fmt: skip
    who = (
        {}
        if entry.pw_uid == 0
        else {
            "user": entry.pw_uid,
            "group": entry.pw_gid,
            "extra_groups": os.getgrouplist(entry.pw_name, entry.pw_gid),
        }
    )
    shell = ["sh", "-c", 'exec "$@"', "sh", *argv]  # type: ignore[misc] # 127 for what isn't there, as a shell gives
    child: subprocess.Popen[bytes] = subprocess.Popen(
        shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment, cwd="/", start_new_session=True, umask=0o022, **who,
    )  # type: ignore[call-overload] # fmt: skip
    return child


def serve(path: str) -> None:
    """Sessions on one port, one after another, for ever."""
    while True:
        port = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # closing it drops what a session left unread
        session = None
        try:
            while True:
                kind, data = frame(port)
                if kind == REQUEST:
                    request = json.loads(data)
                    if session is None or session.id != request["id"]:
                        if session:
                            session.kill()
                        session = Session(port, request)
                    else:
                        session.send(ACCEPTED, session.id.encode())
                elif session:
                    session.stdin(data)
        except (Gone, OSError, ValueError, KeyError, struct.error):
            pass
        finally:
            if session:
                session.kill()
            os.close(port)
        # Until a host is there a read ends at once, and nothing tells when one comes.
        time.sleep(0.1)


def main() -> None:
    """One thread per port."""
    threads = [threading.Thread(target=serve, args=(path,)) for path in sorted(glob.glob("/dev/vport*p*"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
