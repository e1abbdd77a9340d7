"""Who may speak: only peers the kernel names, each with what is its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time

import msgspec
import pytest
import zmq
from wire.waiting import wait_until

from volt_common.api import cas
from volt_common.client.blocking import Client, PacketClient
from volt_common.errors import Denied, VoltError
from volt_common.wire import Kind, encode, encode_header, new_id
from volt_common.wire.zmtp import GREETING, _property, message

STATUS = encode(cas.Status())


def _raw(served, hello, parts):
    """What comes back within a second to a hand-made connection."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(1)
        sock.connect(str(served.run / "casd.sock"))
        with contextlib.suppress(OSError):
            sock.sendall(hello)
            time.sleep(0.2)
            sock.sendall(message(parts))
        got = b""
        with contextlib.suppress(OSError):
            while data := sock.recv(65536):
                got += data
        return got


def _command(body):
    return bytes([4, len(body)]) + body


def _ready(*properties):
    body = b"\x05READY" + _property(b"Socket-Type", b"DEALER") + b"".join(_property(*p) for p in properties)
    return GREETING + _command(body)


def test_a_forged_peer_address_or_user_id_changes_nothing(served):
    """`ls` echoes who the daemon thinks we are."""
    call = encode(cas.Ls(tree="x", path=b"p"))
    forged = _ready((b"Peer-Address", b"localhost:0:0:1"), (b"User-Id", b"root"), (b"__fd", b"3"), (b"Identity", b""))
    script = (
        "import os, sys, socket; os.setgroups([]); os.setresgid(65534, 65534, 65534)\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(3); s.connect(sys.argv[1])\n"
        "d = sys.stdin.buffer.read(); n = int(sys.argv[2])\n"
        "s.sendall(d[:n]); got = b''\n"
        "while b'READY' not in got: got += s.recv(10000)\n"
        "s.sendall(d[n:])\n"
        "got = b''\n"
        "try:\n"
        "    while d := s.recv(65536): got += d\n"
        "except OSError: pass\n"
        "sys.stdout.buffer.write(got)"
    )
    path = str(served.run / "casd.sock")
    data = forged + message((encode_header(Kind.CALL, new_id()), call))
    for directory in (served.run, served.run.parent, served.run.parent.parent, served.run.parent.parent.parent):
        os.chmod(directory, 0o755)
    out = subprocess.run(
        [sys.executable, "-c", script, path, str(len(forged))], input=data, stdout=subprocess.PIPE, check=True
    ).stdout
    assert b"\xa3uid" in out, "the call was answered"
    at = out.index(b"\xa3uid") + 4
    assert msgspec.msgpack.decode(out[at : at + 3]) == 65534


@pytest.mark.parametrize("version", [0, 1, 2])
def test_peers_of_old_protocols_get_nothing(served, version):
    parts = (encode_header(Kind.CALL, new_id()), STATUS)
    old = {
        0: b"\x01\x00",  # ZMTP 1.0: an anonymous identity
        1: b"\xff" + (1).to_bytes(8, "big") + b"\x7f" + b"\x01\x05" + b"\x00\x00",
        2: b"\xff" + (1).to_bytes(8, "big") + b"\x7f" + b"\x01\x05" + b"\x00\x00",
    }[version]
    if version == 0:
        body = b"".join(bytes([len(p) + 1, 1 if i == 0 else 0]) + p for i, p in enumerate(parts))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(1)
            sock.connect(str(served.run / "casd.sock"))
            sock.sendall(old + body)
            got = b""
            with contextlib.suppress(OSError):
                while data := sock.recv(65536):
                    got += data
    else:
        got = _raw(served, old, parts)
    assert b"objects" not in got
    with Client("casd", str(served.run)) as client:
        assert client.call(cas.Status()).objects == 1


def test_a_peer_over_tcp_gets_nothing(served):
    """The daemon has no tcp socket at all."""
    inodes = set()
    for fd in os.listdir(f"/proc/{served.process.pid}/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{served.process.pid}/fd/{fd}")
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    for table in ("tcp", "tcp6", "udp", "udp6", "raw"):
        with open(f"/proc/{served.process.pid}/net/{table}") as file:
            rows = file.read().splitlines()[1:]
        assert not [row for row in rows if row.split()[9] in inodes]


def test_a_user_outside_the_group_cannot_connect(served):
    """Kernel DAC: the socket is 0660 for the group."""
    path = str(served.run / "casd.sock")
    os.chmod(path, 0o660)
    script = (
        "import os, sys, socket; os.setgroups([]); os.setresgid(65534, 65534, 65534)\n"
        "os.setresuid(65534, 65534, 65534); socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    )
    for directory in (served.run, served.run.parent, served.run.parent.parent, served.run.parent.parent.parent):
        os.chmod(directory, 0o755)
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert "PermissionError" in done.stderr


def test_a_thousand_connections_of_one_uid_do_not_stop_another(served):
    """256 of a uid are served; the rest are closed, and the daemon stays."""
    context = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, 2000)
    context.setsockopt(zmq.LINGER, 0)
    sockets = []
    for _ in range(1000):
        sock = context.socket(zmq.DEALER)
        sock.setsockopt(zmq.RECONNECT_IVL, -1)
        sock.connect(f"ipc://{served.run}/casd.sock")
        sockets.append(sock)
    for sock in sockets:
        sock.send_multipart([encode_header(Kind.CALL, new_id()), STATUS])
    wait_until(lambda: sum(sock.poll(0) > 0 for sock in sockets) >= 200)
    script = (
        "import os, sys; from volt_common.client.blocking import Client; from volt_common.api import cas\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "print(Client('casd', sys.argv[1], timeout=20).call(cas.Status()).objects)"
    )
    for directory in (served.run, served.run.parent, served.run.parent.parent, served.run.parent.parent.parent):
        os.chmod(directory, 0o755)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(served.run)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout == "1\n", done.stderr
    answered = sum(sock.poll(0) > 0 for sock in sockets)
    assert answered <= 257
    context.destroy(0)
    wait_until(lambda: _serves(served))


def _serves(served):
    try:
        with Client("casd", str(served.run), timeout=5) as client:
            return client.call(cas.Status()).objects == 1
    except VoltError:
        return False


def test_a_connection_that_never_speaks_is_ended(served):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(served.run / "casd.sock"))
        sock.settimeout(20)
        start = time.monotonic()
        while sock.recv(4096):
            pass
        assert time.monotonic() - start < 15


def test_a_daemon_without_a_row_may_call_nothing(tmp_path):
    """Roles by uid, as a unit: the users exist only on an installed host."""
    from volt_common.daemon.peers import Peer, Roles

    roles = Roles({})
    roles._rows = {990: (cas.View,), 991: ()}
    roles.check(Peer(990, 990, 1), cas.View(tree="0" * 64, form=cas.Form.FULL))
    for peer in (Peer(990, 990, 1), Peer(991, 991, 1)):
        with pytest.raises(Denied):
            roles.check(peer, cas.Status())
    roles.check(Peer(1000, 1000, 1), cas.Status())


def test_the_descriptor_socket_counts_connections_too(served):
    held = [PacketClient("casd", str(served.run)) for _ in range(256)]
    with pytest.raises(VoltError), PacketClient("casd", str(served.run)) as client:
        client.call(cas.Put(), [0])
    for client in held:
        client.close()
    wait_until(lambda: _serves(served))
