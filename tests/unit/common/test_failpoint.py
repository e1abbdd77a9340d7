"""A failpoint does what VOLT_FAILPOINT says, at the place it names, and otherwise nothing."""

import os
import subprocess
import sys

import pytest

from volt_common import failpoint

CODE = """
from volt_common.failpoint import point
for number in range(3):
    try:
        point("build.after-sync")
    except OSError as error:
        print("error", error.errno)
    print(number, flush=True)
point("build.before-ref")
print("end", flush=True)
"""


def run(variable):
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if variable is not None:
        environment["VOLT_FAILPOINT"] = variable
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.split("\n")[:-1]


@pytest.mark.parametrize("variable", [None, "", "another.place=kill"])
def test_nothing_happens_without_its_name(variable):
    assert run(variable) == (0, ["0", "1", "2", "end"])


def test_kill_leaves_the_process_no_time():
    assert run("build.after-sync=kill") == (-9, [])


def test_a_count_waits_for_that_pass():
    assert run("build.after-sync:3=exit") == (failpoint.STATUS, ["0", "1"])


def test_an_error_is_raised_from_then_on():
    assert run("build.after-sync:2=error") == (0, ["0", "error 5", "1", "error 5", "2", "end"])


def test_several_points_can_be_armed():
    assert run("build.after-sync:9=kill,build.before-ref=exit") == (failpoint.STATUS, ["0", "1", "2"])


@pytest.mark.parametrize("text", ["x", "x=", "x=boom", "=kill", "x:0=kill", "x:a=kill", "x:-1=kill"])
def test_what_it_does_not_understand_is_refused(text):
    with pytest.raises(ValueError, match="a failpoint is"):
        failpoint.parse(text)
