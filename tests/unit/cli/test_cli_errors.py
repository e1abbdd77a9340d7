"""What goes wrong: one line that says what to do, and the right exit status."""

import errno
import json

import pytest

from volt.failure import known_error, line
from volt.main import main
from volt.near import nearest
from volt_common.errors import VoltError


def fails(words, capsys):
    code = main(words)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("volt: ")
    assert err.count("\n") == 1
    return code, err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["pss"], "`ps`"),
        (["strat", "web"], "`start`"),
        (["contianer", "list"], "`container`"),
        (["container", "lst"], "`list`"),
        (["image", "imprt", "x", "y"], "`import`"),
        (["ps", "--sotr", "name"], "`--sort`"),
        (["run", "--moed", "x", "img"], "`--mode`"),
        (["ps", "-o", "jsn"], "`json`"),
    ],
)
def test_an_unknown_word_suggests_the_nearest(words, hint, capsys):
    code, err = fails(words, capsys)
    assert code == 2
    assert hint in err


@pytest.mark.parametrize("words", [[], ["container"], ["stop"], ["version", "x"], ["version", "--dry-run"], ["zzzzzz"]])
def test_a_wrong_command_line_is_exit_2(words, capsys):
    assert fails(words, capsys)[0] == 2


@pytest.mark.parametrize(
    "words",
    [
        ["stop", "web"],
        ["container", "list"],
        ["run", "img"],
        ["events"],
        ["cas", "status"],
        ["image", "list"],
        ["exec", "a", "b"],
    ],
)
def test_a_dead_daemon_is_exit_6_and_names_its_socket(words, capsys, tmp_path):
    code, err = fails(["--host", str(tmp_path), *words], capsys)
    assert code == 6
    assert "systemctl" in err


@pytest.mark.parametrize(
    "words",
    [
        ["stop", "Web_1"],
        ["run", "--name", "x" * 64, "img"],
        ["run", "Bad Image"],
        ["run", "-m", "1", "img"],
        ["run", "--cap-add", "no-such", "img"],
        ["run", "--hostname", "UPPER", "img"],
        ["run", "-w", "relative", "img"],
        ["kill", "-s", "SIG KILL", "web"],
        ["image", "delete", "a b"],
        ["cas", "refs", "x" * 600],
        ["cas", "put", "--ref", "../x", "/etc/hostname"],
    ],
)
def test_a_value_that_no_daemon_would_take_is_exit_12_before_any_is_asked(words, capsys, tmp_path):
    code, err = fails(["--host", str(tmp_path), *words], capsys)
    assert code == 12, err


def test_a_missing_file_is_exit_3(capsys, tmp_path):
    assert fails(["--host", str(tmp_path), "image", "import", "x", str(tmp_path / "none")], capsys)[0] == 3
    assert fails(["--host", str(tmp_path), "cas", "put", str(tmp_path / "none")], capsys)[0] == 3
    assert fails(["--host", str(tmp_path), "run", "-v", f"{tmp_path}/none:/x", "img"], capsys)[0] == 3


def test_every_name_is_tried_and_the_first_error_is_the_status(capsys, tmp_path):
    code = main(["--host", str(tmp_path), "stop", "Bad_1", "web"])
    err = capsys.readouterr().err
    assert code == 12
    assert err.startswith("volt: stop Bad_1: ")
    assert "\nvolt: stop web: " in err


def test_json_output_makes_errors_objects(capsys, tmp_path):
    assert main(["-o", "json", "--host", str(tmp_path), "cas", "status"]) == 6
    told = json.loads(capsys.readouterr().err)
    assert set(told) == {"error"}
    assert set(told["error"]) == {"code", "name", "message", "hint"}
    assert told["error"]["name"] == "ERR_UNREACHABLE"
    assert main(["-o", "json", "pss"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["name"] == "ERR_USAGE"


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.ENOENT, 3),
        (errno.EACCES, 5),
        (errno.EPERM, 5),
        (errno.ECONNREFUSED, 6),
        (errno.ETIMEDOUT, 7),
        (errno.ENETUNREACH, 8),
        (errno.ENOSPC, 11),
        (errno.EMFILE, 11),
        (errno.EDQUOT, 11),
        (errno.EIO, 1),
    ],
)
def test_the_system_s_errors_have_their_status(number, status):
    error = known_error(OSError(number, "why", "/some/file"))
    assert error.exit == status
    assert "/some/file" in error.message


def test_an_interrupt_is_exit_13():
    error = known_error(KeyboardInterrupt("SIGTERM"))
    assert (error.exit, error.message) == (13, "interrupted by SIGTERM")
    assert known_error(KeyboardInterrupt()).message == "interrupted by SIGINT"


def test_a_fault_of_ours_is_exit_1_and_one_line():
    error = known_error(ZeroDivisionError("division\nby zero"))
    assert error.exit == 1
    assert "\n" not in line(error, "ps", error.hint)


def test_hostile_text_neither_breaks_the_line_nor_paints_the_terminal():
    text = line(VoltError("bad \x1b[31mname\nvolt: all is well"), "stop web", "")
    assert "\x1b" not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [
        ("sotp", ["stop", "start"], "stop"),
        ("insp", ["inspect", "image"], "inspect"),
        ("l", ["ls", "list"], "ls"),
        ("xyzzy", ["stop", "start"], None),
        ("", ["stop"], None),
        ("lgos", ["logs", "exec"], "logs"),
    ],
)
def test_nearest(word, known, found):
    assert nearest(word, known) == found
