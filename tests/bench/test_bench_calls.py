"""A call to a daemon, and the commands that need none."""

from __future__ import annotations

import json

_CALLS = """
import json, os, struct, time
import zmq
from volt_common.api import cas
from volt_common.client.blocking import Client
from volt_common.wire import Kind, encode, encode_header, new_id
with Client("casd") as client:
    for _ in range(200):
        client.call(cas.RefGet(name="images/debian/bench"))
    def times(call, count=2000):
        found = []
        for _ in range(count):
            began = time.perf_counter()
            client.call(call)
            found.append(time.perf_counter() - began)
        return sorted(found)
    ref, status = times(cas.RefGet(name="images/debian/bench")), times(cas.Status(), 500)
context = zmq.Context()
dealer = context.socket(zmq.DEALER)
dealer.setsockopt(zmq.LINGER, 0)
dealer.connect("ipc:///run/volt/casd.sock")
body = encode(cas.RefGet(name="images/debian/bench"))
def pipelined(window, count=5000):
    began, sent, got = time.perf_counter(), 0, 0
    while got < count:
        while sent < count and sent - got < window:
            dealer.send_multipart([encode_header(Kind.CALL, new_id()), body])
            sent += 1
        dealer.recv_multipart()
        got += 1
    return count / (time.perf_counter() - began)
pipelined(16, 500)
rates = sorted(pipelined(16) for _ in range(5))
dealer.close(); context.term()
# The floor: the same number of bytes to and fro over a bare socket pair with a second process.
import socket
one, other = socket.socketpair()
if not os.fork():
    one.close()
    while data := other.recv(4096):
        other.send(data)
    os._exit(0)
other.close()
floor = []
for _ in range(2000):
    began = time.perf_counter()
    one.send(b"x" * 64); one.recv(4096)
    floor.append(time.perf_counter() - began)
one.close()
floor.sort()
context = zmq.Context()
if not os.fork():
    echo = zmq.Context().socket(zmq.ROUTER); echo.bind("ipc:///tmp/volt-bench.sock")
    for _ in range(2200):
        echo.send_multipart(echo.recv_multipart())
    time.sleep(0.2)
    os._exit(0)
req = context.socket(zmq.DEALER); req.connect("ipc:///tmp/volt-bench.sock")
plain = []
for i in range(2200):
    began = time.perf_counter()
    req.send(b"x" * 64); req.recv()
    plain.append(time.perf_counter() - began)
plain = sorted(plain[200:])
req.close(); context.term()
print(json.dumps({"ref": ref, "status": status, "floor": floor, "zmq": plain, "rates": rates}))
"""


def test_calls(bench, report):
    found = json.loads(bench.python(_CALLS))
    rows = []
    names = {
        "floor": "64 bytes to and fro, socketpair, two Pythons",
        "zmq": "64 bytes to and fro, bare pyzmq, DEALER to ROUTER",
        "ref": "casd RefGet: ZAP, audit role, id log, a thread, a file",
        "status": "casd Status: counts the store",
    }
    base = found["zmq"][len(found["zmq"]) // 2]
    for key, name in names.items():
        times = found[key]
        middle, last = times[len(times) // 2], times[len(times) * 99 // 100]
        rows.append([name, f"{middle * 1e6:.0f}", f"{last * 1e6:.0f}", f"{middle / base:.1f}"])
    note = f"pipelined RefGet from one pyzmq client, 16 in flight: {found['rates'][2]:.0f} calls/s (median of 5)"
    report.table("A warm call, blocking client", ["", "p50 µs", "p99 µs", "× pyzmq"], rows, note)


def test_commands_without_a_daemon(bench, report):
    bench.sh("systemctl stop volt-ctrd.service volt-casd.service")
    python = "python3 -IS -c pass"
    peers = {"volt version": "volt version", "volt ps": "volt ps", python: python}
    peers |= {"podman ps": "podman ps", "machinectl list": "machinectl list"}
    note = "goals: volt version ≤ 25 ms, volt ps ≤ 45 ms; no daemon runs"
    report.race("Commands that need no daemon", bench.race(peers), [python, "podman ps"], note)
