"""The policy bounds every configuration, and is nothing but root's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from volt_ctr_launch import config, policy
from volt_ctr_launch.config import Resources
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.policy import Policy

Config = dict[str, object]
SHIPPED = Path(__file__).parents[3] / "units/etc/policy.toml"


def test_the_shipped_file_says_what_the_defaults_are() -> None:
    assert policy.load(str(SHIPPED)) == Policy()


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert policy.load(str(tmp_path / "none")) == Policy()


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("")
    for mode, owner in ((0o666, 0), (0o644, 1000)):
        os.chmod(path, mode)
        os.chown(path, owner, 0)
        with pytest.raises(Refusal, match="only root"):
            policy.load(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "[hosts]",
        "[host]\nnetwork = ['none']",
        "[host]\nnetworks = ['bridge']",
        "[binds]\nallow = ['srv']",
        "[binds]\nroot_binds = 1",
        "[capabilities]\nallow = ['all']",
        "[ids]\nbase = 0",
        "[ids]\nbase = 524289",
        "[ids]\nbase = 2147418112\nranges = 2",
        "[limits]\npids_max = 0",
        "host = 1",
        "not toml",
    ],
)
def test_a_mistake_refuses_every_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(Refusal) as caught:
        policy.load(str(path))
    assert caught.value.code == "INVALID"


@pytest.mark.parametrize(
    "change",
    [
        {"network": "host"},
        {"capabilities": ["CAP_SYS_ADMIN"]},
        {"binds": [{"source": "/etc", "target": "/x", "read_only": True}]},
        {"binds": [{"source": "/", "target": "/x", "read_only": True}]},
        {"binds": [{"source": "/srvother", "target": "/x", "read_only": True}]},
        {"resources": {"pids_max": 16385}},
    ],
)
def test_what_is_not_allowed_is_denied(valid: Config, change: Config) -> None:
    with pytest.raises(Refusal) as caught:
        policy.check(config.parse(valid | change, "web"), Policy())
    assert caught.value.code == "DENIED"


def test_a_denied_place_is_taken_out_of_an_allowed_one() -> None:
    rules = Policy(bind_allow=("/srv",), bind_deny=("/srv/secret",))
    policy.check_bind("/srv/public", rules)
    for path in ("/srv/secret", "/srv/secret/x"):
        with pytest.raises(Refusal):
            policy.check_bind(path, rules)


def test_who_asks_for_no_limit_gets_the_hosts() -> None:
    rules = Policy(memory_max=1 << 30, pids_max=100)
    assert policy.bounded(Resources(), rules) == Resources(memory_max=1 << 30, pids_max=100)
    assert policy.bounded(Resources(pids_max=5), rules).pids_max == 5
    with pytest.raises(Refusal, match="memory"):
        policy.check_limits(Resources(memory_max=2 << 30), rules)
