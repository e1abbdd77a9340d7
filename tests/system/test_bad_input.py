"""What can't be done is refused: the right exit status, one line that says what to do, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from system.refusals import refused, remains, unchanged

HERE = Path(__file__).parent
IMAGE = "debian:test"
SMALL = "/var/lib/small"


@pytest.fixture
def untouched(clean):
    """The machine; after the test it is checked that nothing was left behind."""
    before = remains(clean)
    yield clean
    unchanged(clean, before)


@pytest.fixture
def bad_tars(machine) -> str:
    place = "/root/bad-tars"
    if machine.run("test", "-d", place).returncode:
        machine.sh(f"mkdir {place}")
        machine.push(HERE / "bad_tars.py", f"{place}/make.py")
        machine.sh(f"python3 {place}/make.py {place}")
    return place


@pytest.fixture
def changed(untouched):
    """Write a file of the machine's for the time of a test; the daemons are not up when it begins or ends."""
    kept = []

    def write(path: str, text: str) -> None:
        kept.append((path, untouched.sh(f"cat {path}")))
        untouched.sh(f"systemctl stop volt-casd volt-ctrd 2>/dev/null; cat > {path}", input=text)

    yield write
    for path, text in kept:
        untouched.sh(f"systemctl stop volt-casd volt-ctrd 2>/dev/null; cat > {path}", input=text)


def test_an_unknown_key_in_config_yaml(untouched, changed):
    changed("/etc/volt/config.yaml", "idle_second: 5\n")
    for words in (["cas", "status"], ["run", "--rm", IMAGE, "true"], ["image", "import", "x", "/root/image.tar"]):
        done = untouched.volt(*words)
        refused(done, 12, r"/etc/volt/config\.yaml", "idle_second", "did you mean idle_seconds")


def test_a_config_yaml_that_was_corrected_is_read_again(untouched, changed):
    changed("/etc/volt/config.yaml", "[")
    refused(untouched.volt("cas", "status"), 12, r"/etc/volt/config\.yaml", "YAML")
    untouched.sh("echo 'idle_seconds: 30' > /etc/volt/config.yaml")
    untouched.wait("volt cas status")


def test_an_unknown_key_in_policy_toml(untouched, changed):
    policy = untouched.sh("cat /etc/volt/policy.toml")
    changed("/etc/volt/policy.toml", policy + '\n[hots]\nnetworks = ["host"]\n')
    refused(untouched.volt("run", "--name", "web", IMAGE, "true"), 12, r"/etc/volt/policy\.toml", "hots")


UNKNOWN_FIELD = """
import json, sys
from volt_common.client.blocking import Client
from volt_common.wire import Kind, encode, encode_header, new_id
import msgspec
daemon, body = sys.argv[1], json.loads(sys.argv[2])
client = Client(daemon)
id = new_id()
client._send(Kind.CALL, id, msgspec.msgpack.encode(body), None)
kind, answer = client._next(id, None)
print(json.dumps([kind, msgspec.msgpack.decode(answer)]))
"""


@pytest.mark.parametrize(
    ("daemon", "call"),
    [
        ("casd", {"op": "cas.ref_delete", "name": "images/debian/test", "force": True}),
        ("ctrd", {"op": "ctr.create", "name": "web", "spec": {"image": IMAGE, "privileged": True}}),
    ],
)
def test_an_unknown_key_in_a_message(untouched, daemon, call):
    kind, problem = json.loads(untouched.python(UNKNOWN_FIELD, daemon, json.dumps(call)).stdout)
    assert (kind, problem["code"]) == (19, "MALFORMED")
    assert ("force" if daemon == "casd" else "privileged") in problem["message"]
    assert "\n" not in problem["message"]


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--name", "Web", IMAGE, "true"),
        ("run", "--name", "a/../../etc", IMAGE, "true"),
        ("container", "create", "--name", "x" * 64, IMAGE, "true"),
        ("rm", "../etc"),
        ("start", "-x-"),
        ("image", "import", "../evil", "/root/image.tar"),
        ("image", "import", "a//b", "/root/image.tar"),
        ("run", "../evil", "true"),
    ],
)
def test_a_bad_name(untouched, words):
    words = (words[0], "--", *words[1:]) if words[-1].startswith("-") else words
    refused(untouched.volt(*words), 12, "is 1 to 63|is NAME|is up to 16 parts")


@pytest.mark.parametrize("words", [("inspekt", "web"), ("run", "--memry", "1G", IMAGE), ("cas", "statsu")])
def test_a_word_that_is_not_known_names_the_nearest(untouched, words):
    refused(untouched.volt(*words), 2, "Did you mean `(inspect|--memory|status)`")


@pytest.mark.parametrize("name", ["dotdot", "inner-dotdot", "absolute", "through-a-symlink", "link-out"])
def test_a_tar_that_escapes(untouched, bad_tars, name):
    done = untouched.volt("image", "import", "bad", f"{bad_tars}/{name}.tar")
    refused(done, 12, r"\.\.|absolute|symlink")
    assert untouched.run("sh", "-c", "find / -xdev -name evil | grep .").returncode == 1


def test_a_truncated_tar(untouched, bad_tars):
    refused(untouched.volt("image", "import", "bad", f"{bad_tars}/cut.tar"), 12, "cut short in file-15")


def test_a_truncated_tar_in_gzip_and_zstd(untouched, bad_tars):
    for command, magic in (("gzip", "gz"), ("zstd", "zst")):
        untouched.sh(f"{command} -c {bad_tars}/whole.tar | head -c 500000 > {bad_tars}/cut.tar.{magic}")
        refused(untouched.volt("image", "import", "bad", f"{bad_tars}/cut.tar.{magic}"), 12, "cut short")


def test_what_is_no_tar(untouched):
    refused(untouched.volt("image", "import", "bad", "/etc/passwd"), 12, "/etc/passwd is no tar.*gzip, zstd")
    refused(untouched.volt("image", "import", "bad", "/nowhere.tar"), 3, "/nowhere.tar")


@pytest.fixture
def small_store(untouched):
    """A second casd, with its store on a file system of 16 MiB; the `--host` to reach it by."""
    untouched.sh(f"mkdir -p {SMALL}; mount -t tmpfs -o size=16m,mode=0755 none {SMALL}; mkdir /run/volt-small")
    command = "/usr/lib/volt/bin/volt-casd --listen /run/volt-small --state /run/volt-small"
    untouched.sh(f"systemd-run -q --unit=small-casd {command} --store {SMALL}/cas")
    untouched.wait("volt --host /run/volt-small cas status")
    yield "/run/volt-small"
    untouched.sh(f"systemctl stop small-casd; umount {SMALL}; rmdir {SMALL}; rm -rf /run/volt-small")


def test_a_full_disk_under_the_store(untouched, small_store):
    machine, host = untouched, ("--host", small_store)
    files = f"find {SMALL} -type f ! -name dirty -printf '%P %s\\n' | sort"
    machine.sh("mkdir -p /var/tmp/a; echo small > /var/tmp/a/file")
    assert machine.volt(*host, "image", "import", "fits", "/var/tmp/a").returncode == 0
    before = machine.sh(files)
    machine.sh("mkdir -p /var/tmp/large; head -c 40000000 /dev/urandom > /var/tmp/large/file")
    for source in ("/root/image.tar", "/var/tmp/large"):
        done = machine.volt(*host, "image", "import", "large", source, timeout=120)
        refused(done, 11, "disk space", "free some space|larger disk")
        assert machine.sh(files) == before
    done = machine.volt(*host, "cas", "put", "/var/tmp/large/file")
    refused(done, 11, "disk space")
    assert machine.sh(files) == before
    assert machine.volt(*host, "image", "list", "-o", "name").stdout == "fits:latest\n"
    assert machine.volt(*host, "cas", "cat", "fits:/file").stdout == "small\n"
    assert machine.volt(*host, "cas", "verify").returncode == 0
    machine.sh("rm -r /var/tmp/a /var/tmp/large")


def test_a_full_disk_under_the_containers(untouched):
    place = "/var/lib/volt/containers"
    untouched.sh("systemctl stop volt-ctrd")
    untouched.sh(f"mount -t tmpfs -o size=64k,mode=0700,uid=volt-ctr,gid=volt-ctr none {place}")
    try:
        untouched.run("sh", "-c", f"cat /dev/zero > {place}/.filler")
        done = untouched.volt("run", "--name", "web", IMAGE, "true")
        refused(done, 11, "No space left on device", "room on disk")
        assert untouched.sh(f"ls -A {place}") == ".filler\n"
        assert "containers/web" not in untouched.volt("cas", "refs").stdout
        untouched.sh(f"rm {place}/.filler")
        assert untouched.volt("run", "--rm", IMAGE, "true").returncode == 0
    finally:
        untouched.sh(f"systemctl stop volt-ctrd; umount {place}")


@pytest.mark.parametrize("words", [("run", "--name", "web", "nowhere:1", "true"), ("image", "inspect", "nowhere:1")])
def test_a_missing_image(untouched, words):
    refused(untouched.volt(*words), 3, "nowhere:1", "volt image list")


def test_a_missing_container(untouched):
    for verb in ("start", "stop", "inspect", "rm", "wait"):
        refused(untouched.volt(verb, "nobody"), 3, "nobody", "volt ps -a")


SOCKETS = "volt-casd.socket volt-casd-fd.socket volt-ctrd.socket volt-ctrd-fd.socket volt-ctrd-handover.socket"


def test_a_dead_daemon(untouched):
    untouched.sh(f"systemctl stop {SOCKETS} volt-casd volt-ctrd")
    try:
        for daemon, words in {
            "ctrd": ("run", IMAGE, "true"),
            "casd": ("image", "import", "x", "/root/image.tar"),
        }.items():
            refused(untouched.volt(*words), 6, daemon, f"systemctl start volt-{daemon}")
    finally:
        untouched.sh(f"systemctl start {SOCKETS}")


def test_a_store_that_is_dead_while_ctrd_lives(untouched):
    sockets = "volt-casd.socket volt-casd-fd.socket"
    untouched.sh("volt container list")
    untouched.sh(f"systemctl stop {sockets} volt-casd")
    try:
        refused(untouched.volt("run", "--name", "web", IMAGE, "true"), 6, "casd", "systemctl start volt-casd")
    finally:
        untouched.sh(f"systemctl start {sockets}")


def test_no_systemd(untouched):
    """Where /run is empty, as on a host that another init booted."""
    for words, says in {
        ("ps",): "system bus.*Is systemd running",
        ("run", "--name", "web", IMAGE, "true"): "ctrd.*systemctl start volt-ctrd.socket",
        ("cas", "status"): "casd.*systemctl start volt-casd.socket",
    }.items():
        line = "mount -t tmpfs none /run && exec volt " + " ".join(words)
        refused(untouched.run("unshare", "--mount", "sh", "-c", line), 6, says)


def test_no_root_and_no_group(untouched):
    for words in (("run", "--name", "web", IMAGE, "true"), ("image", "import", "x", "/etc/apt"), ("rm", "web")):
        done = untouched.volt(*words, user="outsider")
        refused(done, 5, "group volt", "use sudo, or join the group")


def test_a_file_that_the_caller_may_not_read(untouched):
    untouched.sh("mkdir -p /home/member/tree; echo x > /home/member/tree/secret; chmod 600 /home/member/tree/secret")
    done = untouched.volt("image", "import", "x", "/home/member/tree", user="member")
    refused(done, 5, "secret", "root")
    untouched.sh("rm -r /home/member/tree")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-v", "/etc:/x"), "/etc.*binds"),
        (("--network", "host"), "network.*policy.toml"),
        (("--cap-add", "CAP_SYS_ADMIN"), "CAP_SYS_ADMIN.*policy.toml"),
    ],
)
def test_what_the_policy_forbids(untouched, words, says):
    refused(untouched.volt("run", "--name", "web", *words, IMAGE, "true"), 5, says)


def test_a_command_that_the_image_does_not_have(untouched):
    done = untouched.volt("run", "--rm", "--name", "web", IMAGE, "no-such-command")
    refused(done, 127, "no-such-command: command not found in the container")
