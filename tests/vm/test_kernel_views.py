"""Each kernel gets the form of a view that it can mount, and shows in it what went into the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from system.conftest import IMAGE

SCRIPTS = Path(__file__).parent.parent / "system"
STORE = "/var/lib/volt/cas"
WORK = "/var/lib/views"
KERNELS = {"bookworm": "6.1", "trixie": "6.12"}
FORMS = {"bookworm": ["full"], "trixie": ["redirect", "full"]}  # the first is the one a container gets

MAKE_VIEW = """
import sys
from volt_common.api import cas
from volt_common.client.blocking import Client
with Client("casd") as casd:
    casd.call(cas.View(tree=sys.argv[1], form=cas.Form(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def tree(machine) -> str:
    """The image's digest."""
    return json.loads(machine.volt("image", "inspect", IMAGE, "-o", "json", check=True).stdout)["tree"]


@pytest.fixture(scope="module")
def work(machine):
    """A directory of the machine with the scripts in it."""
    machine.sh(f"mkdir -p {WORK}")
    for name in ("compare_trees.py", "mount_view.py"):
        machine.push(SCRIPTS / name, f"{WORK}/{name}")
    yield machine
    machine.run("rm", "-rf", WORK)


def test_the_kernel_is_the_suites_own(machine):
    assert machine.sh("uname -r").split("-")[0].rsplit(".", 1)[0] == KERNELS[machine.suite]


@pytest.mark.timeout(1800)
def test_a_container_runs_from_the_form_that_the_kernel_can_mount(clean, tree):
    form = FORMS[clean.suite][0]
    done = clean.volt("run", "--rm", IMAGE, "cat", "/etc/debian_version")
    assert (done.returncode, done.stdout) == (0, clean.sh("cat /root/source/etc/debian_version")), done.stderr
    clean.volt("run", "-d", "--name", "web", IMAGE, "sleep", "100000", check=True)
    explained = json.loads(clean.volt("explain", "web", "-o", "json", check=True).stdout)
    assert json.loads(explained["config"])["view"]["form"] == form
    leader = json.loads(clean.volt("inspect", "web", "-o", "json", check=True).stdout)["leader"]
    loops = clean.sh("losetup --noheadings --output BACK-FILE")
    assert (f"{tree}.{form}" in loops) is (form == "full"), "6.1 needs a loop device, 6.12 mounts the file"
    assert "overlay" in clean.sh(f"findmnt --task {leader} --noheadings --output FSTYPE /")


@pytest.mark.timeout(3600)
def test_every_path_of_a_mounted_view_equals_its_source(work, tree):
    for form in FORMS[work.suite]:
        at = f"{WORK}/{form}"
        done = work.python(MAKE_VIEW, tree, form)
        assert done.returncode == 0, done.stderr
        work.sh(f"python3 {WORK}/mount_view.py {form} {STORE}/views/{tree}.{form} {STORE}/objects {at}")
        try:
            *differences, count = work.sh(f"python3 {WORK}/compare_trees.py /root/source {at}").splitlines()
        finally:
            work.sh(f"umount {at}; ! mountpoint -q {at}.meta || umount {at}.meta")
        assert (form, differences) == (form, [])
        assert int(count.split()[0]) > 5000


@pytest.mark.timeout(1800)
def test_fsck_finds_nothing(work, tree):
    for form in FORMS[work.suite]:
        done = work.run("fsck.erofs", f"{STORE}/views/{tree}.{form}")
        assert (done.returncode, "rror" in done.stdout + done.stderr) == (0, False), done.stdout + done.stderr


@pytest.mark.timeout(1800)
def test_what_a_container_did_to_its_root_left_the_store_whole(clean):
    script = "rm /etc/hostname; echo x >> /etc/passwd; chmod 0 /usr/bin/apt; truncate -s 0 /bin/ls; mv /etc/dpkg /etc/x"
    clean.volt("run", "--rm", IMAGE, "sh", "-c", script)
    clean.volt("cas", "verify", check=True)
