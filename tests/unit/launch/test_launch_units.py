"""The units say what the specification says: who is what, and what a daemon may ask of systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[3] / "units"
RULE = (UNITS / "polkit-1/rules.d/50-volt.rules").read_text()


def own() -> re.Pattern[str]:
    """The rule's expression, put together as its own JavaScript does."""
    name = re.search(r'var name = "([^"]*)";', RULE)
    whole = re.search(r"new RegExp\((.*)\);", RULE)
    assert name
    assert whole
    parts = [name[1] if part == "name" else part.strip('"') for part in whole[1].split(" + ")]
    return re.compile("".join(parts).replace("\\\\", "\\").replace("$", r"\Z"))


@pytest.mark.parametrize(
    "unit",
    [
        "volt-container@web.service",
        "volt-container@my-web.service",
        "volt-container-op@my-web-0123456789abcdef.service",
        "volt-exec@web-0123456789abcdef.service",
    ],
)
def test_a_daemon_may_ask_for_instances_of_its_templates(unit: str) -> None:
    assert own().match(unit)


@pytest.mark.parametrize(
    "unit",
    [
        "dbus.service",
        "volt-casd.service",
        "volt-container@.service",
        "volt-container@-x.service",
        "volt-container@a@b.service",
        "volt-container@a/b.service",
        "volt-container@a\\x2db.service",
        "volt-container@..service",
        "volt-container@web.service\n",
        "volt-container@web.timer",
        "volt-container-op@web.service",
        "volt-exec@web-0123456789ABCDEF.service",
        "xvolt-container@web.service",
        "volt-vm@web.service",
    ],
)
def test_and_for_nothing_else(unit: str) -> None:
    assert not own().match(unit)


def test_the_rule_names_no_template_that_does_not_exist() -> None:
    """On systemd 257 the name of a missing template would be a transient unit's."""
    for template in ("volt-container@", "volt-container-op@", "volt-exec@"):
        assert (UNITS / f"system/{template}.service").is_file()
    assert "set-property" not in RULE.replace("set-property least", "")


@pytest.mark.parametrize("daemon", ["casd", "ctrd"])
def test_a_daemon_is_exposed_no_more_than_it_must(daemon: str) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    path = UNITS / f"system/volt-{daemon}.service"
    said = subprocess.run(["systemd-analyze", "security", "--offline=yes", path], capture_output=True, text=True).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= 1.5


@pytest.mark.parametrize("daemon", ["casd", "ctrd"])
def test_a_daemon_is_a_user_of_its_own_and_not_root(daemon: str) -> None:
    text = (UNITS / f"system/volt-{daemon}.service").read_text()
    user = re.search(r"^User=(\S+)$", text, re.M)
    assert user
    assert re.search(rf"^u {user[1]} ", (UNITS / "sysusers.d/volt.conf").read_text(), re.M)
    assert "PrivateUsers=yes" not in text


def test_only_the_group_may_connect_and_only_root_hands_over() -> None:
    for path in (UNITS / "system").glob("*.socket"):
        text = path.read_text()
        mode, group = ("0600", "root") if "handover" in path.name else ("0660", "volt")
        assert f"SocketMode={mode}\n" in text
        assert f"SocketGroup={group}\n" in text
