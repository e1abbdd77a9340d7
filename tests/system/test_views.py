"""What goes into the store comes out of a view as it was: every path, in both forms, mounted for real."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FORMS = ("redirect", "full")
STORE = "/var/lib/volt/cas"
WORK = "/var/lib/views"

MAKE_VIEW = """
import json, sys
from volt_common.api import cas
from volt_common.client.blocking import Client
with Client("casd") as casd:
    view = casd.call(cas.View(tree=sys.argv[1], form=cas.Form(sys.argv[2])))
print(json.dumps({"size": view.size, "sha256": view.sha256}))
"""


class Stored:
    """A directory that was imported, and its views, mounted."""

    def __init__(self, machine, source: str, tree: str) -> None:
        self.machine = machine
        self.source = source
        self.tree = tree
        self.at = {}
        self.differences = {}

    def image(self, form: str) -> str:
        return f"{STORE}/views/{self.tree}.{form}"

    def mount(self, form: str) -> None:
        machine = self.machine
        assert machine.python(MAKE_VIEW, self.tree, form, timeout=120).returncode == 0
        self.at[form] = f"{WORK}/{self.tree[:12]}.{form}"
        machine.sh(f"python3 {WORK}/mount_view.py {form} {self.image(form)} {STORE}/objects {self.at[form]}")

    def compare(self, form: str) -> None:
        done = self.machine.sh(f"python3 {WORK}/compare_trees.py {self.source} {self.at[form]}", timeout=300)
        self.differences[form] = done.splitlines()

    def unmount(self) -> None:
        for at in self.at.values():
            self.machine.run("umount", at)
            self.machine.run("umount", f"{at}.meta")


def imported(machine, name: str, what: str) -> str:
    """The tree's digest."""
    done = machine.volt("-o", "json", "image", "import", name, what, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["tree"]


def stored(machine, name: str, source: str) -> Stored:
    one = Stored(machine, source, imported(machine, name, source))
    for form in FORMS:
        one.mount(form)
        one.compare(form)
    return one


@pytest.fixture(scope="module")
def place(machine):
    """A directory of the machine with the scripts in it."""
    machine.sh(f"mkdir -p {WORK}")
    for name in ("compare_trees.py", "hard_tree.py", "mount_view.py"):
        machine.push(HERE / name, f"{WORK}/{name}")
    yield machine
    machine.run("rm", "-rf", WORK, timeout=120)


@pytest.fixture(scope="module")
def debian(place):
    """The suite's root, unpacked by tar, and imported from that directory."""
    place.sh(
        f"mkdir {WORK}/debian; tar -C {WORK}/debian --xattrs --xattrs-include='*' --numeric-owner -xpf /root/image.tar"
    )
    one = stored(place, "views:debian", f"{WORK}/debian")
    yield one
    one.unmount()


@pytest.fixture(scope="module")
def hard(place):
    """A directory of what stores lose."""
    place.sh(f"python3 {WORK}/hard_tree.py {WORK}/hard", timeout=120)
    one = stored(place, "views:hard", f"{WORK}/hard")
    yield one
    one.unmount()


@pytest.mark.parametrize("form", FORMS)
def test_a_debian_root_equals_its_source(debian, form):
    *differences, count = debian.differences[form]
    assert differences == []
    assert int(count.split()[0]) > 5000


@pytest.mark.parametrize("form", FORMS)
def test_fsck_finds_nothing_in_either_forms_image(debian, hard, form):
    for one in (debian, hard):
        done = one.machine.run("fsck.erofs", one.image(form), timeout=120)
        assert (done.returncode, "rror" in done.stdout + done.stderr) == (0, False), done.stdout + done.stderr


PROMISES = {
    "a hundred thousand files in one directory": "/many",
    "a sparse file of 10 GiB": "/sparse",
    "names that are not UTF-8": "/names",
    "modes with setuid, setgid and sticky": "/modes",
    "times to the nanosecond and before 1970": "/times",
    "hard links and symlinks": "/links",
    "device nodes and fifos": "/nodes",
    "POSIX ACLs": "/acls",
    "extended attributes and file capabilities": "/attributes",
    "empty files": "/empty",
    "files around the size of a block": "/sizes",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place_in_tree", PROMISES.values(), ids=PROMISES.keys())
def test_kept(hard, form, place_in_tree):
    *differences, count = hard.differences[form]
    assert [line for line in differences if line.startswith((f"b'{place_in_tree}", f'b"{place_in_tree}'))] == []
    assert int(count.split()[0]) > 100_000


@pytest.mark.parametrize("form", FORMS)
def test_nothing_else_of_the_hard_tree_differs(hard, form):
    assert hard.differences[form][:-1] == []


def test_the_hard_tree_has_what_it_says(hard):
    """Against a generator that made less, on a file system that keeps less."""
    look = hard.machine.sh
    assert look(f"stat -c '%s %b' {hard.source}/sparse/10-gib").split()[0] == str(10 << 30)
    assert int(look(f"stat -c %b {hard.source}/sparse/10-gib")) < 1000
    assert look(f"ls {hard.source}/many | wc -l").strip() == "100000"
    assert "1234" in look(f"getfacl -n {hard.source}/acls/file 2>/dev/null")
    assert "cap_chown" in look(f"/sbin/getcap {hard.source}/attributes/capable")
    assert look(f"stat -c '%F %t %T' {hard.source}/nodes/large").strip() == "character special file 1ff abcde"


@pytest.mark.parametrize("form", FORMS)
def test_a_views_sparse_file_takes_no_room(hard, form):
    """Neither in the image nor in the store."""
    assert int(hard.machine.sh(f"du -k {hard.image(form)}").split()[0]) < 100 << 10
    assert int(hard.machine.sh(f"du -sk {STORE}").split()[0]) < 2 << 20


def test_a_tar_and_the_directory_it_was_made_of_are_one_tree(debian, hard):
    assert imported(debian.machine, "views:from-tar", "/root/image.tar") == debian.tree
    options = "--format=pax --sparse --xattrs --xattrs-include='*' --acls --numeric-owner"
    hard.machine.sh(f"tar -C {hard.source} {options} -cf {WORK}/hard.tar .", timeout=120)
    try:
        assert imported(hard.machine, "views:hard-tar", f"{WORK}/hard.tar") == hard.tree
    finally:
        hard.machine.sh(f"rm {WORK}/hard.tar")


@pytest.mark.parametrize("form", FORMS)
def test_the_same_tree_gives_the_same_image(debian, form):
    machine = debian.machine
    before = machine.sh(f"sha256sum < {debian.image(form)}")
    machine.sh(f"systemctl stop volt-casd; mv {debian.image(form)} {WORK}/before; rm -f {debian.image(form)}.json")
    assert machine.python(MAKE_VIEW, debian.tree, form).returncode == 0
    assert machine.sh(f"sha256sum < {debian.image(form)}") == before


CAPABLE = """
set -e
cp -a --reflink=auto {source} {source}-capable
cp {source}-capable/bin/cat {source}-capable/usr/local/bin/capable-cat
/sbin/setcap cap_chown+ep {source}-capable/usr/local/bin/capable-cat
"""


def test_a_file_capability_works_in_a_container(debian, clean):
    clean.sh(CAPABLE.format(source=debian.source), timeout=120)
    imported(clean, "views:capable", f"{debian.source}-capable")

    def effective(command: str) -> int:
        done = clean.volt("run", "--rm", "--user", "nobody", "views:capable", command, "/proc/self/status")
        assert done.returncode == 0, done.stderr
        fields = dict(line.split(":", 1) for line in done.stdout.splitlines())
        assert fields["Uid"].split() == ["65534"] * 4
        return int(fields["CapEff"], 16)

    assert effective("/usr/local/bin/capable-cat") == 1  # CAP_CHOWN is bit 0
    assert effective("/bin/cat") == 0


def test_the_containers_own_root_equals_the_image(debian, clean):
    """As its processes see it: by tar, from the inside, with the ids of the inside."""
    clean.volt("run", "-d", "--name", "web", "--network", "none", "views:debian", "sleep", "1000", check=True)
    words = "tar -C / --one-file-system --format=pax --xattrs --xattrs-include=* --acls --numeric-owner -cf - usr"
    clean.sh(f"volt exec web {words} > {WORK}/inside.tar; mkdir -p {WORK}/inside", timeout=120)
    clean.sh(f"tar -C {WORK}/inside --xattrs --xattrs-include='*' --acls --numeric-owner -xpf {WORK}/inside.tar")
    done = clean.sh(f"python3 {WORK}/compare_trees.py {debian.source}/usr {WORK}/inside/usr", timeout=120)
    *differences, count = done.splitlines()
    assert differences == []
    assert int(count.split()[0]) > 4000
    clean.sh(f"rm -rf {WORK}/inside {WORK}/inside.tar")


SEEDED = {
    "mode": lambda at: os.chmod(at / "d/file", 0o640),
    "owner": lambda at: os.chown(at / "d/file", 0, 1),
    "time": lambda at: os.utime(at / "d/file", ns=(0, at.joinpath("d/file").stat().st_mtime_ns + 1)),
    "attributes": lambda at: os.setxattr(at / "d/file", "user.x", b"z"),
    "bytes": lambda at: _keeping_time(at / "d/file", b"othar"),
    "size": lambda at: _keeping_time(at / "d/file", b"other more"),
    "target": lambda at: (os.unlink(at / "d/link"), os.symlink("elsewhere", at / "d/link")),
    "device": lambda at: (os.unlink(at / "d/null"), os.mknod(at / "d/null", 0o020666, os.makedev(1, 5))),
    "type": lambda at: (os.unlink(at / "d/fifo"), os.mkdir(at / "d/fifo")),
    "links": lambda at: (os.unlink(at / "d/two"), shutil.copy2(at / "d/one", at / "d/two")),
    "only in": lambda at: os.unlink(at / "d/one"),
    "far bytes": lambda at: _in_sparse(at / "d/sparse"),
}


def _keeping_time(path: Path, data: bytes) -> None:
    when = path.stat().st_mtime_ns
    path.write_bytes(data)
    os.utime(path, ns=(when, when))


def _in_sparse(path: Path) -> None:
    when = path.stat().st_mtime_ns
    with open(path, "r+b") as file:
        file.seek(3 << 30)
        file.write(b"x")
    os.utime(path, ns=(when, when))


def _compare(a: Path, b: Path) -> list[str]:
    command = [sys.executable, str(HERE / "compare_trees.py"), str(a), str(b)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()


@pytest.mark.parametrize("what", SEEDED)
def test_the_comparison_sees_a_seeded_difference(tmp_path, what):
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "d").mkdir(parents=True)
    (one / "d/file").write_bytes(b"other")
    os.setxattr(one / "d/file", "user.x", b"y")
    os.symlink("somewhere", one / "d/link")
    os.mknod(one / "d/null", 0o020666, os.makedev(1, 3))
    os.mkfifo(one / "d/fifo")
    (one / "d/one").write_bytes(b"linked")
    os.link(one / "d/one", one / "d/two")
    with open(one / "d/sparse", "wb") as file:
        file.truncate(4 << 30)
    subprocess.run(["cp", "-a", "--sparse=always", str(one), str(two)], check=True)
    assert _compare(one, two) == ["9 paths compared"]
    SEEDED[what](two)
    assert any(what.removeprefix("far ") in line for line in _compare(one, two)[:-1])
