"""Any order of puts, commits and aborts by several batches: what one has committed stays, what none has goes."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from unit.casd.casd_support import object_path

from volt_casd.batch import Batch
from volt_casd.store import Store

CONTENTS = [b"%d" % number for number in range(4)]
SLOTS = st.integers(0, 3)


class Batches(RuleBasedStateMachine):
    """Four batches, four contents."""

    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a syncfs there costs nothing
        self.top = Path(tempfile.mkdtemp(dir=memory))
        self.store = Store(str(self.top / "cas"))
        self.batches: list[Batch] = [self.store.batch() for _ in range(4)]
        self.held: list[set[bytes]] = [set() for _ in range(4)]
        self.digests: dict[bytes, bytes] = {}
        self.durable: set[bytes] = set()

    @rule(slot=SLOTS, data=st.sampled_from(CONTENTS))
    def put(self, slot: int, data: bytes) -> None:
        stored = self.batches[slot].put(self.store.objects, data)
        self.digests[data] = stored.digest
        assert stored.new == (data not in self.durable and not any(data in held for held in self.held))
        self.held[slot].add(data)

    @rule(slot=SLOTS)
    def commit(self, slot: int) -> None:
        self.batches[slot].commit()
        self.durable |= self.held[slot]
        self.begin(slot)

    @rule(slot=SLOTS)
    def abort(self, slot: int) -> None:
        self.batches[slot].abort()
        self.begin(slot)

    def begin(self, slot: int) -> None:
        self.batches[slot] = self.store.batch()
        self.held[slot] = set()

    @invariant()
    def the_disk_agrees(self) -> None:
        for data, digest in self.digests.items():
            path = object_path(self.store, digest)
            assert (self.store.objects.size(digest) is not None) == (data in self.durable)
            assert path.exists() == (data in self.durable or any(data in held for held in self.held))
            if path.exists():
                assert path.read_bytes() == data

    def teardown(self) -> None:
        for batch in self.batches:
            batch.abort()
        assert self.store.objects._pending == {}
        self.store.close()
        shutil.rmtree(self.top)


@pytest.mark.timeout(60)
def test_batches_in_any_order() -> None:
    run_state_machine_as_test(
        Batches,
        settings=settings(
            max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
