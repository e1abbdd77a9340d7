"""Host directories in a container: opened as the user who asked, and mapped so that container root is that user.

Container root is never host root there: a setuid file that it makes belongs to whoever asked, and the mount honours
neither setuid nor devices.
"""

from __future__ import annotations

import array
import errno
import os
import pwd
import signal
import socket
import stat

from volt_ctr_launch import kernel
from volt_ctr_launch.config import Bind, Config
from volt_ctr_launch.errors import Refusal, denied, invalid
from volt_ctr_launch.ids import user_namespace
from volt_ctr_launch.policy import Policy, check_bind
from volt_ctr_launch.record import Record


class Staged(Record):
    """A bind that is mounted at a path of root's, for nspawn to bind from."""

    path: str
    target: str
    read_only: bool


def stage(config: Config, policy: Policy, base: int, directory: str) -> list[Staged]:
    """Mount every bind below `directory`, in this process's mount namespace. Raises Refusal."""
    if not config.binds:
        return []
    if config.uid == 0 and not policy.root_binds:
        raise denied("a bind asked for by root (binds.root_binds in /etc/volt/policy.toml), ask as another user")
    namespace = _mapping(config.uid, base)
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        return [_stage(bind, config.uid, policy, namespace, f"{directory}/{n}") for n, bind in enumerate(config.binds)]
    finally:
        os.close(namespace)


def _stage(bind: Bind, uid: int, policy: Policy, namespace: int, place: str) -> Staged:
    source = open_as(uid, bind.source)
    try:
        # The path that it turned out to be, after links: that is what the policy must allow.
        check_bind(os.readlink(f"/proc/self/fd/{source}"), policy)
        kind = os.fstat(source).st_mode
        if stat.S_ISDIR(kind):
            os.makedirs(place, 0o700, exist_ok=True)
        elif stat.S_ISREG(kind):
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        else:
            raise invalid(f"{bind.source} is neither a directory nor a file")
        tree = kernel.open_tree(source, "")
    finally:
        os.close(source)
    try:
        kernel.mount_setattr(tree, read_only=bind.read_only, confined=True, idmap=namespace)
        kernel.move_mount(tree, place)
    except OSError as error:
        raise Refusal("DENIED", f"{bind.source}: its file system can't be mapped to you: {error.strerror}") from None
    finally:
        os.close(tree)
    return Staged(place, bind.target, bind.read_only)


def _mapping(uid: int, base: int) -> int:
    """On disk the asker's ids, in the container root's: an idmapped mount maps the first to the last.

    The asker's id shows as container root; every other id of the host is nobody's there, and can't be made."""
    gid = 0 if uid == 0 else _account(uid).pw_gid
    return user_namespace([(uid, base, 1)], [(gid, base, 1)])


def _account(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise denied(f"a bind asked for by uid {uid}, which has no account here") from None


def open_as(uid: int, path: str) -> int:
    """An O_PATH descriptor, opened by a process that is `uid` with its groups, and nothing more."""
    account = _account(uid)
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            _become(uid, account.pw_gid, groups)
            _send_opened(theirs, path)
        finally:
            os._exit(0)
    theirs.close()
    try:
        data, rights, _, _ = ours.recvmsg(64, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    finally:
        ours.close()
        os.waitpid(pid, 0)
    if data == b"ok" and rights:
        found = array.array("i")
        found.frombytes(rights[0][2][:4])
        return found[0]
    reason = os.strerror(int(data)) if data.isdigit() else "it could not be opened"
    raise Refusal("DENIED", f"bind of {path} as uid {uid}: {reason}")


def _become(uid: int, gid: int, groups: list[int]) -> None:
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if uid != 0:
        kernel.capset(0, 0, 0)


def _send_opened(sock: socket.socket, path: str) -> None:
    try:
        found = kernel.openat2(-100, path, os.O_PATH, kernel.RESOLVE_NO_MAGICLINKS)
        # O_PATH asks for no right to the thing itself.
        needed = os.R_OK | (os.X_OK if stat.S_ISDIR(os.fstat(found).st_mode) else 0)
        if not os.access(f"/proc/self/fd/{found}", needed):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        socket.send_fds(sock, [b"ok"], [found])
    except OSError as error:
        sock.send(b"%d" % (error.errno or 5))
