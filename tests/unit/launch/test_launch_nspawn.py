"""Nothing of a configuration becomes an option of systemd-nspawn."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from volt_ctr_launch import config, nspawn
from volt_ctr_launch.binds import Staged
from volt_ctr_launch.image import User
from volt_ctr_launch.paths import Layout

Config = dict[str, object]
ROOT = User(0, 0, [0], "/root")


def command(valid: Config, change: Config, binds: list[Staged] | None = None) -> list[str]:
    return nspawn.command(Layout(), config.parse(valid | change, "web"), 524288, {}, binds or [], [])


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
    assert "--chdir=/-x --y" in argv


def test_a_colon_or_backslash_in_a_path_ends_no_field(valid: Config) -> None:
    staged = [Staged("/run/volt-launch/web/binds/0", "/a:/etc:rbind\\", False)]
    argv = command(valid, {"tmpfs": ["/b:mode=0"]}, staged)
    assert "--bind=/run/volt-launch/web/binds/0:/a\\:/etc\\:rbind\\\\:norbind" in argv
    assert "--tmpfs=/b\\:mode=0:mode=1777" in argv


def test_no_variable_is_on_the_command_line(valid: Config, layout: Layout) -> None:
    os.makedirs(layout.root("web"))
    found = config.parse(valid | {"env": {"TOKEN": "hunter2", "B": "\\x\"'%i; #"}}, "web")
    values = nspawn.variables(found, ROOT)
    argv = nspawn.command(layout, found, 524288, values, [], [])
    assert not any("hunter2" in argument or "TOKEN" in argument for argument in argv)
    nspawn.write_settings(layout, found, values)
    path = Path(layout.root("web"), f"{found.id}.nspawn")
    assert path.stat().st_mode & 0o777 == 0o600
    lines = path.read_text().splitlines()
    assert lines[0] == "[Exec]"
    assert [shlex.split(line)[0].removeprefix("Environment=") for line in lines[1:2]] == ["HOME=/root"]
    assert lines[-1] == """Environment="B=\\x"'"'"'%i; #\""""


@pytest.mark.parametrize("end", ["\r", "\n", "\0"])
def test_no_home_of_the_containers_ends_a_line(valid: Config, layout: Layout, end: str) -> None:
    os.makedirs(layout.root("web"))
    values = nspawn.variables(config.parse(valid, "web"), User(0, 0, [0], f"/r{end}PivotRoot=/link/usr{end}"))
    nspawn.write_settings(layout, config.parse(valid, "web"), values)
    assert os.listdir(layout.root("web")) == []


def test_the_shown_command_tells_no_value(valid: Config, layout: Layout) -> None:
    found = config.parse(valid | {"env": {"TOKEN": "hunter2\n=x"}}, "web")
    argv = nspawn.command(layout, found, 524288, nspawn.variables(found, ROOT), [], [])
    assert "--setenv=TOKEN" in nspawn.shown(argv)
    assert not any("hunter2" in word for word in nspawn.shown(argv))


def test_capabilities_asked_for_in_any_order_are_the_same(valid: Config) -> None:
    asked = ["CAP_SYS_PTRACE", "CAP_IPC_LOCK"]
    several = [config.parse(valid | {"capabilities": names}, "web") for names in (asked, asked[::-1], asked * 3)]
    assert len({tuple(nspawn.capabilities(found)) for found in several}) == 1


def test_a_value_with_a_line_break_is_in_no_settings_file(valid: Config, layout: Layout) -> None:
    os.makedirs(layout.root("web"))
    found = config.parse(valid | {"env": {"A": 'x"\n[Files]\nBind=/', "B": "y"}}, "web")
    values = nspawn.variables(found, ROOT)
    nspawn.write_settings(layout, found, values)
    assert os.listdir(layout.root("web")) == []
    argv = nspawn.command(layout, found, 524288, values, [], [])
    assert '--setenv=A=x"\n[Files]\nBind=/' in argv
    assert "--setenv=B=y" in argv


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
