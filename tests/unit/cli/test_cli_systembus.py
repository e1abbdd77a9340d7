"""The one D-Bus call: its bytes are what a library makes, and its answers are read as a library writes them."""

import os
import socket
import threading

import pytest
from jeepney import DBusAddress, Endianness, HeaderFields, MessageType, new_error, new_method_call, new_method_return
from jeepney.low_level import Header, Message, Parser

from volt import systembus
from volt.containers import known
from volt.main import main
from volt_common.errors import Denied, Unreachable

SYSTEMD = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
UNITS = [
    ("volt-container@web.service", "Volt container web", "loaded", "active", "running", "", "/org/x", 0, "", "/"),
    ("volt-container@größe.service", "ü" * 7, "loaded", "failed", "failed", "", "/org/y/longer", 7, "start", "/job/7"),
    ("volt-container@db.service", "", "loaded", "activating", "start", "", "/o", 0, "", "/"),
    ("volt-container@over.service", "", "loaded", "deactivating", "stop-post", "", "/o", 0, "", "/"),
]


def library_call(patterns):
    return new_method_call(SYSTEMD, "ListUnitsByPatterns", "asas", ([], patterns))


def as_library_reads(data):
    parser = Parser()
    parser.add_data(data)
    return parser.get_next_message()


@pytest.mark.parametrize("patterns", [[], ["a"], ["volt-container@*.service"], ["x" * n for n in range(9)]])
def test_a_call_reads_back_as_a_library_s(patterns):
    body = systembus.marshal_strings([])
    body += systembus.marshal_strings(patterns)
    ours = as_library_reads(
        systembus.message(
            2, SYSTEMD.bus_name, SYSTEMD.object_path, SYSTEMD.interface, "ListUnitsByPatterns", "asas", body
        )
    )
    theirs = as_library_reads(library_call(patterns).serialise(serial=2))
    assert ours.body == theirs.body == ([], patterns)
    assert ours.header.fields == theirs.header.fields
    assert ours.header.message_type == MessageType.method_call
    assert ours.header.serial == 2


def test_the_bytes_of_the_first_call_of_all():
    data = systembus.message(
        1, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", "", b""
    )
    assert data[:16] == b"l\1\0\1" + bytes(4) + b"\1\0\0\0" + (len(data) - 16 - 3).to_bytes(4, "little")
    assert data[16:48] == b"\1\1o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0"
    assert len(data) % 8 == 0


class Bus:
    """A bus that takes one client and answers its two calls."""

    def __init__(self, path, answer, refuse=False, greeting=b"OK 0123456789abcdef0123456789abcdef\r\n"):
        self.path, self.answer, self.refuse, self.greeting = str(path), answer, refuse, greeting
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.seen = b""
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        peer, _ = self.listener.accept()
        with peer:
            while b"BEGIN\r\n" not in self.seen:
                self.seen += peer.recv(65536)
            parser = Parser()
            parser.add_data(self.seen.partition(b"BEGIN\r\n")[2])
            peer.sendall(self.greeting)
            serial = 100
            while serial < 102:
                call = parser.get_next_message()
                if call is None:
                    parser.add_data(peer.recv(65536))
                    continue
                reply = new_method_return(call, "s", (":1.7",)) if serial == 100 else self.answer(call)
                for message in ([signal(":1.7")] if serial == 100 else []) + [reply]:
                    peer.sendall(message.serialise(serial=serial))
                serial += 1

    def close(self):
        self.thread.join()
        self.listener.close()


def signal(name):
    fields = {
        HeaderFields.path: "/org/freedesktop/DBus",
        HeaderFields.interface: "org.freedesktop.DBus",
        HeaderFields.member: "NameAcquired",
        HeaderFields.signature: "s",
    }
    return Message(Header(Endianness.little, MessageType.signal, 0, 1, 0, 1, fields), (name,))


@pytest.fixture
def bus(tmp_path, request):
    made = []

    def make(answer, **options):
        made.append(Bus(tmp_path / "bus", answer, **options))
        return made[0]

    yield make
    for one in made:
        one.close()


def listing(call):
    return new_method_return(call, "a(ssssssouso)", (UNITS,))


def test_units_are_listed(bus):
    served = bus(listing)
    units = systembus.list_units(["volt-container@*.service"], served.path)
    assert [(u.name, u.description, u.load, u.active, u.sub) for u in units] == [unit[:5] for unit in UNITS]
    assert served.seen.startswith(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\nBEGIN\r\n")


def test_no_units(bus):
    assert systembus.list_units(["x"], bus(lambda call: new_method_return(call, "a(ssssssouso)", ([],))).path) == []


def test_a_refusal_is_denied(bus):
    served = bus(lambda call: new_error(call, "org.freedesktop.DBus.Error.AccessDenied", "s", ("no",)))
    with pytest.raises(Denied, match="no"):
        systembus.list_units(["x"], served.path)


def test_another_error_is_unreachable(bus):
    served = bus(lambda call: new_error(call, "org.freedesktop.DBus.Error.ServiceUnknown", "s", ("no systemd",)))
    with pytest.raises(Unreachable, match="no systemd"):
        systembus.list_units(["x"], served.path)


def test_no_bus_is_unreachable(tmp_path):
    with pytest.raises(Unreachable):
        systembus.list_units(["x"], str(tmp_path / "none"))


def test_a_bus_that_hangs_up_is_unreachable(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "bus"))
    listener.listen()

    def hang_up():
        peer, _ = listener.accept()
        peer.recv(65536)
        peer.sendall(b"OK 00\r\nl\2")
        peer.close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    with pytest.raises(Unreachable):
        systembus.list_units(["x"], str(tmp_path / "bus"))
    thread.join()
    listener.close()


def test_the_lists_of_containers(bus, tmp_path):
    for name, text in (
        ("web", '{"version":1,"tree":"ab","started_at":"2026-01-31T10:00:00.000Z","restarts":2,"id_base":589824}'),
        ("old", '{"version":1,"ended_at":"2026-01-31T10:00:00Z","exit":{"code":3,"signal":0,"reason":"exit"}}'),
        ("torn", '{"version":1,"tr'),
        ("over", '{"version":1,"ended_at":"2026-01-31T10:00:00Z","exit":{"code":0,"signal":0,"reason":"exit"}}'),
    ):
        (tmp_path / "roots" / name).mkdir(parents=True)
        (tmp_path / "roots" / name / "state.json").write_text(text)
    (tmp_path / "roots" / ".views").mkdir()
    served = bus(listing)
    rows = {row["name"]: row for row in known(str(tmp_path / "roots"), served.path, stopped=True)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "web": "running",
        "db": "starting",
        "old": "stopped",
        "torn": "stopped",
        "over": "stopped",
    }
    assert rows["web"]["restarts"] == 2
    assert rows["web"]["exit"] is None
    assert rows["old"]["exit"]["code"] == 3


def test_a_run_that_is_over_does_not_run_though_systemd_tidies_up(bus, tmp_path):
    (tmp_path / "roots/over").mkdir(parents=True)
    (tmp_path / "roots/over/state.json").write_text('{"version":1,"ended_at":"2026-01-31T10:00:00Z"}')
    assert [row["name"] for row in known(str(tmp_path / "roots"), bus(listing).path)] == ["db", "web"]


def test_ps_works_without_a_daemon_and_without_the_roots(bus, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={bus(listing).path},guid=0")
    assert main(["--host", str(tmp_path), "ps", "-o", "name"]) == 0
    assert capsys.readouterr().out == "db\nover\nweb\n"


def test_ps_without_systemd_is_exit_6(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    assert main(["ps"]) == 6
    assert "systemd" in capsys.readouterr().err
