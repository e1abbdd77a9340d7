"""What a verb imports is what it costs: the quick ones stay clear of everything that is not quick."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SITE = sysconfig.get_path("purelib")
SLOW = {"zmq", "asyncio", "argparse", "msgspec", "msgpack", "jeepney", "typing", "inspect", "dataclasses", "yaml"}
SLOW |= {"subprocess", "logging", "re", "pathlib", "tempfile", "datetime", "volt_common"}

SCRIPT = """
import sys, io
sys.path[:0] = [{cli!r}, {common!r}, {site!r}]
from volt.main import main
before = sys.stdout, sys.stderr
sys.stdout = sys.stderr = io.StringIO()
{prepare}
code = main({words!r})
sys.stdout, sys.stderr = before
print(code)
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
print(*sorted(name for name in sys.modules if name.startswith("volt.")))
"""


def modules(words, prepare=""):
    script = SCRIPT.format(cli=str(ROOT / "cli"), common=str(ROOT / "common"), site=SITE, words=words, prepare=prepare)
    # -S as well: what site-packages' own .pth files import is not this command's doing
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    code, tops, ours = done.stdout.splitlines()
    return int(code), set(tops.split()), set(ours.split())


def test_version_imports_nothing_slow():
    code, tops, ours = modules(["version"])
    assert code == 0
    assert tops & (SLOW | {"json"}) == set()
    assert ours == {"volt.main", "volt.options", "volt.settings", "volt.host", "volt.host.version"}


def test_ps_imports_nothing_slow():
    code, tops, ours = modules(
        ["ps"],
        "from volt import systembus; systembus.list_units = lambda patterns, bus='': [systembus.Unit(*5 * ['x'])]",
    )
    assert code == 0
    assert tops & SLOW == set()
    assert not any(name.startswith("volt.container.") for name in ours)


def test_a_verb_brings_no_other_verb():
    ours = modules(["container", "stop", "--help"])[2]
    assert {name for name in ours if name.startswith("volt.container.")} == {
        "volt.container.stop",
        "volt.container.rows",
    }


@pytest.mark.parametrize("words", [["ps", "--help"], ["top", "--help"], ["completion", "bash"], ["logs", "--help"]])
def test_no_verb_without_a_daemon_imports_the_protocol(words):
    code, tops, _ = modules(words)
    assert code == 0
    assert tops & {"zmq", "msgspec", "asyncio", "volt_common"} == set()
