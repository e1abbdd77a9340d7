"""A container's range of host ids is its own for as long as anything of it exists."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from volt_ctr_launch import ids
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.paths import Layout
from volt_ctr_launch.policy import Policy


def given(layout: Layout, name: str, rules: Policy = Policy()) -> int:
    os.makedirs(layout.root(name), exist_ok=True)
    return ids.allocate(layout, rules, name)


def test_ranges_are_distinct_and_kept(layout: Layout) -> None:
    bases = [given(layout, name) for name in ("a", "b", "c")]
    assert len(set(bases)) == 3
    assert all(base % ids.COUNT == 0 for base in bases)
    assert [given(layout, name) for name in ("a", "b", "c")] == bases


def test_a_freed_range_is_given_again(layout: Layout) -> None:
    first = given(layout, "a")
    given(layout, "b")
    os.unlink(f"{layout.root('a')}/idmap")
    assert given(layout, "c") == first


def test_when_all_are_given_the_next_is_refused(layout: Layout) -> None:
    rules = Policy(id_ranges=2)
    given(layout, "a", rules)
    given(layout, "b", rules)
    with pytest.raises(Refusal) as caught:
        given(layout, "c", rules)
    assert caught.value.code == "EXHAUSTED"


def test_ranges_of_the_hosts_own_users_are_left_to_them(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_subordinate", lambda _path: [(524288 + 100, 524288 + 65536 + 100)])
    assert given(layout, "a") == 524288 + 2 * ids.COUNT


def test_many_at_once_get_each_their_own(layout: Layout) -> None:
    children = []
    for number in range(12):
        pid = os.fork()
        if pid == 0:
            given(layout, f"c{number}")
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 12
    assert len({ids.base_of(layout, f"c{number}") for number in range(12)}) == 12


def children() -> str:
    """The pids of this thread's children, zombies among them."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def test_a_user_namespace_is_made_with_its_map_and_no_process_left(tmp_path: Path) -> None:
    before = children()
    namespace = ids.user_namespace([(0, 524288, 65536)], [(0, 524288, 65536)])
    try:
        assert stat.S_ISREG(os.fstat(namespace).st_mode)
        assert children() == before
    finally:
        os.close(namespace)
