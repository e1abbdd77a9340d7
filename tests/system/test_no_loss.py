"""Changes while the daemons come and go: each takes effect once and is answered, or asking tells what became of it.

400 operations over 10 restarts; with VOLT_NO_LOSS=full 10,000 over 100.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FULL = os.environ.get("VOLT_NO_LOSS") == "full"
OPERATIONS, RESTARTS, SECONDS = (10_000, 100, 3000) if FULL else (400, 10, 110)
WORK = "/root/no_loss_work.py"
AUDIT = "/var/log/volt/audit"
MUTATIONS = ("ctr.create", "ctr.delete", "cas.ref_set")

pytestmark = pytest.mark.timeout(SECONDS + 60)


@pytest.fixture
def ready(clean):
    """A second tree, the script, and audit logs that are looked at from here on."""
    clean.push(HERE / "no_loss_work.py", WORK)
    clean.sh("mkdir -p /root/small; echo x > /root/small/file; volt image import small /root/small")
    clean.sh("systemctl stop volt-casd volt-ctrd")
    return clean


def worked(machine, how: str) -> tuple[dict, Counter]:
    """What the script told, and how often each request was written down as a success."""
    before = int(machine.sh(f"cat {AUDIT}/*.log | wc -l"))
    site = machine.sh("echo /usr/lib/volt/lib/python3*/site-packages").strip()
    words = ("/usr/lib/volt/bin/python3", "-I", WORK, site, str(OPERATIONS), str(RESTARTS), how)
    done = machine.run(*words, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert told["operations"] >= OPERATIONS
    assert told["restarts"] == RESTARTS
    lines = machine.sh(f"cat {AUDIT}/*.log").splitlines()
    assert len(lines) > before
    successes = Counter()
    for line in lines:
        one = json.loads(line)
        if one["action"] in MUTATIONS and one["result"] == "success":
            successes[one["action"], one["id"]] += 1
    return told, successes


def checked(machine) -> None:
    """The store and the audit logs are whole, and who asks is told the truth."""
    assert machine.volt("audit", "verify").returncode == 0
    assert machine.volt("cas", "verify", timeout=120).returncode == 0
    rows = json.loads(machine.volt("container", "list", "-o", "json").stdout)
    assert {row["state"] for row in rows} <= {"stopped"}
    on_disk = machine.sh("ls /var/lib/volt/containers").split()
    held = machine.sh("ls /var/lib/volt/cas/refs/containers").split()
    assert sorted(row["name"] for row in rows) == sorted(on_disk) == sorted(held)


def test_over_restarts_everything_is_answered_and_done_once(ready):
    told, successes = worked(ready, "term")
    assert set(told["counts"]) == {"answered"}
    assert set(successes.values()) == {1}
    checked(ready)


def test_under_sigkill_nothing_is_done_twice_and_asking_tells_the_truth(ready):
    _, successes = worked(ready, "kill")
    assert set(successes.values()) == {1}
    checked(ready)
