"""What was asked and what the image says become the launcher's input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from volt_common.api import cas, ctr
from volt_common.errors import Invalid
from volt_ctr_launch import config as launcher
from volt_ctrd import config
from volt_ctrd.files import Places
from volt_ctrd.images import Image, ImageConfig

VIEW = cas.ViewReady("ab" * 32, cas.Form.REDIRECT, 8192, "cd" * 32, 0o41777, 1, 2, 1_500_000_000_123_456_789)
WEB = Image(
    "ab" * 32,
    ImageConfig(
        entrypoint=["/bin/serve"],
        cmd=["--all"],
        env={"PATH": "/opt/bin", "MODE": "prod"},
        user="www",
        workdir="/srv",
        stop_signal="SIGQUIT",
    ),
)
PLAIN = Image("ab" * 32)


def made(image: Image = WEB, **asked: object) -> config.Config:
    return config.of_spec("web", 1000, ctr.Spec(image="web", **asked), image, VIEW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "argv"),
    [
        ({}, ["/bin/serve", "--all"]),
        ({"args": ["--one"]}, ["/bin/serve", "--one"]),
        ({"entrypoint": ["/bin/sh"]}, ["/bin/sh"]),
        ({"entrypoint": ["/bin/sh"], "args": ["-c", "x"]}, ["/bin/sh", "-c", "x"]),
        ({"entrypoint": [], "args": ["/bin/true"]}, ["/bin/true"]),
    ],
)
def test_the_command_is_composed_as_oci_says(asked: dict[str, object], argv: list[str]) -> None:
    assert made(**asked).args == argv


def test_without_any_command_nothing_is_made() -> None:
    with pytest.raises(Invalid, match="names no command"):
        made(PLAIN)
    with pytest.raises(Invalid, match="names no command"):
        made(entrypoint=[])
    with pytest.raises(Invalid, match="empty"):
        made(PLAIN, args=["", "x"])


def test_an_image_that_boots_needs_no_command_and_does_not_get_the_images() -> None:
    assert made(mode=ctr.Mode.HYBRID_NATIVE).args == []
    assert made(PLAIN, mode=ctr.Mode.HYBRID_NATIVE, args=["--unit=x"]).args == ["--unit=x"]


def test_the_callers_word_counts_more_than_the_images_and_that_more_than_the_default() -> None:
    image = made()
    assert (image.user, image.workdir, image.stop_signal) == ("www", "/srv", "SIGQUIT")
    assert image.env == {"PATH": "/opt/bin", "MODE": "prod"}
    caller = made(user="7:8", workdir="/x", stop_signal="INT", env={"MODE": "test", "A": "b"}, hostname="h")
    assert (caller.user, caller.workdir, caller.stop_signal, caller.hostname) == ("7:8", "/x", "INT", "h")
    assert caller.env == {"PATH": "/opt/bin", "MODE": "test", "A": "b"}
    plain = made(PLAIN, args=["/bin/true"])
    assert (plain.user, plain.workdir, plain.stop_signal, plain.hostname) == ("", "/", "SIGTERM", "web")
    assert plain.env == {"PATH": config.PATH}
    assert made(PLAIN, mode=ctr.Mode.HYBRID_NATIVE).stop_signal == "SIGRTMIN+3"


def test_a_terminal_has_a_type() -> None:
    assert made(tty=True).env["TERM"] == "xterm"
    assert made(tty=True, env={"TERM": "dumb"}).env["TERM"] == "dumb"
    assert "TERM" not in made().env


def test_each_container_has_an_id_of_its_own() -> None:
    assert made().id != made().id


def test_the_launcher_takes_what_is_written(tmp_path: Path) -> None:
    places = Places(containers=str(tmp_path))
    (tmp_path / "web").mkdir()
    spec = ctr.Spec(
        image="web",
        binds=[ctr.Bind("/srv/data", "/data", True)],
        tmpfs=["/tmp"],
        capabilities=["CAP_NET_ADMIN", "CAP_CHOWN", "CAP_NET_ADMIN"],
        resources=ctr.Resources(memory_max=1 << 30, cpu_percent=150),
        labels={"a": "b"},
        env={"LINES": "one\ntwo", "UTF": "ü"},
    )
    written = config.of_spec("web", 1000, spec, WEB, VIEW)
    config.write(places.home("web"), written, spec)
    taken = launcher.load(places.containers, "web", None)
    assert taken.args == written.args
    assert taken.env == written.env
    assert [bind.asdict() for bind in taken.binds] == [{"source": "/srv/data", "target": "/data", "read_only": True}]
    assert list(taken.root.asdict().values()) == [0o1777, 1, 2, 1_500_000_000_123_456_789]
    assert taken.resources.memory_max == 1 << 30
    assert taken.capabilities == ["CAP_CHOWN", "CAP_NET_ADMIN"]


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    places = Places(containers=str(tmp_path))
    (tmp_path / "web").mkdir()
    spec = ctr.Spec(image="web")
    written = config.of_spec("web", 1000, spec, WEB, VIEW)
    config.write(places.home("web"), written, spec)
    assert config.read(places, "web") == written
    assert config.read_spec(places, "web") == spec


def test_a_start_has_the_streams_that_it_was_asked_with(tmp_path: Path) -> None:
    places = Places(containers=str(tmp_path))
    (tmp_path / "web").mkdir()
    written = config.of_spec("web", 1000, ctr.Spec(image="web"), WEB, VIEW)
    config.write(places.home("web"), written, ctr.Spec(image="web"))
    now: config.Config | None = written
    for streams in ("journal", "handover", "handover", "journal", "handover", "journal"):
        assert now is not None
        config.set_streams(places, now, streams)
        now = config.read(places, "web")
        assert now == config.with_streams(written, streams)


def test_a_container_that_is_not_there_is_none_and_a_damaged_one_says_so(tmp_path: Path) -> None:
    places = Places(containers=str(tmp_path))
    assert config.read(places, "web") is None
    (tmp_path / "web").mkdir()
    with pytest.raises(Invalid, match="no config"):
        config.read(places, "web")
    (tmp_path / "web" / "config.json").write_text(json.dumps({"version": 1}))
    with pytest.raises(Invalid, match="damaged"):
        config.read(places, "web")
    assert config.read_spec(places, "web") is None
