"""The daemons as they are installed, under random and mutated messages of a member: none dies, none grows, every error
is typed, and a container can be run as before. VOLT_FUZZ says how many messages each gets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from system.conftest import IMAGE

COUNT = int(os.environ.get("VOLT_FUZZ", "4000"))
WORK = "/root/fuzz_work.py"


@pytest.mark.timeout(0 if COUNT > 10_000 else 120)
@pytest.mark.parametrize("daemon", ["ctrd", "casd"])
def test_a_daemon_outlives_what_it_is_sent(clean, daemon):
    clean.push(Path(__file__).parent / "fuzz_work.py", WORK)
    site = clean.sh("echo /usr/lib/volt/lib/python3*/site-packages").strip()
    work = ("/usr/lib/volt/bin/python3", "-I", WORK, site, daemon)

    def send(count: int, seed: int) -> dict:
        done = clean.run(*work, str(count), str(seed), check=True, timeout=3600)
        return json.loads(done.stdout)

    look = (
        f"systemctl show -P MainPID -P NRestarts volt-{daemon}; ps -o rss= $(systemctl show -P MainPID volt-{daemon})"
    )
    # One that listens keeps the daemon from leaving between the two halves.
    clean.sh("systemd-run --quiet --unit=listener -p Type=exec volt events")
    try:
        first = send(COUNT // 2, 1)
        pid, restarts, before = clean.sh(look).split()
        second = send(COUNT // 2, 2)
        found = clean.sh(look).split()
    finally:
        clean.run("systemctl", "stop", "listener")
    assert restarts == "0"
    if daemon == "ctrd":  # which the listener holds
        assert found[:2] == [pid, restarts]
        assert int(found[2]) - int(before) < 20 << 10
    for half in (first, second):
        assert half["unknown"] == []
        assert sum(half["kinds"].values()) > COUNT // 8
    clean.clean()
    assert clean.volt("run", "--rm", IMAGE, "echo", "well").stdout == "well\n"
    assert clean.volt("cas", "verify", timeout=100).returncode == 0
