"""The configuration file is read, or refused in a line that says what to do."""

import os
import pathlib
import subprocess
import sys

import pytest

from volt_common import paths
from volt_common.config import Config, get, load, parse
from volt_common.errors import Invalid, NotFound


def test_without_a_file_the_defaults_hold(tmp_path):
    assert load(str(tmp_path / "none.yaml")) == Config()


@pytest.mark.parametrize("data", [b"", b"---\n", b"# nothing\n"])
def test_an_empty_file_is_the_defaults(data):
    assert parse(data) == Config()


def test_a_file_is_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("idle_seconds: 5  # short\n")
    assert load(str(path)).idle_seconds == 5


def test_the_file_that_is_installed_is_good():
    shipped = pathlib.Path(__file__).parents[3] / "units/etc/config.yaml"
    assert load(str(shipped)) == Config()


def test_an_unknown_key_is_named_with_the_file_and_the_nearest_key():
    with pytest.raises(Invalid) as error:
        parse(b"idle_second: 5", "/x/config.yaml")
    assert str(error.value) == "/x/config.yaml: no setting is called 'idle_second': did you mean idle_seconds?"


@pytest.mark.parametrize(
    "data",
    [
        b"- 1",
        b"text",
        b"idle_seconds: soon",
        b"idle_seconds: -1",
        b"idle_seconds: .nan",
        b"idle_seconds: [1]",
        b"idle_seconds:",
        b"idle_seconds: 2020-01-01",
        b"a: [",
        b"\xff\xfe\x00",
        b"\0",
        b"[" * 100000,
        b"1: 2",
        b"? [a]\n: b",
        b"x: &a [*a]",
        b"!!python/object/apply:os.system ['true']",
    ],
)
def test_a_bad_file_is_refused_in_one_line(data):
    with pytest.raises(Invalid, match=r"\A/x/config.yaml[^\n]*\Z"):
        parse(data, "/x/config.yaml")


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(Invalid, match="can't be read"):
        load(str(tmp_path))


def test_a_huge_file_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(Invalid, match="larger"):
        load(str(path))


def test_one_setting_can_be_read():
    assert get(Config(idle_seconds=5.5), "idle_seconds") == "5.5"
    with pytest.raises(NotFound, match="did you mean idle_seconds"):
        get(Config(), "idle_secs")


def test_yaml_is_not_loaded_where_there_is_no_file(tmp_path):
    load_it = f"from volt_common.config import load; load({str(tmp_path / 'none')!r})"
    code = f"import sys; {load_it}; sys.exit('yaml' in sys.modules)"
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize("module", ["errors", "paths", "failpoint", "durable", "landlock"])
def test_small_modules_load_nothing_but_the_standard_library(module):
    code = f"""
import sys
before = set(sys.modules)
import volt_common.{module}
print(*{{name.partition(".")[0] for name in set(sys.modules) - before}} - set(sys.stdlib_module_names))
"""
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout.split() == [b"volt_common"]


def test_the_sockets_are_where_the_units_have_them():
    units = pathlib.Path(__file__).parents[3] / "units/system"
    for daemon in ("casd", "ctrd"):
        assert paths.socket_path(daemon) in (units / f"volt-{daemon}.socket").read_text()
        assert paths.fd_path(daemon) in (units / f"volt-{daemon}-fd.socket").read_text()
    assert paths.socket_path("casd", "/x") == "/x/casd.sock"
