"""What can't work is refused when a container is made, not when it starts."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from volt_common.api import ctr
from volt_common.errors import Denied, Invalid
from volt_ctr_launch import config as launcher
from volt_ctrd import precheck
from volt_ctrd.precheck import Policy


def check(policy: Policy | None = Policy(), **asked: object) -> None:
    precheck.check(ctr.Spec(image="web", **asked), policy)  # type: ignore[arg-type]


def policy(tmp_path: Path, text: str) -> Policy | None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return precheck.load(str(path))


def test_an_ordinary_container_passes() -> None:
    check()
    check(binds=[ctr.Bind("/srv/x", "/x")], tmpfs=["/tmp", "/run"], stop_signal="HUP")


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"stop_signal": "SIGNONE"}, "no signal SIGNONE"),
        ({"binds": [ctr.Bind("/srv/../etc", "/x")]}, r"may not hold \.\."),
        ({"binds": [ctr.Bind("/srv/x", "/y/../x")]}, r"may not hold \.\."),
        ({"tmpfs": ["/"]}, "over the container's root"),
        ({"tmpfs": ["/./"]}, "over the container's root"),
        ({"tmpfs": ["/x"], "binds": [ctr.Bind("/srv/x", "/x/")]}, "two mounts on /x"),
        ({"mode": ctr.Mode.HYBRID_NATIVE, "user": "www"}, "runs as root inside"),
        ({"mode": ctr.Mode.HYBRID_NATIVE, "entrypoint": ["/x"]}, "no entrypoint"),
        ({"resources": ctr.Resources(memory_max=1 << 20, memory_high=1 << 21)}, "above memory_max"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked: dict[str, object], what: str) -> None:
    with pytest.raises(Invalid, match=what):
        check(**asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"network": ctr.Network.HOST},
        {"capabilities": ["CAP_SYS_ADMIN"]},
        {"binds": [ctr.Bind("/etc", "/x")]},
        {"binds": [ctr.Bind("/srvice", "/x")]},
        {"binds": [ctr.Bind("/", "/x")]},
    ],
)
def test_the_default_policy_allows_little(asked: dict[str, object]) -> None:
    with pytest.raises(Denied, match=r"policy\.toml"):
        check(**asked)


def test_the_policy_file_counts(tmp_path: Path) -> None:
    wide = policy(
        tmp_path,
        """[host]
        networks = ["none", "host"]
        [binds]
        allow = ["/"]
        deny = ["/etc"]
        root_binds = true
        [capabilities]
        allow = ["CAP_NET_ADMIN"]
        [ids]
        base = 65536""",
    )
    check(wide, network=ctr.Network.HOST, capabilities=["CAP_NET_ADMIN"], binds=[ctr.Bind("/opt", "/x")])
    with pytest.raises(Denied):
        check(wide, binds=[ctr.Bind("/etc/passwd", "/x")])
    with pytest.raises(Denied):
        check(wide, capabilities=["CAP_SYS_ADMIN"])


def test_a_policy_that_cannot_be_used_is_left_to_the_launcher(tmp_path: Path) -> None:
    for text in ("[host", 'host = "x"', "[binds]\nallow = [1]"):
        broken = policy(tmp_path, text)
        assert broken is None
        check(broken, network=ctr.Network.HOST)
    assert precheck.load(str(tmp_path / "none")) == Policy()


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "15", "SIGRTMIN+3", "RTMIN+3", "RTMAX-2", "SIGKILL", "USR1", "34"])
def test_a_signal_is_the_same_to_us_and_to_the_launcher(name: str) -> None:
    number = precheck.signal_number(name)
    assert number == launcher.signal_number(name)
    assert precheck.signal_number(precheck.signal_name(number)) == number


@pytest.mark.parametrize("name", ["", "0", "SIG", "65", "32", "SIGRTMIN+40", "SIGRTMIN-1", "RTMAX+1", "sigterm"])
def test_what_is_no_signal_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        precheck.signal_number(name)


def test_the_first_real_time_signal_has_a_name() -> None:
    assert precheck.signal_name(precheck.signal_number(str(int(signal.SIGRTMIN)))) == "SIGRTMIN"
