"""Names that are made up are valid, and nobody else's."""

from __future__ import annotations

import os
import random

import msgspec
import pytest

from volt_common.api.base import Name
from volt_ctrd import files, names
from volt_ctrd.files import Places
from volt_ctrd.units import container_of, container_unit, exec_unit, op_unit


def test_every_word_makes_a_valid_name() -> None:
    for adjective in names.ADJECTIVES:
        msgspec.convert(f"{adjective}-x", type=Name)
    for noun in names.NOUNS:
        msgspec.convert(f"x-{noun}", type=Name)


def test_a_thousand_names_are_all_different() -> None:
    taken: set[str] = set()
    choose = random.Random(1)
    for _ in range(1000):
        name = names.made_up(taken.__contains__, choose)
        msgspec.convert(name, type=Name)
        assert name not in taken
        taken.add(name)


def test_if_everything_is_taken_that_is_an_error_and_no_endless_search() -> None:
    with pytest.raises(RuntimeError):
        names.made_up(lambda _: True, random.Random(1))


def test_a_unit_names_its_container_and_no_other_unit_does() -> None:
    for name in ("a", "web", "web-1", "0", "a" * 63):
        assert container_of(container_unit(name)) == name
    for other in (
        op_unit("web", "0" * 16),
        exec_unit("web", "0" * 16),
        "volt-container@.service",
        "volt-container@-a.service",
        "volt-container@a_b.service",
        "volt-container@a.service\n",
        f"volt-container@{'a' * 64}.service",
        "x-volt-container@a.service",
    ):
        assert container_of(other) is None


def test_only_directories_with_a_containers_name_are_containers(places: Places) -> None:
    for name in ("web", "web-1", ".new-db-0011223344556677", ".old-db-0011223344556677", "lost+found", "Web"):
        os.mkdir(f"{places.containers}/{name}")
    assert files.names(places) == ["web", "web-1"]
