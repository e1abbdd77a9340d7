"""What the attack tests share: an attempt and what came of it, and a ctrd that writes what it likes."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LAB = str(ROOT / "tests/lab/lab")
IMAGE = "debian:test"
SECRET = "the-hosts-own-secret"
CONTAINERS = "/var/lib/volt/containers"
ROOTS = "/var/lib/volt/roots"
TRANSIENT = ("evil.service", "volt-container@x.service", "volt-exec@x-0123456789abcdef.service")
_MANAGER = "org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager"


def try_all(machine: Any, user: str, attempts: dict[str, str], timeout: float = 90) -> dict[str, tuple[int, str]]:
    """Run shell lines as `user`, each whatever the others gave: label -> exit status and last lines of output."""
    script = "\n".join(
        f"out=$( (timeout -k 1 20 bash -c {shlex.quote(line)}) 2>&1 </dev/null ); "
        f'printf "%s\\t%d\\t%s\\n" {shlex.quote(label)} $? "$(printf %s "$out" | tail -c 600 | base64 -w0)"'
        for label, line in attempts.items()
    )
    done = machine.run("bash", "-s", user=user, input=script, timeout=timeout, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    found = {label: (int(code), base64.b64decode(text).decode(errors="replace")) for label, code, text in rows}
    assert found.keys() == attempts.keys()
    return found


def inside(machine: Any, name: str, attempts: dict[str, str]) -> set[str]:
    """Which shell lines come through that a container's root runs."""
    lines = [f"(timeout -k 1 10 sh -c {shlex.quote(line)}) >/dev/null 2>&1 </dev/null" for line in attempts.values()]
    script = "\n".join(f"{line} && echo {shlex.quote(label)}" for label, line in zip(attempts, lines, strict=True))
    done = machine.volt("exec", "-i", name, "sh", "-s", input=f"{script}\necho at the end\n", timeout=90)
    *found, end = done.stdout.splitlines()
    assert end == "at the end", done.stderr
    return set(found)


def succeeded(found: dict[str, tuple[int, str]]) -> dict[str, str]:
    """The attempts that came through, with their output."""
    return {label: text for label, (code, text) in found.items() if code == 0}


def manager(method: str, *arguments: str) -> str:
    """A call to systemd's manager, as a shell line."""
    return f"busctl --expect-reply=yes call {_MANAGER} {method} -- {shlex.join(arguments)}"


def transient(unit: str, touch: str) -> str:
    """A shell line that has systemd run, as root and under the name `unit`, a command that makes the file `touch`."""
    command = ["1", "ExecStart", "a(sasb)", "1", "/bin/sh", "3", "sh", "-c", f"touch {touch}", "false"]
    return manager("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "replace", *command, "0")


_START = r"""
import base64, json, os, shutil, subprocess, sys
home, unit = "/var/lib/volt/containers/hostile", "volt-container@hostile.service"
path, state = home + "/config.json", "/var/lib/volt/roots/hostile/state.json"
systemctl = ["systemctl", "--no-ask-password"]
found = {}
for label, (data, script) in json.load(sys.stdin).items():
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
    with open(path, "wb") as file:
        file.write(base64.b64decode(data))
    if script:
        subprocess.run(["bash", "-ec", script], cwd=home, check=True)
    done = subprocess.run([*systemctl, "start", unit], capture_output=True, text=True)
    end = json.load(open(state))["exit"] if os.path.exists(state) else None
    if done.returncode == 0:
        found[label] = "it started"
        subprocess.run([*systemctl, "stop", unit], check=True)
    elif end is None:
        found[label] = "no state: " + done.stderr
    else:
        found[label] = end.get("error", end["reason"]) + ": " + end["message"]
json.dump(found, sys.stdout)
"""


class HostileCtrd:
    """volt-ctr, which writes the configuration of a container called `hostile` as it likes, and starts it."""

    def __init__(self, machine: Any, image: str) -> None:
        self._machine = machine
        machine.volt("container", "create", "--name", "hostile", image, "sleep", "1000", check=True)
        self.config: dict[str, Any] = json.loads(machine.sh(f"cat {CONTAINERS}/hostile/config.json"))

    def changed(self, changes: dict[str, Any]) -> bytes:
        """The configuration with other values; a key may be `resources.pids_max`."""
        config = json.loads(json.dumps(self.config))
        for key, value in changes.items():
            *path, last = key.split(".")
            table = config
            for part in path:
                table = table[part]
            table[last] = value
        return json.dumps(config).encode()

    def start(self, attacks: dict[str, bytes | dict[str, Any]], plant: str = "") -> dict[str, str]:
        """Start it with each configuration in turn: label -> "CODE: why it was refused", or "it started". `plant` is
        a script that volt-ctr runs in the container's directory before."""
        every = {
            label: (base64.b64encode(attack if isinstance(attack, bytes) else self.changed(attack)).decode(), plant)
            for label, attack in attacks.items()
        }
        done = self._machine.run(
            "python3", "-I", "-c", _START, user="volt-ctr", input=json.dumps(every), timeout=90, check=True
        )
        found: dict[str, str] = json.loads(done.stdout)
        return found

    def plant(self, scripts: dict[str, str]) -> dict[str, str]:
        """Start it after each script, run by volt-ctr in the container's directory beside a good config.json."""
        return {label: self.start({label: {}}, script)[label] for label, script in scripts.items()}


def wrong(found: dict[str, str], expected: dict[str, str]) -> dict[str, str]:
    """The refusals that are not for the expected reason."""
    assert found.keys() == expected.keys()
    return {label: text for label, text in found.items() if expected[label] not in text}


@pytest.fixture
def host(clean: Any) -> Iterator[Any]:
    """The machine with a secret of root's, a place that nobody may change, and shared directories."""
    clean.sh(
        f"""
        rm -rf /srv/* /root/secret /root/owned
        umask 077; echo {SECRET} > /root/secret
        install -d -m 0755 /srv/victim /srv/open; echo before > /srv/victim/file; chmod 644 /srv/victim/file
        install -d -m 0700 /srv/roots; echo {SECRET} > /srv/roots/file
        install -d -m 0700 -o outsider -g outsider /srv/outsiders; install -d -m 0755 -o member -g member /srv/members
        """
    )
    yield clean
    assert clean.sh("ls -A /srv/victim; cat /srv/victim/file") == "file\nbefore\n"
    assert clean.run("test", "-e", "/root/owned").returncode == 1


@pytest.fixture
def web(host: Any) -> Any:
    """The machine with a running container."""
    host.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000", check=True)
    return host


@pytest.fixture
def ctrd(host: Any) -> Iterator[HostileCtrd]:
    """A compromised ctrd. Nothing it starts leaves a mount, a loop device or a run-time directory."""
    before = _leftovers(host)
    yield HostileCtrd(host, IMAGE)
    host.volt("rm", "--force", "hostile")
    host.sh(f"rm -rf {CONTAINERS}/hostile")
    assert _leftovers(host) == before


def _leftovers(machine: Any) -> str:
    # A machine of the lab sees the loop devices of its neighbours too.
    mounted = "(cut -d' ' -f5- /proc/self/mountinfo; losetup -a) | grep -e /var/lib/volt -e /run/volt || true"
    found: str = machine.sh(f"{mounted}; ls /run/volt-launch")
    return found
