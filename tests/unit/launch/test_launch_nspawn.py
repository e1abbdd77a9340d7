"""Nothing of a configuration becomes an option of systemd-nspawn."""

from __future__ import annotations

import subprocess

import pytest

from volt_ctr_launch import config, nspawn
from volt_ctr_launch.binds import Staged
from volt_ctr_launch.image import User
from volt_ctr_launch.paths import Layout

Config = dict[str, object]
ROOT = User(0, 0, [0], "/root")


def command(valid: Config, change: Config, binds: list[Staged] | None = None) -> list[str]:
    return nspawn.command(Layout(), config.parse(valid | change, "web"), 524288, ROOT, binds or [], []).argv


def test_what_the_payload_is_told_comes_after_the_end_of_options(valid: Config) -> None:
    argv = command(valid, {"args": ["--bind=/", "-U", "--", "x"]})
    end = argv.index("--")
    assert argv[end:] == ["--", "/run/.volt/init", "--", "--bind=/", "-U", "--", "x"]
    assert all(argument.startswith("--") for argument in argv[1:end])


def test_a_booted_one_gets_its_arguments_the_same_way(valid: Config) -> None:
    argv = command(valid, {"mode": "hybrid-native", "args": ["--privileged"]})
    assert argv[-3:] == ["--boot", "--", "--privileged"]
    assert "--notify-ready=yes" in argv


def test_values_stay_in_their_own_argument(valid: Config) -> None:
    argv = command(valid, {"env": {"A": "--capability=all\n--bind=/"}, "workdir": "/-x --y", "hostname": "h"})
    assert "--setenv=A=--capability=all\n--bind=/" in argv
    assert "--chdir=/-x --y" in argv


def test_a_colon_or_backslash_in_a_path_ends_no_field(valid: Config) -> None:
    staged = [Staged("/run/volt-launch/web/binds/0", "/a:/etc:rbind\\", False)]
    argv = command(valid, {"tmpfs": ["/b:mode=0"]}, staged)
    assert "--bind=/run/volt-launch/web/binds/0:/a\\:/etc\\:rbind\\\\:norbind" in argv
    assert "--tmpfs=/b\\:mode=0:mode=1777" in argv


def test_the_shown_command_tells_no_value_of_a_variable(valid: Config) -> None:
    found = config.parse(valid | {"env": {"TOKEN": "hunter2"}}, "web")
    shown = nspawn.command(Layout(), found, 524288, ROOT, [], []).shown
    assert "--setenv=TOKEN" in shown
    assert not any("hunter2" in argument for argument in shown)


def test_capabilities_are_few_unless_asked_for(valid: Config) -> None:
    dropped = next(a for a in command(valid, {}) if a.startswith("--drop-capability="))
    for name in ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_LINUX_IMMUTABLE", "CAP_SYS_BOOT"):
        assert name in dropped
    for name in ("CAP_CHOWN", "CAP_SETUID", "CAP_NET_RAW", "CAP_SYS_CHROOT"):
        assert name not in dropped
    wanted = command(valid, {"capabilities": ["CAP_SYS_PTRACE"]})
    assert "--capability=CAP_SYS_PTRACE" in wanted
    assert "CAP_SYS_PTRACE" not in next(a for a in wanted if a.startswith("--drop-capability="))


@pytest.mark.parametrize(("name", "shown"), [("TERM", "15"), ("SIGRTMIN+3", "SIGRTMIN+3"), ("RTMAX", "SIGRTMIN+30")])
def test_every_signal_has_a_name_that_nspawn_knows(valid: Config, name: str, shown: str) -> None:
    assert f"--kill-signal={shown}" in command(valid, {"stop_signal": name})


def test_a_users_command_runs_with_the_hosts_setpriv_whatever_the_image_has() -> None:
    assert nspawn.switch_user(ROOT) == ([], [])
    run, files = nspawn.switch_user(User(1000, 100, [29, 100], "/"))
    assert run[-5:] == ["--reuid=1000", "--regid=100", "--groups=29,100", "--inh-caps=-all", "--"]
    inside = {target: source for source, target in files}
    libraries = nspawn.INSIDE
    with_real_paths = [inside.get(part, part).replace(libraries, "/lib/x86_64-linux-gnu") for part in run]
    said = subprocess.run([*with_real_paths, "/usr/bin/id"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("uid=1000")
    assert "gid=100" in said
