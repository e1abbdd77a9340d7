"""config.json is a hostile file: every key is known, of its type and in its bounds, or nothing starts."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from volt_ctr_launch import config
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.paths import Layout, instance_of, name_of

Config = dict[str, object]


def test_a_valid_configuration_passes(valid: Config) -> None:
    found = config.parse(valid, "web")
    assert found.args == ["/bin/sh"]
    assert found.stop_signal == signal.SIGTERM
    assert found.resources.memory_max is None


@pytest.mark.parametrize("key", json.loads(json.dumps(["name", "id", "args", "view", "resources", "labels", "uid"])))
def test_a_missing_key_is_refused(valid: Config, key: str) -> None:
    del valid[key]
    with pytest.raises(Refusal, match=key):
        config.parse(valid, "web")


def test_an_unknown_key_is_refused_at_every_level(valid: Config) -> None:
    for place in (valid, valid["view"], valid["root"], valid["resources"]):
        assert isinstance(place, dict)
        place["privileged"] = True
        with pytest.raises(Refusal, match="unknown key 'privileged'"):
            config.parse(valid, "web")
        del place["privileged"]


BAD: list[tuple[str, object]] = [
    ("version", 2),
    ("version", True),
    ("name", "other"),
    ("id", "AB" * 16),
    ("id", "12" * 16 + "\n"),
    ("tree", "../../etc"),
    ("tree", "ab" * 32 + "\n"),
    ("uid", -1),
    ("uid", "0"),
    ("uid", True),
    ("uid", 0xFFFFFFFF),
    ("view", {"form": "full/../x", "sha256": "cd" * 32, "size": 4096}),
    ("view", {"form": "full", "sha256": "cd" * 32, "size": -1}),
    ("view", []),
    ("root", {"mode": 0o755, "uid": 65536, "gid": 0, "mtime_ns": 0}),
    ("mode", "privileged"),
    ("args", []),
    ("args", [""]),
    ("args", "sh"),
    ("args", ["a\0b"]),
    ("args", ["\ud800"]),
    ("args", [1]),
    ("env", {"A=B": "c"}),
    ("env", {"A B": "c"}),
    ("env", {"": "c"}),
    ("env", {"A": "x" * 131071}),
    ("env", ["A=B"]),
    ("user", "root;id"),
    ("user", "-1"),
    ("user", "--help"),
    ("user", "app\n"),
    ("workdir", "relative"),
    ("workdir", "/a\0"),
    ("hostname", "-x"),
    ("hostname", "a b"),
    ("tty", 1),
    ("streams", "file"),
    ("layer", "none "),
    ("network", "container:x"),
    ("binds", [{"source": "/srv", "target": "/x"}]),
    ("binds", [{"source": "srv", "target": "/x", "read_only": False}]),
    ("binds", [{"source": "/srv/../etc", "target": "/x", "read_only": False}]),
    ("binds", [{"source": "/srv", "target": "/", "read_only": False}]),
    ("binds", [{"source": "/srv", "target": "/run/.volt/init", "read_only": False}]),
    ("binds", [{"source": "/srv", "target": "/x", "read_only": False}] * 2),
    ("binds", [{"source": "/srv", "target": "/x", "read_only": False}] * 65),
    ("tmpfs", ["//"]),
    ("tmpfs", ["/x/../y"]),
    ("tmpfs", ["x"]),
    ("capabilities", ["SYS_ADMIN"]),
    ("capabilities", ["CAP_SYS_ADMIN,CAP_BPF"]),
    ("capabilities", "CAP_SYS_ADMIN"),
    ("resources", {"memory_max": 0}),
    ("resources", {"memory_max": 1.5e9}),
    ("resources", {"pids_max": "max"}),
    ("stop_signal", "SIGNOPE"),
    ("stop_signal", "0"),
    ("stop_signal", "33"),
    ("stop_signal", "RTMIN+40"),
    ("stop_seconds", 3601),
    ("remove", "yes"),
    ("labels", {"a": 1}),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=lambda value: str(value)[:40].encode("ascii", "replace").decode())
def test_a_bad_value_is_refused(valid: Config, key: str, value: object) -> None:
    valid[key] = value
    with pytest.raises(Refusal) as caught:
        config.parse(valid, "web")
    assert caught.value.code == "INVALID"
    assert "\n" not in caught.value.message


def test_a_booted_container_has_no_user(valid: Config) -> None:
    valid |= {"mode": "hybrid-native", "args": [], "user": "app"}
    with pytest.raises(Refusal, match="root inside"):
        config.parse(valid, "web")


@pytest.mark.parametrize(
    ("name", "number"),
    [("TERM", 15), ("SIGKILL", 9), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("RTMIN", 34)],
)
def test_signals_have_names_and_numbers(name: str, number: int) -> None:
    assert config.signal_number(name) == number


class TestTheFile:
    """It is read from a directory that a daemon owns."""

    @pytest.fixture
    def home(self, layout: Layout) -> Path:
        path = Path(layout.containers) / "web"
        path.mkdir()
        return path

    def load(self, layout: Layout, owner: int = 0) -> config.Config:
        return config.load(layout.containers, "web", owner)

    def test_its_owner_is_the_daemon(self, layout: Layout, home: Path, valid: Config) -> None:
        (home / "config.json").write_text(json.dumps(valid))
        assert self.load(layout).name == "web"
        with pytest.raises(Refusal, match="belongs to uid 0"):
            self.load(layout, owner=1234)

    def test_a_link_is_not_followed_in_any_part(
        self, layout: Layout, home: Path, valid: Config, tmp_path: Path
    ) -> None:
        (tmp_path / "real.json").write_text(json.dumps(valid))
        (home / "config.json").symlink_to(tmp_path / "real.json")
        with pytest.raises(Refusal, match="links"):
            self.load(layout)
        os.rename(home, tmp_path / "elsewhere")
        (tmp_path / "elsewhere/config.json").unlink()
        (tmp_path / "elsewhere/config.json").write_text(json.dumps(valid))
        home.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(Refusal, match="links"):
            self.load(layout)

    def plant(self, kind: str, path: Path) -> None:
        makers: dict[str, Callable[[], object]] = {
            "fifo": lambda: os.mkfifo(path),
            "directory": lambda: path.mkdir(),
            "hard link": lambda: (path.with_name("other").write_text("{}"), os.link(path.with_name("other"), path)),
            "too large": lambda: path.write_bytes(b" " * (5 << 20)),
            "twice": lambda: path.write_text('{"version": 1, "version": 1}'),
            "deep": lambda: path.write_text("[" * 100000),
            "torn": lambda: path.write_text('{"version": 1,'),
            "not UTF-8": lambda: path.write_bytes(b'{"name": "\xff"}'),
            "null": lambda: path.write_text("null"),
        }
        makers[kind]()

    @pytest.mark.parametrize(
        "kind", ["fifo", "directory", "hard link", "too large", "twice", "deep", "torn", "not UTF-8", "null"]
    )
    def test_what_is_no_plain_json_file_is_refused(self, layout: Layout, home: Path, kind: str) -> None:
        self.plant(kind, home / "config.json")
        with pytest.raises(Refusal):
            self.load(layout)

    def test_a_missing_one_is_told_apart(self, layout: Layout) -> None:
        with pytest.raises(Refusal) as caught:
            self.load(layout)
        assert caught.value.code == "NOT_FOUND"


def test_names_are_names_and_instances_end_in_an_id() -> None:
    assert name_of("my-web") == "my-web"
    assert instance_of("my-web-0123456789abcdef") == ("my-web", "0123456789abcdef")
    for bad in ("", "-x", "x-", "a/b", "..", "X", "a" * 64, "web\n", "op", ".views"):
        with pytest.raises(Refusal):
            name_of(bad)
    for bad in ("web", "web-0123456789ABCDEF", "web-0123", "-0123456789abcdef", "../x-0123456789abcdef"):
        with pytest.raises(Refusal):
            instance_of(bad)
