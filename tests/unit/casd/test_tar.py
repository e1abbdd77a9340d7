"""What an archive says is what its tree holds, in every dialect."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from unit.casd.archives import (
    END,
    Kept,
    block,
    by_path,
    directory,
    file,
    hardlink,
    padded,
    pax,
    stream,
    symlink,
    through_pipe,
)

from volt_casd import tree
from volt_casd.decompress import open_stream
from volt_casd.tar import Member, members, read_tree
from volt_casd.tree import Entry

Read = tuple[dict[bytes, Entry], Kept, list[str]]


def read(data: bytes) -> Read:
    kept = Kept()
    entries, skipped = read_tree(stream(data), kept)
    tree.encode(entries)  # every tree that is made is one that can be stored
    return by_path(entries), kept, skipped


def content(found: Read, path: bytes) -> bytes:
    entry = found[0][path]
    return found[1].contents[entry.digest] if entry.digest else b""


def only(data: bytes) -> Member:
    (found,) = [member for member, _ in members(stream(data + END))]
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one of each."""
    root = tmp_path_factory.mktemp("source") / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_bytes(os.urandom(70_000))
    (root / "usr/bin/tool").chmod(0o4755)
    (root / "large").write_bytes(os.urandom(1 << 20) * 5 + b"end")
    (root / "empty").touch()
    os.link(root / "usr/bin/tool", root / "a-second-name")
    (root / "link").symlink_to("usr/bin/tool")
    (root / ("long-" + "x" * 200)).write_text("long name")
    deep = root / "/".join(["d" * 60] * 4)
    deep.mkdir(parents=True)
    (deep / "f").write_text("deep")
    (deep / "to").symlink_to("t" * 200 + "/" + "t" * 99)
    os.mkfifo(root / "fifo")
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    (root / "name\nwith ümlaut").write_text("odd")
    with contextlib.suppress(OSError):  # not root, or root of a container
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.chown(root / "empty", 4_000_000_000, 3_000_000)
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, ns=(0, 1_700_000_000_123_456_789), follow_symlinks=False)
    os.utime(root, ns=(0, 1_600_000_000_000_000_000))
    return root


def walked(root: Path, *, fraction: bool) -> dict[bytes, tuple[object, ...]]:
    """What lstat and read say of every path."""
    found: dict[bytes, tuple[object, ...]] = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        target = os.fsencode(os.readlink(path)) if path.is_symlink() else b""
        name = b"" if path == root else os.fsencode(path.relative_to(root))
        ns = status.st_mtime_ns if fraction else status.st_mtime_ns // 10**9 * 10**9
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        found[name] = (status.st_mode, status.st_uid, status.st_gid, ns, data, target, device)
    return found


def as_walked(found: Read) -> dict[bytes, tuple[object, ...]]:
    return {
        path: (e.mode, e.uid, e.gid, e.mtime_ns, content(found, path), e.target, (e.major, e.minor))
        for path, e in found[0].items()
    }


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_of_pythons_tarfile_gives_the_directory_back(source: Path, tmp_path: Path, form: int) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        archive.add(source, ".")
    found = read((tmp_path / "a.tar").read_bytes())
    # tarfile keeps fractions of a second as a float, which is not exact
    exact = walked(source, fraction=False)
    near = {path: (*said[:3], said[3] // 10**9 * 10**9, *said[4:]) for path, said in as_walked(found).items()}  # type: ignore[operator]
    assert near == exact
    assert not found[2]


@pytest.mark.parametrize("form", ["gnu", "pax", "posix", "oldgnu"])
def test_an_archive_of_gnu_tar_gives_the_directory_back(source: Path, tmp_path: Path, form: str) -> None:
    subprocess.run(
        ["tar", f"--format={form}", "--numeric-owner", "-b1", "-cf", tmp_path / "a.tar", "-C", source, "."], check=True
    )
    found = read((tmp_path / "a.tar").read_bytes())
    assert as_walked(found) == walked(source, fraction=form in ("pax", "posix"))
    assert found[0][b"a-second-name"].link == found[0][b"usr/bin/tool"].link == 1


@pytest.mark.parametrize("form", ["ustar", "v7"])
def test_old_dialects_give_what_they_can_hold(tmp_path: Path, form: str) -> None:
    root = tmp_path / "root"
    (root / "d" / ("e" * 60)).mkdir(parents=True)
    (root / "d" / ("e" * 60) / "f").write_text("text")
    (root / "link").symlink_to("d")
    os.link(root / "d" / ("e" * 60) / "f", root / "z")
    if form == "ustar":
        (root / "d" / ("e" * 60) / ("g" * 90)).write_text("with a prefix")
    subprocess.run(["tar", f"--format={form}", "-cf", tmp_path / "a.tar", "-C", root, "."], check=True)
    assert as_walked(read((tmp_path / "a.tar").read_bytes())) == walked(root, fraction=False)


@pytest.mark.parametrize("version", ["old", "0.0", "0.1", "1.0"])
def test_holes_stay_holes(tmp_path: Path, version: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with (root / "sparse").open("wb") as out:
        for at in range(40):  # more extents than a header holds
            out.seek(at * 300_000)
            out.write(b"%d" % at * 100)
        out.truncate(40_000_000)
    with (root / "hole").open("wb") as out:
        out.truncate(10 << 30)
    form = ["--format=gnu"] if version == "old" else ["--format=pax", f"--sparse-version={version}"]
    subprocess.run(["tar", *form, "-S", "-cf", tmp_path / "a.tar", "-C", root, "./sparse", "./hole"], check=True)
    calls: list[tuple[int, object, int]] = []

    def store(chunks: object, size: int, extents: object) -> bytes:
        data = b"".join(bytes(chunk) for chunk in chunks)  # type: ignore[attr-defined]
        calls.append((size, extents, len(data)))
        if size == 40_000_000:
            whole, used = bytearray(size), 0
            for offset, length in extents:  # type: ignore[attr-defined]
                whole[offset : offset + length] = data[used : used + length]
                used += length
            assert whole == (root / "sparse").read_bytes()
        return bytes(32)

    with (tmp_path / "a.tar").open("rb") as archive:
        entries, _ = read_tree(open_stream(archive.fileno()), store)
    assert {entry.path: entry.size for entry in entries} == {b"": 0, b"sparse": 40_000_000, b"hole": 10 << 30}
    assert calls[0][2] < 1_000_000
    assert calls[1] == (10 << 30, (), 0)


def test_extended_attributes_and_acls_of_gnu_tar_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "f").write_text("x")
    (root / "d").mkdir()
    try:
        os.setxattr(root / "f", "user.empty", b"")
    except OSError as error:
        pytest.skip(f"the file system of the tests keeps no extended attributes: {error}")
    os.setxattr(root / "f", "user.bytes=%", bytes(range(256)))
    with contextlib.suppress(PermissionError):
        os.setxattr(root / "f", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    subprocess.run(["setfacl", "-m", "u:1234:rwx,g:77:r", root / "f"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rx", root / "d"], check=True)
    options = ["--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--format=pax"]
    subprocess.run(["tar", *options, "-cf", tmp_path / "a.tar", "-C", root, "."], check=True)
    entries, _, skipped = read((tmp_path / "a.tar").read_bytes())
    for path in (b"f", b"d"):
        real = os.fsencode(root / os.fsdecode(path))
        expected = tuple(sorted((os.fsencode(name), os.getxattr(real, name)) for name in os.listxattr(real)))
        assert entries[path].xattrs == expected
    assert len(entries[b"f"].xattrs) >= 3
    assert not skipped


def test_an_archive_reads_the_same_through_a_pipe(source: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "--format=pax", "-cf", tmp_path / "a.tar", "-C", source, "."], check=True)
    data = (tmp_path / "a.tar").read_bytes()
    kept = Kept()
    entries, _ = through_pipe(data, lambda fd: read_tree(open_stream(fd), kept))
    assert by_path(entries) == read(data)[0]


def test_libarchives_attributes_are_decoded_and_schilys_win() -> None:
    found = only(
        pax(
            (b"LIBARCHIVE.xattr.user.a%20b", b"AAEC"),
            (b"LIBARCHIVE.xattr.user.c", b"YQ"),
            (b"SCHILY.xattr.user.c", b"b"),
        )
        + block(b"f")
    )
    assert found.xattrs == ((b"user.a b", b"\0\1\2"), (b"user.c", b"b"))


def test_attributes_of_other_systems_and_acls_of_unknown_names_are_noted() -> None:
    entries, _, skipped = read(
        pax(
            (b"SCHILY.xattr.com.apple.quarantine", b"x"),
            (b"SCHILY.acl.access", b"user::rw-,user:bob:rw-,group::r--,mask::rw-,other::r--"),
        )
        + block(b"f")
        + END
    )
    assert entries[b"f"].xattrs == ()
    assert skipped == [
        "f: its ACL: 'bob' has no number",
        "f: its attribute com.apple.quarantine, which is of no namespace of Linux",
    ]


def test_a_global_header_holds_until_a_member_says_otherwise() -> None:
    data = (
        pax((b"uid", b"7"), (b"mtime", b"1.5"), kind=b"g")
        + block(b"a", uid=1)
        + pax((b"uid", b"8"))
        + block(b"b")
        + pax((b"uid", b""))
        + block(b"c", uid=9)
        + END
    )
    entries, _, _ = read(data)
    assert [entries[path].uid for path in (b"a", b"b", b"c")] == [7, 8, 9]
    assert {entries[path].mtime_ns for path in (b"a", b"b", b"c")} == {1_500_000_000}


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (b"0", 0),
        (b"1700000000.123456789", 1_700_000_000_123_456_789),
        (b"1.5", 1_500_000_000),
        (b"1.", 1_000_000_000),
        (b"-1.5", -1_500_000_000),
        (b"0.0000000019", 1),
        (b"-0.0000000019", -2),
    ],
)
def test_times_are_exact_to_the_nanosecond(text: bytes, ns: int) -> None:
    assert only(pax((b"mtime", text)) + block()).mtime_ns == ns


def test_pax_values_win_over_the_header() -> None:
    data = pax((b"path", b"n" * 255), (b"linkpath", b"l" * 4000), (b"gid", b"4294967294")) + symlink(b"short", b"x")
    found = only(data)
    assert (found.path, found.target, found.gid) == (b"n" * 255, b"l" * 4000, 4_294_967_294)
    entries = read(pax((b"size", b"3")) + block(b"f", size=0) + padded(b"abc") + END)
    assert content(entries, b"f") == b"abc"


def test_gnu_long_names_and_targets_reach_the_next_member_only() -> None:
    name, target = b"n/" * 300 + b"n", b"t" * 2000
    data = block(b"././@LongLink", b"L", len(name) + 1) + padded(name + b"\0")
    data += block(b"././@LongLink", b"K", len(target) + 1) + padded(target + b"\0")
    data += symlink(b"cut", b"cut") + file(b"next")
    entries, _, _ = read(data + END)
    assert entries[name].target == target
    assert b"next" in entries


def test_base_256_numbers_are_read() -> None:
    def wide(value: int, width: int) -> bytes:
        field = bytearray(value.to_bytes(width, "big", signed=True))
        field[0] |= 0x80
        return bytes(field)

    found = only(block(uid=wide(4_000_000_000, 8), gid=wide(1, 8), mtime=wide(-5, 12)))
    assert (found.uid, found.gid, found.mtime_ns) == (4_000_000_000, 1, -5_000_000_000)


def test_signed_and_unsigned_checksums_are_both_right() -> None:
    plain = block(b"caf\xe9\xff")
    signed = sum(byte - 256 if byte > 127 else byte for byte in plain[:148] + b" " * 8 + plain[156:])
    assert only(plain).path == only(block(b"caf\xe9\xff", checksum=signed)).path == b"caf\xe9\xff"


def test_v7_members_are_known_by_their_names() -> None:
    magic = bytes(8)
    data = block(b"d/", b"\0", magic=magic, mode=0o755) + block(b"d/f", b"\0", 1, magic=magic) + padded(b"x") + END
    found = read(data)
    assert found[0][b"d"].is_directory
    assert content(found, b"d/f") == b"x"


def test_parents_that_the_archive_lacks_are_made() -> None:
    entries, _, _ = read(file(b"a/b/c", b"x", uid=5, mtime=9) + END)
    for path in (b"", b"a", b"a/b"):
        assert entries[path] == Entry(path, stat.S_IFDIR | 0o755, 0, 0, 0)


def test_the_root_may_be_a_member() -> None:
    entries, _, _ = read(directory(b"./", mode=0o700, uid=3, mtime=5) + file(b"./f") + END)
    assert entries[b""] == Entry(b"", stat.S_IFDIR | 0o700, 3, 0, 5_000_000_000)
    assert sorted(entries) == [b"", b"f"]


def test_of_two_members_of_one_name_the_later_wins() -> None:
    found = read(file(b"f", b"old") + hardlink(b"keeps", b"f") + file(b"f", b"new", mode=0o600) + END)
    assert (content(found, b"f"), found[0][b"f"].link) == (b"new", 0)
    assert (content(found, b"keeps"), found[0][b"keeps"].link) == (b"old", 0)
    found = read(directory(b"d") + file(b"d/f") + directory(b"d", mode=0o700) + END)
    assert found[0][b"d"].mode == stat.S_IFDIR | 0o700
    assert b"d/f" in found[0]
    found = read(symlink(b"d", b"/etc") + directory(b"d") + file(b"d/passwd") + END)
    assert found[0][b"d"].is_directory
    found = read(directory(b"d") + file(b"d") + END)
    assert found[0][b"d"].is_file


def test_hard_links_are_groups_numbered_by_first_path() -> None:
    data = file(b"z", b"zz") + file(b"m", b"m") + hardlink(b"b", b"./z") + hardlink(b"a", b"m") + hardlink(b"c", b"b")
    entries, _, _ = read(data + file(b"lone", b"m") + END)
    assert {path: (e.link, e.size) for path, e in entries.items()} == {
        b"": (0, 0),
        b"a": (1, 1),
        b"b": (2, 2),
        b"c": (2, 2),
        b"lone": (0, 1),
        b"m": (1, 1),
        b"z": (2, 2),
    }


def test_symlinks_devices_and_fifos_are_metadata() -> None:
    data = symlink(b"out", b"/../etc/passwd") + block(b"null", b"3", major=1, minor=3) + block(b"sda", b"4", major=8)
    entries, kept, _ = read(data + block(b"pipe", b"6") + hardlink(b"out2", b"out") + END)
    assert entries[b"out"].target == b"/../etc/passwd"
    assert entries[b"out"].size == 14
    assert entries[b"out2"] == Entry(**{**_fields(entries[b"out"]), "path": b"out2"})  # type: ignore[arg-type]
    assert (entries[b"null"].major, entries[b"null"].minor) == (1, 3)
    assert stat.S_ISBLK(entries[b"sda"].mode)
    assert stat.S_ISFIFO(entries[b"pipe"].mode)
    assert not kept.contents


def _fields(entry: Entry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in entry.__struct_fields__}


def test_what_no_tree_holds_is_noted_and_passed_over() -> None:
    socket = pax((b"SCHILY.filetype", b"socket")) + block(b"run/s")
    entries, _, skipped = read(
        socket + block(b"label", b"V") + block(b"acl", b"A", 3) + padded(b"abc") + file(b"f") + END
    )
    assert sorted(entries) == [b"", b"f"]
    assert skipped == ["run/s: a socket", "acl: a member of type A"]


def test_names_are_bytes() -> None:
    entries, _, _ = read(file(b"\xff\xfe") + file(b"a\nb") + END)
    assert {b"\xff\xfe", b"a\nb"} < set(entries)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"f", b"f"),
        (b"./f", b"f"),
        (b".//f", b"f"),
        (b"././f", b"f"),
        (b"a//b/./c", b"a/b/c"),
        (b".hidden", b".hidden"),
        (b"a/.hidden", b"a/.hidden"),
        (b"a/..b", b"a/..b"),
        (b"a/...", b"a/..."),
        (b"n" * 255 + b"/n", b"n" * 255 + b"/n"),
    ],
)
def test_one_path_has_one_name(raw: bytes, path: bytes) -> None:
    entries, _, _ = read(pax((b"path", raw)) + block(b"f") + END)
    assert max(entries) == path


def test_bodies_come_whole_up_to_a_mebibyte_and_may_be_left_unread() -> None:
    small, large = os.urandom(1 << 20), os.urandom((5 << 20) + 1)
    data = file(b"a", large) + file(b"b", small) + file(b"c", large) + file(b"d", b"end") + END
    seen = {}
    for member, body in members(stream(data)):
        if member.path == b"a":
            continue
        chunks = body.chunks()
        if member.path == b"c":
            assert large.startswith(next(chunks))
            continue
        seen[member.path] = [bytes(chunk) for chunk in chunks]
    assert seen == {b"b": [small], b"d": [b"end"]}


def test_progress_tells_files_and_bytes_and_can_end_the_reading() -> None:
    data = b"".join(file(b"f%d" % at, b"x") for at in range(600)) + END
    told: list[tuple[int, int]] = []
    read_tree(stream(data), Kept(), lambda files, size: told.append((files, size)))
    assert told == [(256, 256), (512, 512)]

    told.clear()
    read_tree(stream(file(b"f", bytes(20 << 20)) + END), Kept(), lambda files, size: told.append((files, size)))
    assert len(told) >= 4
    assert told == sorted(told)
    assert told[-1][1] <= 20 << 20

    def stop(files: int, size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_tree(stream(data), Kept(), stop)


def test_one_block_of_zeros_is_an_end_too() -> None:
    assert sorted(read(file(b"f") + bytes(512))[0]) == [b"", b"f"]
