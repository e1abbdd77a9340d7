"""What is not named to Landlock can't be reached, by any way that its ABI knows."""

import ctypes
import errno
import os
import socket
import subprocess
import sys
import threading

import pytest

from volt_common import landlock
from volt_common.errors import NotFound, VoltError

ABI = landlock.abi()
needs = lambda version: pytest.mark.skipif(version > ABI, reason=f"Landlock ABI {version}, this kernel has {ABI}")  # noqa: E731
pytestmark = needs(1)

libc = ctypes.CDLL(None, use_errno=True)


def confined(action, *args, **kwargs):
    """The errno that `action` ends with in a confined child; 0 if it can do it."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            landlock.restrict(*args, **kwargs)
            try:
                action()
                status = 0
            except OSError as error:
                status = error.errno
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def box(tmp_path):
    """in/ is granted, out/ is not; both hold a file and a directory."""
    for side in ("in", "out"):
        (tmp_path / side / "sub").mkdir(parents=True)
        (tmp_path / side / "file").write_text("text")
    return tmp_path


def test_what_is_named_for_reading_can_be_read_and_listed(box):
    def read():
        assert (box / "in/file").read_text() == "text"
        assert sorted(os.listdir(box / "in")) == ["file", "sub"]

    assert confined(read, [str(box / "in")]) == 0


@pytest.mark.parametrize("path", ["out/file", "out", "/etc/passwd", "/proc/self/environ"])
def test_nothing_else_can_be_read(box, path):
    assert confined(lambda: os.open(box / path, os.O_RDONLY), [str(box / "in")]) == errno.EACCES


def test_reading_does_not_allow_to_write(box):
    assert confined(lambda: os.open(box / "in/file", os.O_WRONLY), [str(box / "in")]) == errno.EACCES


def test_a_symlink_and_dot_dot_do_not_lead_out(box):
    (box / "in/link").symlink_to(box / "out/file")
    assert confined(lambda: os.open(box / "in/link", os.O_RDONLY), [str(box / "in")]) == errno.EACCES
    assert confined(lambda: os.open(box / "in/../out/file", os.O_RDONLY), [str(box / "in")]) == errno.EACCES


def test_what_is_named_for_writing_can_be_changed_in_every_way(box):
    inside = box / "in"

    def change():
        (inside / "new").write_text("x")
        os.truncate(inside / "new", 0)
        os.mkdir(inside / "dir")
        os.symlink("x", inside / "dir/symlink")
        os.mkfifo(inside / "dir/fifo")
        os.link(inside / "new", inside / "dir/new")
        os.rename(inside / "new", inside / "sub/new")
        socket.socket(socket.AF_UNIX).bind(os.path.relpath(inside / "dir/socket"))
        for name in ("symlink", "fifo", "new", "socket"):
            os.unlink(inside / "dir" / name)
        os.rmdir(inside / "dir")
        assert (inside / "file").read_text() == "text"

    os.chdir(box)
    wanted = 0 if ABI >= 2 else errno.EXDEV
    assert confined(change, write=[str(inside)]) == wanted


@pytest.mark.parametrize(
    "change",
    [
        lambda out: os.open(out / "file", os.O_WRONLY),
        lambda out: os.open(out / "file", os.O_RDONLY | os.O_TRUNC),
        lambda out: os.open(out / "new", os.O_CREAT | os.O_WRONLY),
        lambda out: os.open(out, os.O_TMPFILE | os.O_WRONLY),
        lambda out: os.mkdir(out / "new"),
        lambda out: os.rmdir(out / "sub"),
        lambda out: os.unlink(out / "file"),
        lambda out: os.symlink("x", out / "new"),
        lambda out: os.mkfifo(out / "new"),
        lambda out: os.mknod(out / "new", 0o600 | 0o020000, os.makedev(1, 3)),
        lambda out: os.rename(out / "file", out / "sub/file"),
    ],
)
def test_nothing_can_be_changed_outside(box, change):
    assert confined(lambda: change(box / "out"), [str(box / "out")], write=[str(box / "in")]) in (
        errno.EACCES,
        errno.EXDEV,
    )


@needs(3)
def test_nothing_can_be_truncated_outside(box):
    assert confined(lambda: os.truncate(box / "out/file", 0), [str(box / "out")]) == errno.EACCES


def test_no_file_moves_in_or_out(box):
    allowed = {"read": [str(box / "out")], "write": [str(box / "in")]}
    refused = (errno.EACCES, errno.EXDEV)
    assert confined(lambda: os.rename(box / "in/file", box / "out/moved"), **allowed) in refused
    assert confined(lambda: os.rename(box / "out/file", box / "in/moved"), **allowed) in refused
    assert confined(lambda: os.link(box / "out/file", box / "in/linked"), **allowed) in refused


def test_no_device_is_made_even_where_writing_is_allowed(box):
    make = lambda: os.mknod(box / "in/null", 0o600 | 0o020000, os.makedev(1, 3))  # noqa: E731
    assert confined(make, write=[str(box / "in")]) == errno.EACCES


def test_only_what_is_named_for_it_can_be_executed(box):
    run = lambda: os.execv("/usr/bin/true", ["true"])  # noqa: E731
    assert confined(run, ["/"]) == errno.EACCES
    assert confined(run, write=["/"]) == errno.EACCES
    assert confined(run, execute=["/usr", "/lib", "/lib64"], optional=["/lib", "/lib64"]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could mount anyway")
def test_nothing_can_be_mounted(box):
    def mount():
        if libc.mount(b"none", os.fsencode(box / "in"), b"tmpfs", 0, None) != 0:
            raise OSError(ctypes.get_errno(), "mount")

    assert confined(mount, write=["/"]) == errno.EPERM


def test_children_are_confined_too(box):
    def child():
        pid = os.fork()
        if pid == 0:
            try:
                os.open("/etc/passwd", os.O_RDONLY)
            except OSError as error:
                os._exit(error.errno)
            os._exit(0)
        raise OSError(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "child")

    assert confined(child) == errno.EACCES


@pytest.fixture
def listening():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@needs(4)
def test_no_tcp_without_a_port(listening):
    assert confined(lambda: socket.socket().connect(("127.0.0.1", listening))) == errno.EACCES
    assert confined(lambda: socket.socket().bind(("127.0.0.1", 0))) == errno.EACCES


@needs(4)
def test_only_the_ports_that_were_given(listening):
    connect = lambda: socket.socket().connect(("127.0.0.1", listening))  # noqa: E731
    assert confined(connect, connect_tcp=[listening]) == 0
    assert confined(connect, connect_tcp=[listening ^ 1]) == errno.EACCES
    assert confined(connect, bind_tcp=[listening]) == errno.EACCES
    assert confined(lambda: socket.socket().bind(("127.0.0.1", 0)), bind_tcp=[0]) == 0


@needs(6)
def test_no_signal_and_no_abstract_socket_to_the_outside():
    assert confined(lambda: os.kill(os.getppid(), 0)) == errno.EPERM
    name = f"\0volt-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        assert confined(lambda: socket.socket(socket.AF_UNIX).connect(name)) == errno.EPERM
    assert confined(lambda: os.kill(os.getpid(), 0)) == 0


def test_a_socket_by_path_stays_reachable(box):
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(box)
        server.bind("out/socket")
        server.listen()
        assert confined(lambda: socket.socket(socket.AF_UNIX).connect("out/socket")) == 0


def test_open_descriptors_stay_usable(box):
    fd = os.open(box / "out/file", os.O_RDONLY)
    assert confined(lambda: os.read(fd, 4)) == 0
    os.close(fd)


def test_an_absent_path_is_named_and_nothing_is_confined(box):
    def restrict():
        with pytest.raises(NotFound, match="/nowhere"):
            landlock.restrict(["/nowhere"])
        open("/etc/passwd").close()

    assert confined(restrict, ["/"]) == 0


def test_an_absent_path_may_be_optional(box):
    assert confined(lambda: None, ["/nowhere"], write=[str(box)], optional=["/nowhere"]) == 0


def test_a_single_file_can_be_named(box):
    assert confined(lambda: (box / "in/file").write_text("x"), write=[str(box / "in/file")]) == 0
    assert confined(lambda: os.unlink(box / "in/file"), write=[str(box / "in/file")]) == errno.EACCES


def test_it_refuses_to_come_after_a_thread():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(VoltError, match="too late"):
            landlock.restrict(["/"])
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("version", range(1, 8))
def test_an_older_kernel_enforces_what_it_can_and_says_what_is_missing(box, version):
    if version > ABI:
        pytest.skip(f"this kernel has ABI {ABI}")
    wanted = {
        1: ("truncate", "tcp", "device ioctls", "abstract sockets and signals"),
        2: ("truncate", "tcp", "device ioctls", "abstract sockets and signals"),
        3: ("tcp", "device ioctls", "abstract sockets and signals"),
        4: ("device ioctls", "abstract sockets and signals"),
        5: ("abstract sockets and signals",),
    }.get(version, ())
    assert landlock.enforceable(version) == (version, wanted)
    assert confined(lambda: os.open("/etc/passwd", os.O_RDONLY), write=[str(box)], at_most=version) == errno.EACCES


def test_a_kernel_without_landlock_enforces_nothing_and_says_so():
    enforced = landlock.restrict([], at_most=0)
    assert enforced.abi == 0
    assert "files" in enforced.missing
    assert str(enforced) == "Landlock is not there"
    open("/etc/passwd").close()


def test_a_newer_kernel_than_we_know_enforces_what_we_know():
    assert landlock.enforceable(99) == (landlock.NEWEST, ())


def test_restricting_imports_nothing():
    code = """
import sys
from volt_common import landlock
before = set(sys.modules)
landlock.restrict(["/usr"])
try:
    landlock.restrict(["/nowhere"])
except landlock.NotFound as error:
    text = str(error)
sys.exit(len(set(sys.modules) - before))
"""
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_privileges_can_not_be_gained_afterwards():
    def look():
        with open("/proc/self/status") as file:
            raise OSError(0 if "NoNewPrivs:\t1" in file.read() else 1, "")

    assert confined(look, ["/proc"]) == 0
