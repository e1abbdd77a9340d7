"""What happens to containers, with systemd's and root's part played by a fake and the store's by real sockets."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from unit.ctrd.fake_systemd import FakeSystemd

from volt_common import failpoint
from volt_common.api import cas, ctr
from volt_common.client.asyncio import AsyncClient
from volt_common.errors import AlreadyExists, Conflict, Denied, Invalid, NotFound, VoltError
from volt_common.systemd import Systemd
from volt_ctrd.events import Events
from volt_ctrd.files import Places
from volt_ctrd.images import Store
from volt_ctrd.lifecycle import Lifecycle
from volt_ctrd.units import Units, container_unit

UNIT = container_unit("web")
SPEC = ctr.Spec(image="debian:12", args=["/bin/sleep", "inf"])
STATE = ctr.State


class Host:
    """A ctrd without its sockets, on a host of its own."""

    def __init__(self, places: Places, systemd: FakeSystemd | None = None) -> None:
        self.places = places
        self.systemd = systemd or FakeSystemd(places)
        self.events = Events()
        store = Store(places.run)
        self.ctrd = Lifecycle(places, Units(cast(Systemd, self.systemd)), store, self.events)

    async def create(self, name: str | None = "web", **asked: Any) -> ctr.Container:
        spec = ctr.Spec(image="debian:12", args=["/bin/sleep", "inf"], **asked)
        return await self.ctrd.create(name, spec, 1000)

    async def names(self) -> list[str]:
        return [container.name async for container in self.ctrd.list()]

    async def refs(self) -> list[str]:
        client = AsyncClient("casd", run=self.places.run)
        found = [ref.name async for ref in client.stream(cas.RefList(prefix="containers"))]
        await client.close()
        return found

    async def gone(self, name: str) -> None:
        """Wait till ctrd has deleted it by itself."""
        while os.path.exists(self.places.home(name)) or self.ctrd.busy:
            await asyncio.sleep(0.001)


def on(places: Places, test: Callable[[Host], Awaitable[None]]) -> None:
    async def main() -> None:
        host = Host(places)
        async with asyncio.timeout(30):
            await test(host)
        await host.ctrd.close()

    asyncio.run(main())


def test_a_container_goes_through_its_life(places: Places) -> None:
    async def test(host: Host) -> None:
        created = await host.create()
        assert (created.state, created.uid, created.exit) == (STATE.STOPPED, 1000, None)
        started = await host.ctrd.start("web")
        assert (started.state, started.id, started.id_base) == (STATE.RUNNING, created.id, 524288)
        stopped = await host.ctrd.stop("web", None)
        assert stopped.state is STATE.STOPPED
        assert stopped.exit is not None
        assert (stopped.exit.code, stopped.exit.reason) == (0, "exit")
        await host.ctrd.delete("web", force=False)
        assert await host.names() == []
        assert os.listdir(host.places.containers) == []
        assert host.systemd.ops == [{"version": 1, "op": "delete"}]

    on(places, test)


def test_it_can_be_inspected_as_it_was_asked(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create(labels={"a": "b"})
        shown = await host.ctrd.inspect("web", with_spec=True)
        assert shown.spec == ctr.Spec(image="debian:12", args=["/bin/sleep", "inf"], labels={"a": "b"})
        assert (await host.ctrd.inspect("web")).spec is None

    on(places, test)


def test_its_tree_is_held_in_the_store_as_long_as_it_is_there(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create("held")
        assert "containers/held" in await host.refs()
        await host.ctrd.delete("held", force=False)
        assert "containers/held" not in await host.refs()

    on(places, test)


def test_a_name_is_used_once_and_made_up_where_there_is_none(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()
        with pytest.raises(AlreadyExists, match="container web exists already"):
            await host.create()
        made_up = (await host.create(None)).name
        assert await host.names() == sorted(["web", made_up])

    on(places, test)


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (ctr.Spec(image="nothing"), NotFound),
        (ctr.Spec(image="debian:12"), Invalid),
        (ctr.Spec(image="debian:12", args=["x"], network=ctr.Network.HOST), Denied),
        (ctr.Spec(image=f"cas://{'12' * 32}", args=["x"]), NotFound),
    ],
)
def test_what_cannot_be_created_leaves_nothing(places: Places, asked: ctr.Spec, error: type[VoltError]) -> None:
    async def test(host: Host) -> None:
        with pytest.raises(error):
            await host.ctrd.create("nothing-left", asked, 1000)
        assert os.listdir(host.places.containers) == []
        assert "containers/nothing-left" not in await host.refs()
        await host.create("nothing-left")
        await host.ctrd.delete("nothing-left", force=False)

    on(places, test)


def test_of_two_starts_at_once_one_wins_and_the_other_conflicts(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()
        results = await asyncio.gather(*(host.ctrd.start("web") for _ in range(2)), return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Conflict", "Container"]
        with pytest.raises(Conflict, match="container web is running"):
            await host.ctrd.start("web")
        assert host.systemd.log.count(("start", UNIT)) == 1

    on(places, test)


def test_of_two_creates_at_once_one_wins(places: Places) -> None:
    async def test(host: Host) -> None:
        results = await asyncio.gather(*(host.create() for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(result, ctr.Container) for result in results) == 1
        assert await host.names() == ["web"]

    on(places, test)


def test_a_stop_may_come_into_a_start_that_hangs_which_then_fails(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()
        starting = asyncio.Event()

        async def hang(unit: str) -> None:
            starting.set()
            await host.systemd.wait(unit, lambda _: unit not in host.systemd.active)

        host.systemd.on_start = hang
        start = asyncio.create_task(host.ctrd.start("web"))
        await starting.wait()
        assert (await host.ctrd.inspect("web")).state is STATE.STARTING
        await host.ctrd.stop("web", None)
        await asyncio.wait({start})
        assert (await host.ctrd.inspect("web")).state is STATE.STOPPED

    on(places, test)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [("DENIED", Denied, 125), ("INVALID", Invalid, 127), ("NO_SUCH_CODE", VoltError, 126)],
)
def test_a_start_that_the_launcher_refuses_says_why(
    places: Places, error: str, kind: type[VoltError], code: int
) -> None:
    async def test(host: Host) -> None:
        await host.create()

        async def refuse(unit: str) -> None:
            await host.systemd.end(unit, code, reason="start-failure", message="because", error=error)

        host.systemd.on_start = refuse
        with pytest.raises(kind, match="because") as raised:
            await host.ctrd.start("web")
        assert raised.value.fields["exit_code"] == code
        now = await host.ctrd.inspect("web")
        assert now.state is STATE.FAILED
        assert now.exit is not None
        assert (now.exit.code, now.exit.message) == (code, "because")

    on(places, test)


def test_a_start_that_ends_without_a_word_does_not_repeat_what_was_said_before(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()
        await host.ctrd.start("web")
        await host.systemd.end(UNIT, 3)
        with open(host.places.root_state("web"), encoding="utf-8") as file:
            before = json.load(file)

        async def vanish(unit: str) -> None:
            await host.systemd.set(unit, "inactive")
            host.systemd.record(unit, **before)

        host.systemd.on_start = vanish
        with pytest.raises(VoltError, match="job of volt-container@web"):
            await host.ctrd.start("web")

    on(places, test)


def test_a_payload_that_ends_before_its_start_is_done_was_started(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()

        async def quick(unit: str) -> None:
            await host.systemd.end(unit, 3)

        host.systemd.on_start = quick
        ended = await host.ctrd.start("web")
        assert ended.exit is not None
        assert (ended.state, ended.exit.code) == (STATE.STOPPED, 3)

    on(places, test)


def test_who_does_not_stop_in_time_is_killed(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()

        async def deaf(unit: str) -> None: ...

        host.systemd.on_stop = deaf
        await host.ctrd.start("web")
        stopped = await host.ctrd.stop("web", 0)
        assert stopped.exit is not None
        assert (stopped.exit.code, stopped.exit.signal, stopped.exit.reason) == (137, 9, "signal")
        assert ("kill", UNIT, "all", "9") in host.systemd.log

    on(places, test)


def test_who_stops_in_time_is_not_killed(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()
        await host.ctrd.start("web")
        await host.ctrd.stop("web", 3)
        assert not [entry for entry in host.systemd.log if entry[0] == "kill"]

    on(places, test)


def test_more_time_than_the_containers_own_is_waited_out_before_systemds_stop(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create(stop_seconds=1, stop_signal="SIGQUIT")
        await host.ctrd.start("web")
        stop = asyncio.create_task(host.ctrd.stop("web", 60))
        while not host.systemd.ops:
            await asyncio.sleep(0)
        assert host.systemd.ops == [{"version": 1, "op": "signal", "signal": "SIGQUIT"}]
        await host.systemd.end(UNIT, 0)
        await stop
        assert ("stop", UNIT) not in host.systemd.log

    on(places, test)


def test_stopping_what_does_not_run_changes_nothing(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()
        assert (await host.ctrd.stop("web", None)).state is STATE.STOPPED
        assert host.systemd.log == []

    on(places, test)


def test_restart_starts_what_is_stopped_and_what_runs(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()
        assert (await host.ctrd.restart("web", None)).state is STATE.RUNNING
        assert (await host.ctrd.restart("web", 0)).state is STATE.RUNNING

    on(places, test)


def test_kill_sends_a_signal_by_an_op_and_sigkill_by_systemd(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()
        with pytest.raises(Conflict, match="not running"):
            await host.ctrd.kill("web", "SIGKILL")
        await host.ctrd.start("web")
        await host.ctrd.kill("web", "HUP")
        assert host.systemd.ops == [{"version": 1, "op": "signal", "signal": "SIGHUP"}]
        with pytest.raises(Invalid):
            await host.ctrd.kill("web", "NOTHING")
        await host.ctrd.kill("web", "")
        assert host.systemd.log[-1] == ("kill", UNIT, "all", "9")

    on(places, test)


def test_an_op_that_is_refused_says_why_and_leaves_no_request(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()
        await host.ctrd.start("web")
        host.systemd.op_result = {"ok": False, "code": "DENIED", "message": "not that"}
        with pytest.raises(Denied, match="not that"):
            await host.ctrd.kill("web", "HUP")
        assert not [name for name in os.listdir(host.places.home("web")) if name.startswith("op-")]

    on(places, test)


def test_only_what_runs_is_paused_and_only_what_is_paused_resumed(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()
        with pytest.raises(Conflict, match="is stopped"):
            await host.ctrd.pause("web")
        await host.ctrd.start("web")
        await host.ctrd.pause("web")
        assert [op["op"] for op in host.systemd.ops] == ["pause"]
        with pytest.raises(Conflict, match="is running"):
            await host.ctrd.resume("web")

    on(places, test)


def test_what_runs_is_deleted_only_by_force(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()
        await host.ctrd.start("web")
        with pytest.raises(Conflict, match="container web is running: volt stop web"):
            await host.ctrd.delete("web", force=False)
        await host.ctrd.delete("web", force=True)
        assert await host.names() == []
        with pytest.raises(NotFound):
            await host.ctrd.delete("web", force=True)

    on(places, test)


def test_a_damaged_container_is_listed_and_can_be_deleted(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create("good")
        os.mkdir(host.places.home("bad"))
        with open(host.places.config("bad"), "w", encoding="utf-8") as file:
            file.write("{")
        listed = [container async for container in host.ctrd.list()]
        assert [(c.name, c.state) for c in listed] == [("bad", STATE.FAILED), ("good", STATE.STOPPED)]
        with pytest.raises(Invalid, match="volt rm bad"):
            await host.ctrd.start("bad")
        await host.ctrd.delete("bad", force=False)
        assert await host.names() == ["good"]

    on(places, test)


@pytest.mark.parametrize("call", ["start", "inspect", "pause", "wait"])
def test_who_is_not_there_is_not_found(places: Places, call: str) -> None:
    async def test(host: Host) -> None:
        with pytest.raises(NotFound, match="no container named web"):
            await getattr(host.ctrd, call)("web")

    on(places, test)


def test_wait_returns_when_it_has_ended_and_at_once_when_it_does_not_run(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create()
        with pytest.raises(Conflict, match="never started"):
            await host.ctrd.wait("web")
        await host.ctrd.start("web")
        waiting = [asyncio.create_task(host.ctrd.wait("web")) for _ in range(3)]
        await asyncio.sleep(0)
        await host.systemd.end(UNIT, 42)
        assert [(await exit).code for exit in waiting] == [42, 42, 42]
        assert (await host.ctrd.wait("web")).code == 42

    on(places, test)


def test_remove_deletes_it_when_it_has_ended_and_who_waits_gets_the_exit(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create(remove=True)
        await host.ctrd.start("web")
        assert host.ctrd.busy
        waiting = asyncio.create_task(host.ctrd.wait("web"))
        await asyncio.sleep(0)
        await host.systemd.end(UNIT, 5)
        await host.gone("web")
        assert (await waiting).code == 5
        assert (await host.ctrd.wait("web")).code == 5  # who asks late gets it too
        await host.create()
        with pytest.raises(Conflict, match="never started"):
            await host.ctrd.wait("web")

    on(places, test)


def test_remove_also_deletes_what_could_not_be_started(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create(remove=True)

        async def refuse(unit: str) -> None:
            await host.systemd.end(unit, 127, reason="start-failure", message="no such command", error="INVALID")

        host.systemd.on_start = refuse
        with pytest.raises(Invalid):
            await host.ctrd.start("web")
        await host.gone("web")

    on(places, test)


def test_remove_outlives_a_restart_of_the_container(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create(remove=True)
        await host.ctrd.start("web")
        await host.ctrd.restart("web", None)
        assert (await host.ctrd.inspect("web")).state is STATE.RUNNING
        await host.systemd.end(UNIT, 0)
        await host.gone("web")

    on(places, test)


def test_a_restart_of_ctrd_changes_nothing_and_minds_what_is_to_be_removed(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create("plain")
        await host.create("running", remove=True)
        await host.create("ended", remove=True)
        await host.create("new", remove=True)
        for name in ("plain", "running", "ended"):
            await host.ctrd.start(name)
        await host.ctrd.close()
        await host.systemd.end(container_unit("ended"), 0)
        assert await host.names() == ["ended", "new", "plain", "running"]

        after = Host(host.places, host.systemd)
        await after.ctrd.recover()
        while "ended" in await after.names():
            await asyncio.sleep(0.001)
        assert await after.names() == ["new", "plain", "running"]
        assert (await after.ctrd.inspect("plain")).state is STATE.RUNNING
        await host.systemd.end(container_unit("running"), 0)
        await after.gone("running")
        await after.ctrd.close()

    on(places, test)


def test_what_was_half_made_or_half_deleted_is_cleared_away(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create("kept")
        for name in ("half", "kept"):
            os.mkdir(f"{host.places.containers}/.new-{name}-0011223344556677")
        os.mkdir(f"{host.places.containers}/.old-gone-0011223344556677")
        store = Store(host.places.run)
        await store.hold("half", "ab" * 32)
        await store.hold("gone", "ab" * 32)
        await host.ctrd.recover()
        assert os.listdir(host.places.containers) == ["kept"]
        refs = await host.refs()
        assert "containers/kept" in refs
        assert not {"containers/half", "containers/gone"} & set(refs)

    on(places, test)


def test_without_a_store_a_container_is_deleted_and_its_ref_goes_later(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create("later")
        os.rename(f"{host.places.run}/casd.sock", f"{host.places.run}/away")
        await host.ctrd.delete("later", force=False)
        assert await host.names() == []
        await host.ctrd.recover()
        assert len(os.listdir(host.places.containers)) == 1
        os.rename(f"{host.places.run}/away", f"{host.places.run}/casd.sock")
        await host.ctrd.recover()
        assert os.listdir(host.places.containers) == []
        assert "containers/later" not in await host.refs()

    on(places, test)


def test_a_container_may_not_have_the_name_of_volts_own_directory(places: Places) -> None:
    async def test(host: Host) -> None:
        with pytest.raises(Invalid, match="Volt's own"):
            await host.create("op")

    on(places, test)


def test_a_disk_that_fails_leaves_neither_container_nor_ref(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(failpoint._armed, "create.before-rename", failpoint.parse("x=error")["x"])

    async def test(host: Host) -> None:
        with pytest.raises(VoltError, match="before-rename in"):
            await host.create("broken")
        assert os.listdir(host.places.containers) == []
        assert "containers/broken" not in await host.refs()

    on(places, test)


def test_a_create_whose_caller_goes_is_done_or_not_begun(places: Places) -> None:
    async def test(host: Host) -> None:
        for turns in range(0, 60, 3):
            task = asyncio.create_task(host.create(f"c{turns}"))
            for _ in range(turns):
                await asyncio.sleep(0.0002)
            task.cancel()
            await asyncio.wait({task})
            there = f"c{turns}" in await host.names()
            assert (f"containers/c{turns}" in await host.refs()) == there
            assert there == (not task.cancelled())
        assert not [name for name in os.listdir(host.places.containers) if name.startswith(".")]

    on(places, test)


def test_who_deletes_what_deletes_itself_finds_it_gone(places: Places) -> None:
    async def test(host: Host) -> None:
        await host.create(remove=True)
        await host.ctrd.start("web")
        results = await asyncio.gather(*(host.ctrd.delete("web", force=True) for _ in range(3)), return_exceptions=True)
        assert all(result is None or isinstance(result, (NotFound, Conflict)) for result in results)
        await host.gone("web")
        assert os.listdir(host.places.containers) == []

    on(places, test)
