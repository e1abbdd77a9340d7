"""The store by itself: two of the distributions in an environment of their own, as an ordinary user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NOBODY = 65534
# The host's own: the interpreter of these tests may lie where only root comes.
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
VERSION = subprocess.check_output(
    [PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True
).strip()

CLIENT = """
import os, sys
from volt_common.api import cas
from volt_common.client.blocking import Client, PacketClient
run, path = sys.argv[1:]
with PacketClient("casd", run=run) as casd, open(path, "rb") as file:
    stored, _ = casd.call(cas.Put(ref="mine/first"), [file.fileno()])
    again, _ = casd.call(cas.Put(), [os.open(path, os.O_RDONLY)])
    opened, fds = casd.call(cas.Open(digest=stored.digest))
    assert (stored.new, again.new, again.digest) == (True, False, stored.digest)
    assert os.pread(fds[0], 1 << 20, 0) == open(path, "rb").read()
with Client("casd", run=run) as casd:
    assert casd.call(cas.RefGet(name="mine/first")).digest == stored.digest
print(stored.digest)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh environment with volt-common and volt-casd, and what they need, from wheels alone."""
    top = Path("/var/tmp") / f"volt-standalone-{os.getpid()}"
    top.mkdir(mode=0o755)
    try:
        build = [str(ROOT / "scripts/build-wheels"), "--python", VERSION]
        done = subprocess.run(build, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, text=True)
        wheels = done.stdout.splitlines()[-1]
        subprocess.run([PYTHON, "-m", "venv", str(top / "venv")], check=True)
        install = [top / "venv/bin/pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
        subprocess.run([*install, "--find-links", wheels, "volt-common", "volt-casd"], check=True, timeout=100)
        yield top
    finally:
        shutil.rmtree(top)


def as_nobody(*command: str, **options: object) -> dict[str, object]:
    return {"args": command, "user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/", "env": {}, **options}


def test_only_the_store_is_installed(environment):
    pip = [environment / "venv/bin/pip", "--disable-pip-version-check", "list", "--format=freeze"]
    names = {line.partition("==")[0] for line in subprocess.run(pip, capture_output=True, text=True).stdout.split()}
    assert {name for name in names if name.startswith("volt")} == {"volt-common", "volt-casd"}


def test_a_daemon_by_itself_stores_and_gives_back(environment):
    place = environment / "home"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    (place / "file").write_bytes(os.urandom(100_000))
    run, state, store = (str(place / name) for name in ("run", "state", "store"))
    os.mkdir(state)
    os.chown(state, NOBODY, NOBODY)
    command = (str(environment / "venv/bin/volt-casd"), "--listen", run, "--state", state, "--store", store)
    for _ in range(2):  # it comes again with what it had
        Path(f"{run}/casd.sock").unlink(missing_ok=True)
        with open(place / "log", "ab") as log:
            daemon = subprocess.Popen(**as_nobody(*command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        try:
            until = time.monotonic() + 20
            while not os.path.exists(f"{run}/casd.sock"):
                assert daemon.poll() is None, (place / "log").read_text()
                assert time.monotonic() < until
                time.sleep(0.02)
            python = str(environment / "venv/bin/python")
            if not os.path.exists(f"{place}/done"):
                words = (python, "-I", "-c", CLIENT, run, str(place / "file"))
                done = subprocess.run(**as_nobody(*words, capture_output=True, text=True, timeout=30))
                assert done.returncode == 0, done.stderr + (place / "log").read_text()
                (place / "done").write_text(done.stdout)
            else:
                script = (
                    "import sys; from volt_common.api import cas; from volt_common.client.blocking import Client\n"
                    "print(Client('casd', run=sys.argv[1]).call(cas.RefGet(name='mine/first')).digest)"
                )
                done = subprocess.run(
                    **as_nobody(python, "-I", "-c", script, run, capture_output=True, text=True, timeout=30)
                )
                assert done.stdout == (place / "done").read_text(), done.stderr
        finally:
            daemon.terminate()
            assert daemon.wait(30) == 0
    assert "Traceback" not in (place / "log").read_text()
