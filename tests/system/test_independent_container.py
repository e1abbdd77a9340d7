"""A client that has nothing of Volt's, only a ZeroMQ and a msgpack library, runs a container."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

HERE = Path(__file__).parent


def test_a_peer_of_two_libraries_creates_starts_awaits_and_deletes(clean):
    clean.sh("rm -rf /opt/peer; mkdir -p /opt/peer/zmq /opt/peer/msgpack")
    clean.push(HERE / "independent_work.py", "/opt/peer/work.py")
    clean.push(Path(importlib.util.find_spec("msgpack").origin).parent, "/opt/peer/msgpack/msgpack")
    clean.sh("cp -r /usr/lib/volt/lib/python3*/site-packages/zmq /opt/peer/zmq/; "
             "cp -r /usr/lib/volt/lib/python3*/site-packages/pyzmq.libs /opt/peer/zmq/ 2>/dev/null || true; "
             "chmod -R a+rX /opt/peer")  # fmt: skip
    words = ("/usr/bin/python3", "-I", "/opt/peer/work.py", "/opt/peer/zmq", "/opt/peer/msgpack", "debian:test")
    done = clean.run(*words, user="member")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["exit"]["code"], told["exit"]["reason"]) == (9, "exit")
    assert told["modules"] == []
    assert clean.volt("inspect", "independent").returncode == 3
