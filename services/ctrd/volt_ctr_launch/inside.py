"""The way of an exec's child into a container, and its last word from there.

From `setns` on, every path is the container's and most of its files are hostile: nothing is imported, and what is
read is read with the container's own rights.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import stat
import sys
import termios

from volt_ctr_launch import cgroup, confinement, image, kernel, streams
from volt_ctr_launch.confinement import Confinement
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.record import Record

_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441
_NAMESPACES = (
    kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWCGROUP
)


class Request(Record):
    """A checked exec."""

    args: list[str]
    env: dict[str, str]
    user: str
    workdir: str
    tty: bool


def enter(
    found: Confinement,
    leader: int,
    leaf: str,
    request: Request,
    ours: socket.socket,
    standard: list[int],
) -> None:
    """In the child: go in, confine, execute. Comes back never; what fails is told to the parent."""
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        # The container's processes may neither trace this one nor look at its descriptors.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        cgroup.enter(leaf)
        confinement.limit(found)
        streams.close_others([0, 1, 2, leader, ours.fileno(), *standard])
        _forget_modules()
        kernel.setns(leader, _NAMESPACES)
        # Last: what the others take is no longer there afterwards.
        kernel.setns(leader, kernel.CLONE_NEWUSER)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        user = image.find_user(request.user, _open)
        if request.tty:
            standard = [_terminal(ours, user.uid)] * 3
        # The pipes' inodes are the host's, and beyond every right from in here: the parent gives them away.
        ours.send(b"owner %d %d" % (user.uid, user.gid))
        ours.recv(16)
        _become_standard(standard)
        _change_directory(request.workdir, found.workdir, user.home)
        env = _environment(found, request, user)
        confinement.bound(found)
        confinement.become(found, user.uid, user.gid, user.groups)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        _execute(request.args, env)
    except Refusal as refusal:
        _say(ours, f"{refusal.exit_code} {refusal.code} {refusal.message}")
    except (OSError, ValueError) as error:
        _say(ours, f"126 GENERAL {error}")
    finally:
        os._exit(125)


def _forget_modules() -> None:
    sys.path.clear()
    sys.meta_path.clear()


def _say(sock: socket.socket, text: str) -> None:
    sock.send(text.encode("utf-8", "replace")[:4096])


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | (0 if flags & os.O_PATH else os.O_NONBLOCK) | os.O_NOCTTY | os.O_CLOEXEC)


def _terminal(ours: socket.socket, uid: int) -> int:
    """A pseudo-terminal of the container's own devpts: one of the host's would have no name inside. Its other end
    goes to the parent."""
    main = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = os.fstat(main)
    if not stat.S_ISCHR(kind.st_mode) or kind.st_rdev != os.makedev(5, 2):
        raise Refusal("INVALID", "the container's /dev/pts/ptmx is no terminal multiplexer", 126)
    fcntl.ioctl(main, _TIOCSPTLCK, ctypes.c_int(0))
    slave = fcntl.ioctl(main, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    os.fchown(slave, uid, -1)
    os.fchmod(slave, 0o620)
    socket.send_fds(ours, [b"terminal"], [main])
    os.close(main)
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    return slave


def _become_standard(standard: list[int]) -> None:
    # Out of the way first: one of them may be 0, 1 or 2.
    for target, source in enumerate([fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3) for descriptor in standard]):
        os.dup2(source, target)


def _change_directory(wanted: str, usual: str, home: str) -> None:
    """To what was asked for, or to the payload's own, or home; those two may be missing."""
    if not wanted:
        for path in (usual or home, "/"):
            with contextlib.suppress(OSError):
                os.chdir(path)
                return
    try:
        os.chdir(wanted)
    except OSError as error:
        raise Refusal("INVALID", f"{wanted}: {error.strerror}", 126) from None


def _environment(found: Confinement, request: Request, user: image.User) -> dict[str, str]:
    basic = {"PATH": image.DEFAULT_PATH, "HOME": user.home, "container": "systemd-nspawn"}
    if request.tty:
        basic["TERM"] = "xterm"
    return basic | {k: v for k, v in found.env.items() if k != "HOME" or user.uid == 0} | request.env


def _execute(args: list[str], env: dict[str, str]) -> None:
    """execvp(3), without its imports. Raises Refusal."""
    command = args[0]
    path = env.get("PATH") or image.DEFAULT_PATH
    places = [command] if "/" in command else [f"{part or '.'}/{command}" for part in path.split(":")]
    worst = Refusal("INVALID", f"{command}: command not found in the container", 127)
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):  # Python's own; the rest are as systemd left them
        signal.signal(signum, signal.SIG_DFL)
    for place in places:
        try:
            os.execve(place, args, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            worst = Refusal("INVALID", f"{command}: {error.strerror}", 126)
    raise worst


def await_start(sock: socket.socket, own: list[int], id_base: int) -> int | None:
    """In the parent: returns when the command has begun, with the end of its terminal if it has one. Makes its user
    the owner of the pipes `own`. Raises Refusal with what the child said."""
    terminal: int | None = None
    while True:
        data, rights, _, _ = sock.recvmsg(8192, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        if not data:  # closed by a successful exec
            return terminal
        head, _, rest = data.decode("utf-8", "replace").partition(" ")
        if head == "terminal":
            found = array.array("i")
            found.frombytes(rights[0][2][:4])
            terminal = found[0]
        elif head == "owner":
            uid, gid = map(int, rest.split())
            for descriptor in own:
                os.fchown(descriptor, id_base + uid, id_base + gid)
            sock.send(b"done")
        else:
            name, _, message = rest.partition(" ")
            raise Refusal(name, message, int(head))
