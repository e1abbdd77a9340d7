"""A daemon's uid has its row of casd's calls and its own refs, and nobody else's."""

from __future__ import annotations

import pytest

from volt_casd.roles import NAMESPACES, ROWS, Namespaces
from volt_common.api import cas
from volt_common.errors import Denied


def test_a_daemon_changes_refs_in_its_own_namespace_only() -> None:
    namespaces = Namespaces({100: NAMESPACES["volt-ctr"], 200: NAMESPACES["volt-registry"]})
    namespaces.check(100, "containers/web")
    namespaces.check(200, "registry/app/v1")
    namespaces.check(200, "images/app/v1")
    for uid, ref in ((100, "images/debian/12"), (100, "containers"), (100, "containersx/y"), (200, "containers/web")):
        with pytest.raises(Denied, match=ref):
            namespaces.check(uid, ref)


def test_people_and_calls_without_a_ref_are_not_bound() -> None:
    namespaces = Namespaces({100: ("containers/",)})
    namespaces.check(1000, "images/debian/12")
    namespaces.check(0, "images/debian/12")
    namespaces.check(100, None)


def test_ctrd_stores_nothing_and_checks_nothing() -> None:
    assert not {cas.Put, cas.Build, cas.BuildTar, cas.BuildLayers, cas.Verify} & set(ROWS["volt-ctr"])


def test_every_daemon_that_may_change_refs_has_its_namespace() -> None:
    for user, row in ROWS.items():
        if {cas.RefSet, cas.RefDelete, cas.Put, cas.Build, cas.BuildTar, cas.BuildLayers} & set(row):
            assert user in NAMESPACES
