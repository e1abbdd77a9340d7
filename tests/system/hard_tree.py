"""Makes a directory of what stores lose: `hard_tree.py DIR`. Standard library only; runs as root."""

from __future__ import annotations

import os
import stat
import struct
import sys

MANY = 100_000
SPARSE = 10 << 30
NAMES = [b"\xff\xfe", b"caf\xe9", b"new\nline", b" space ", b"-rf", "snow☃".encode(), b"x" * 255, b"..."]
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
CAP_CHOWN = 0


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL as the kernel keeps it: (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def capability(number: int) -> bytes:
    """A file capability, revision 2, permitted and effective."""
    return struct.pack("<IIIII", 0x02000001, 1 << number, 0, 0, 0)


def write(path: bytes | str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def make(top: str) -> None:
    os.umask(0)
    for name in ("", "many", "names", "modes", "times", "links", "nodes", "acls", "attributes", "sparse", "empty"):
        os.mkdir(f"{top}/{name}", 0o755)
    for number in range(MANY):
        fd = os.open(f"{top}/many/{number:06}", os.O_WRONLY | os.O_CREAT, 0o644)
        if number % 10 == 0:
            os.write(fd, b"%d\n" % number)
        os.close(fd)
    for name in NAMES:
        write(os.fsencode(top) + b"/names/" + name, name)
    deep = f"{top}/names" + "/deeper" * 100
    os.makedirs(deep)
    write(f"{deep}/file", b"deep")
    for mode in (0, 0o4755, 0o2755, 0o1777, 0o7777, 0o600):
        write(f"{top}/modes/{mode:04o}", b"%o" % mode)
        os.chown(f"{top}/modes/{mode:04o}", 1000 + mode, 65534)
        os.chmod(f"{top}/modes/{mode:04o}", mode)
    os.mkdir(f"{top}/modes/sticky")
    os.chmod(f"{top}/modes/sticky", 0o3777)
    for number, when in enumerate(
        (0, 1, 1_700_000_000_123_456_789, 999_999_999, 4_102_444_800_000_000_001, -1_500_000_001)
    ):
        write(f"{top}/times/{number}", b"")
        os.utime(f"{top}/times/{number}", ns=(when, when))
    write(f"{top}/links/a", b"one file, three names")
    os.link(f"{top}/links/a", f"{top}/links/b")
    os.mkdir(f"{top}/links/below")
    os.link(f"{top}/links/a", f"{top}/links/below/c")
    write(f"{top}/links/twin", b"one file, three names")  # the same bytes, another file
    os.symlink("../../outside/../x", f"{top}/links/symlink")
    os.symlink(b"\xff" * 200, os.fsencode(top) + b"/links/odd")
    os.link(f"{top}/links/symlink", f"{top}/links/symlink-2", follow_symlinks=False)
    os.lchown(f"{top}/links/odd", 7, 8)
    os.mkfifo(f"{top}/nodes/fifo", 0o622)
    os.mknod(f"{top}/nodes/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(f"{top}/nodes/large", stat.S_IFCHR | 0o600, os.makedev(511, 0xABCDE))
    os.mknod(f"{top}/nodes/disk", stat.S_IFBLK | 0o660, os.makedev(8, 1))
    write(f"{top}/acls/file", b"")
    access = acl(
        (USER_OBJ, 6, 0xFFFFFFFF),
        (USER, 4, 1234),
        (GROUP_OBJ, 4, 0xFFFFFFFF),
        (MASK, 4, 0xFFFFFFFF),
        (OTHER, 0, 0xFFFFFFFF),
    )
    os.setxattr(f"{top}/acls/file", "system.posix_acl_access", access)
    os.mkdir(f"{top}/acls/directory")
    os.setxattr(f"{top}/acls/directory", "system.posix_acl_default", access)
    write(f"{top}/attributes/file", b"some bytes")
    os.setxattr(f"{top}/attributes/file", "user.text", b"value")
    os.setxattr(f"{top}/attributes/file", "user.empty", b"")
    os.setxattr(f"{top}/attributes/file", "user.long", bytes(range(256)) * 8)
    os.setxattr(f"{top}/attributes/file", "trusted.mine", b"\0\xff")
    os.setxattr(f"{top}/attributes", "user.of-a-directory", b"1")
    write(f"{top}/attributes/capable", b"#!")
    os.setxattr(f"{top}/attributes/capable", "security.capability", capability(CAP_CHOWN))
    with open(f"{top}/sparse/10-gib", "wb") as file:
        for at in (0, 5 << 30, SPARSE - 9):
            file.seek(at)
            file.write(b"data here")
    with open(f"{top}/sparse/only-a-hole", "wb") as file:
        file.truncate(3 << 30)
    write(f"{top}/empty/file", b"")
    for size in (1, 4095, 4096, 4097, 131072, 131073):
        write(f"{top}/sizes-{size}", os.urandom(16) * (size // 16 + 1))
        os.truncate(f"{top}/sizes-{size}", size)


if __name__ == "__main__":
    make(sys.argv[1])
