"""What an image says of users and commands is read with care, and decides only what runs inside."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from volt_ctr_launch import image, kernel
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.image import User

Open = Callable[[str, int], int]


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A small root."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nshort:x:5\nhuge:x:70000:0::/:/bin/sh\n"
    )
    (tmp_path / "etc/group").write_text("root:x:0:\napp:x:1000:\naudio:x:29:other,app\nbig:x:70000:\n")
    (tmp_path / "usr/bin").mkdir(parents=True)
    for name, mode in (("run", 0o755), ("data", 0o644)):
        (tmp_path / "usr/bin" / name).write_text("x")
        (tmp_path / "usr/bin" / name).chmod(mode)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "usr/bin/absolute").symlink_to("/usr/bin/run")
    return tmp_path


@pytest.fixture
def opener(inside: Path) -> Open:
    base = os.open(inside, os.O_PATH)
    return lambda path, flags: kernel.openat2(base, path, flags, kernel.RESOLVE_IN_ROOT)


@pytest.mark.parametrize(
    ("wanted", "user"),
    [
        ("", User(0, 0, [0], "/root")),
        ("root", User(0, 0, [0], "/root")),
        ("app", User(1000, 1000, [29, 1000], "/home/app")),
        ("1000", User(1000, 1000, [29, 1000], "/home/app")),
        ("app:audio", User(1000, 29, [29], "/home/app")),
        ("app:7", User(1000, 7, [7], "/home/app")),
        ("4321", User(4321, 0, [0], "/")),
        ("4321:4322", User(4321, 4322, [4322], "/")),
    ],
)
def test_users_are_names_or_numbers_with_a_group_or_without(opener: Open, wanted: str, user: User) -> None:
    assert image.find_user(wanted, opener) == user


@pytest.mark.parametrize("home", ["/r\rPivotRoot=/x", "/r\0x", "/r\x1b[2J", "relative", "", "/" + "x" * 5000])
def test_a_home_that_is_no_path_is_not_believed(inside: Path, opener: Open, home: str) -> None:
    (inside / "etc/passwd").write_text(f"root:x:0:0:root:{home}:/bin/sh\n")
    assert image.find_user("", opener).home == "/root"


@pytest.mark.parametrize("wanted", ["nobody-here", "app:nogroup", "huge", "app:big", "70000:big"])
def test_what_is_unknown_or_beyond_the_range_is_refused(opener: Open, wanted: str) -> None:
    with pytest.raises(Refusal):
        image.find_user(wanted, opener)


@pytest.mark.parametrize("kind", ["absent", "fifo", "directory", "endless", "outside"])
def test_a_passwd_that_is_no_file_is_none(opener: Open, inside: Path, kind: str) -> None:
    path = inside / "etc/passwd"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "endless":
        with open(path, "wb") as file:
            file.truncate(1 << 40)
    elif kind == "outside":
        path.symlink_to("/../../../../../../etc/passwd")
        path.with_name("target").write_text("")
    assert image.find_user("", opener) == User(0, 0, [0], "/root")
    with pytest.raises(Refusal):
        image.find_user("root", opener)


@pytest.mark.parametrize(
    ("command", "workdir", "exit_code"),
    [
        ("run", "/", 0),
        ("absolute", "/", 0),
        ("/usr/bin/run", "/", 0),
        ("./run", "/usr/bin", 0),
        ("data", "/", 126),
        ("/usr/bin", "/", 126),
        ("nope", "/", 127),
        ("/nope", "/", 127),
        ("./run", "/", 127),
    ],
)
def test_commands_are_looked_up_as_a_shell_does(opener: Open, command: str, workdir: str, exit_code: int) -> None:
    if not exit_code:
        image.find_command(command, "/nowhere:/bin", workdir, opener)
        return
    with pytest.raises(Refusal) as caught:
        image.find_command(command, "/nowhere:/bin", workdir, opener)
    assert caught.value.exit_code == exit_code


def test_a_working_directory_must_be_one(opener: Open) -> None:
    image.check_directory("/bin", opener)
    for path in ("/nope", "/etc/passwd"):
        with pytest.raises(Refusal):
            image.check_directory(path, opener)
