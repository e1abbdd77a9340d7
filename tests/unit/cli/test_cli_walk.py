"""A directory as casd takes it: everything lstat and the extended attributes say, and one descriptor per inode."""

import os
import socket
import stat

import pytest

from volt.build import batches
from volt.walk import Walk
from volt_common.errors import Changed, Invalid
from volt_common.wire import MAX_DESCRIPTORS, MAX_PACKET, encode


@pytest.fixture
def place(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def walked(path):
    found = {}
    for node, fd, size in Walk(str(path)):
        data = None
        if fd >= 0:
            with open(fd, "rb") as file:
                data = file.read()
            assert len(data) == size
        assert node.path not in found
        found[node.path] = (node, data)
    return found


def test_parents_come_before_children_in_the_order_of_bytes(place):
    for name in ("b", "a", "a-b", "c/d/e", "c/f"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    assert list(walked(place)) == [b"", b"a", b"a-b", b"b", b"c", b"c/d", b"c/d/e", b"c/f"]


def test_files_come_with_their_bytes_and_metadata(place):
    (place / "f").write_bytes(b"hello")
    os.chmod(place / "f", 0o4751)
    os.utime(place / "f", ns=(5, 1_234_567_891_000_000_007))
    node, data = walked(place)[b"f"]
    assert data == b"hello"
    assert node.fd
    assert stat.S_IMODE(node.mode) == 0o4751
    assert stat.S_ISREG(node.mode)
    assert node.mtime_ns == 1_234_567_891_000_000_007
    assert (node.uid, node.gid) == (os.getuid(), os.getgid())


def test_empty_files_have_a_descriptor_too(place):
    (place / "empty").touch()
    node, data = walked(place)[b"empty"]
    assert node.fd
    assert data == b""


def test_reading_leaves_the_access_time(place):
    (place / "f").write_text("x")
    os.utime(place / "f", ns=(1_000, 2_000))
    walked(place)
    assert os.stat(place / "f").st_atime_ns == 1_000


def test_names_of_one_inode_are_a_group_and_only_the_first_has_a_descriptor(place):
    (place / "a").write_text("same")
    os.link(place / "a", place / "z")
    (place / "b").write_text("other")
    os.link(place / "b", place / "y")
    (place / "lone").write_text("lone")
    found = walked(place)
    assert found[b"a"][0].link == found[b"z"][0].link != 0
    assert found[b"b"][0].link == found[b"y"][0].link not in (0, found[b"a"][0].link)
    assert found[b"lone"][0].link == 0
    assert [found[name][0].fd for name in (b"a", b"b", b"y", b"z")] == [True, True, False, False]


def test_links_between_symlinks_are_a_group(place):
    os.symlink("x", place / "a")
    os.link(place / "a", place / "b", follow_symlinks=False)
    found = walked(place)
    assert found[b"a"][0].link == found[b"b"][0].link != 0


def test_symlinks_are_not_followed(place):
    os.symlink("/etc/passwd", place / "link")
    os.symlink(b"\xff/nowhere", place / "odd")
    os.symlink("/etc", place / "dir")
    found = walked(place)
    assert set(found) == {b"", b"dir", b"link", b"odd"}
    assert found[b"link"][0].target == b"/etc/passwd"
    assert found[b"odd"][0].target == b"\xff/nowhere"


def test_names_that_are_not_utf_8(place):
    name = b"\xff\xfe\x01 odd"
    os.mkdir(os.fsencode(place) + b"/" + name)
    with open(os.fsencode(place) + b"/" + name + b"/\x80", "wb") as file:
        file.write(b"x")
    assert walked(place)[name + b"/\x80"][1] == b"x"


def test_extended_attributes_of_files_directories_and_links(place):
    (place / "f").write_text("x")
    (place / "d").mkdir()
    os.symlink("f", place / "l")
    try:
        os.setxattr(place / "f", "user.b", b"\0\xff")
        os.setxattr(place / "f", "user.a", b"")
        os.setxattr(place / "d", "user.d", b"1")
        os.setxattr(place / "l", "trusted.l", b"2", follow_symlinks=False)
    except OSError:
        pytest.skip("this file system has no extended attributes, or this user no right to all of them")
    found = walked(place)
    assert found[b"f"][0].xattrs == [(b"user.a", b""), (b"user.b", b"\0\xff")]
    assert found[b"d"][0].xattrs == [(b"user.d", b"1")]
    assert found[b"l"][0].xattrs == [(b"trusted.l", b"2")]


def test_devices_and_pipes_are_metadata_only(place):
    os.mkfifo(place / "pipe")
    if os.geteuid() == 0:
        os.mknod(place / "dev", stat.S_IFCHR | 0o620, os.makedev(5, 300))
        node = walked(place)[b"dev"][0]
        assert (node.major, node.minor, node.fd) == (5, 300, False)
    assert stat.S_ISFIFO(walked(place)[b"pipe"][0].mode)


def test_sockets_are_left_out_and_named(place):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place / "s"))
        walk = Walk(str(place))
        assert [node.path for node, _, _ in walk] == [b""]
        assert walk.skipped == [b"s"]


def test_a_directory_deeper_than_the_descriptors_of_old(place):
    fd = os.open(place, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    found = walked(place)
    assert len(found) == 601
    assert max(map(len, found)) == 1199


def test_a_path_too_long_for_anybody_is_refused(place):
    fd = os.open(place, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=fd)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with pytest.raises(Invalid, match="4095"):
        walked(place)


def test_what_goes_away_meanwhile_is_changed(place):
    for name in ("a", "b"):
        (place / name).write_text(name)
    walk = iter(Walk(str(place)))
    assert next(walk).node.path == b""
    os.close(next(walk).fd)
    os.unlink(place / "b")
    with pytest.raises(Changed, match="b changed"):
        next(walk)


def test_a_directory_swapped_for_a_link_is_not_entered(place, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("x")
    (place / "a").write_text("a")
    (place / "b").mkdir()
    seen = []
    for node, fd, _ in Walk(str(place)):
        seen.append(node.path)
        if fd >= 0:
            os.close(fd)
        if node.path == b"a":
            os.rmdir(place / "b")
            os.symlink(tmp_path / "outside", place / "b")
    assert seen == [b"", b"a", b"b"]


def test_a_missing_directory(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(Walk(str(tmp_path / "none")))
    (tmp_path / "f").touch()
    with pytest.raises(NotADirectoryError):
        list(Walk(str(tmp_path / "f")))


def test_no_descriptor_is_left_open(place):
    for number in range(10):
        (place / f"{number}").touch()
    before = len(os.listdir("/proc/self/fd"))
    walk = iter(Walk(str(place)))
    for _ in range(5):
        fd = next(walk).fd
        if fd >= 0:
            os.close(fd)
    walk.close()
    for _, fds, _ in batches(Walk(str(place))):
        for fd in fds:
            os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before


def test_batches_hold_what_a_packet_may(place):
    for number in range(600):
        (place / f"{number:04}{'x' * 200}").touch()
    seen, last = 0, []
    for nodes, fds, end in batches(Walk(str(place))):
        assert len(fds) == sum(node.fd for node in nodes)
        assert len(fds) <= MAX_DESCRIPTORS
        assert sum(len(encode(node)) for node in nodes) < MAX_PACKET - 200
        for fd in fds:
            os.close(fd)
        seen += len(nodes)
        last.append(end)
    assert seen == 601
    assert last == [False] * (len(last) - 1) + [True]


def test_many_long_names_without_descriptors_fill_packets_too(place):
    for number in range(800):
        os.symlink("t" * 250, place / f"{number:04}{'x' * 200}")
    sizes = [sum(len(encode(node)) for node in nodes) for nodes, _, _ in batches(Walk(str(place)))]
    assert len(sizes) > 1
    assert max(sizes) < MAX_PACKET - 200


def test_an_empty_directory_is_one_last_batch(place):
    assert [(len(nodes), fds, last) for nodes, fds, last in batches(Walk(str(place)))] == [(1, [], True)]
