"""A container is there whole or not at all, wherever ctrd is killed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from volt_common.api import cas, ctr
from volt_common.errors import AlreadyExists
from volt_ctrd import config, files, homes
from volt_ctrd.files import Places
from volt_ctrd.images import Image

SPEC = ctr.Spec(image="web", args=["/bin/true"])
VIEW = cas.ViewReady("ab" * 32, cas.Form.FULL, 8192, "cd" * 32, 0o40755, 0, 0, 0)
CONFIG = config.of_spec("web", 1000, SPEC, Image("ab" * 32), VIEW)

KILLED = """
import sys
from volt_ctrd import homes
from volt_ctrd.files import Places
sys.path.insert(0, {tests!r})
from test_homes import CONFIG, SPEC
places = Places(containers={containers!r})
with homes.staged(places, "web") as stage:
    stage.write(CONFIG, SPEC)
    stage.publish()
homes.clear(homes.retire(places, "web"))
"""


def made(places: Places) -> None:
    with homes.staged(places, "web") as stage:
        stage.write(CONFIG, SPEC)
        stage.publish()


def test_what_is_published_is_a_container_and_nothing_else_is_left(places: Places) -> None:
    made(places)
    assert os.listdir(places.containers) == ["web"]
    assert config.read(places, "web") == CONFIG


def test_what_is_given_up_leaves_nothing(places: Places) -> None:
    with homes.staged(places, "web"):
        assert files.names(places) == []
        assert len(os.listdir(places.containers)) == 1
    assert os.listdir(places.containers) == []


def test_a_name_is_taken_once(places: Places) -> None:
    made(places)
    with pytest.raises(AlreadyExists):
        made(places)
    assert os.listdir(places.containers) == ["web"]


def test_what_is_deleted_is_gone(places: Places) -> None:
    made(places)
    leftover = homes.retire(places, "web")
    assert files.names(places) == []
    assert homes.leftovers(places) == [leftover]
    homes.clear(leftover)
    assert os.listdir(places.containers) == []


@pytest.mark.parametrize(
    ("point", "there"),
    [
        ("create.before-rename", False),
        ("create.after-rename", True),
        ("delete.before-rename", True),
        ("delete.after-rename", False),
    ],
)
def test_killed_at_any_step_it_is_there_or_not_and_the_rest_is_found(places: Places, point: str, there: bool) -> None:
    program = KILLED.format(tests=os.path.dirname(__file__), containers=places.containers)
    environment = os.environ | {"VOLT_FAILPOINT": f"{point}=kill", "PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run([sys.executable, "-c", program], env=environment, check=False, timeout=60)
    assert result.returncode == -9
    assert files.names(places) == (["web"] if there else [])
    if there:
        now = config.read(places, "web")
        assert now == CONFIG or (now is not None and now.args == CONFIG.args)
    leftovers = homes.leftovers(places)
    assert [leftover.name for leftover in leftovers] == ([] if there else ["web"])
    for leftover in leftovers:
        homes.clear(leftover)
    assert os.listdir(places.containers) == (["web"] if there else [])
