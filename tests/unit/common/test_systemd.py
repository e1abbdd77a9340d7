"""Units are started, stopped and watched over D-Bus, and neither a restart of the bus nor one of systemd loses what
was asked. The bus is a real dbus-daemon, what answers as systemd is the fake of conftest.py."""

import asyncio
import contextlib

import pytest
from jeepney import DBusAddress, HeaderFields, new_method_call, new_signal
from jeepney.io.asyncio import open_dbus_connection

import volt_common.dbus
from volt_common.errors import Conflict, Denied, Invalid, NotFound, TimedOut, Unknown, Unreachable, VoltError
from volt_common.systemd import JobFailed, Systemd, UnitState, has_ended
from volt_common.unit import escape, unescape

WEB = "volt-container@web.service"


@pytest.fixture
async def systemd(bus, fake):
    resyncs = []
    connection = Systemd(bus.address, on_resync=lambda: resyncs.append(1))
    connection.resyncs = resyncs
    await connection.connect()
    yield connection
    await connection.close()


@contextlib.asynccontextmanager
async def running(work):
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -- jobs


async def test_start_returns_when_the_job_is_done(systemd, fake):
    fake.hold.add(WEB)
    async with running(systemd.start(WEB)) as start:
        await fake.asked("StartUnit")
        await systemd.list_units([])  # the answer to StartUnit has come before this one
        assert not start.done()
        await fake.finish(WEB, active="active")
        await start
    assert ("StartUnit", (WEB, "replace")) in fake.calls


async def test_a_job_that_ends_before_the_answer_is_not_missed(systemd, fake):
    fake.early = True
    await systemd.start(WEB)
    await systemd.stop(WEB)


async def test_two_callers_of_one_job_both_hear_of_its_end(systemd, fake):
    fake.hold.add(WEB)
    async with running(systemd.start(WEB)) as one, running(systemd.start(WEB)) as two:
        await fake.asked("StartUnit", 2)
        await fake.finish(WEB)
        await asyncio.gather(one, two)


@pytest.mark.parametrize(
    ("result", "error"),
    [
        ("failed", JobFailed),
        ("dependency", JobFailed),
        ("assert", JobFailed),
        ("timeout", TimedOut),
        ("canceled", Conflict),
        ("skipped", None),
    ],
)
async def test_a_job_that_is_not_done_is_an_error_that_says_so(systemd, fake, result, error):
    fake.result = result
    if error is None:
        await systemd.start(WEB)
    else:
        with pytest.raises(error, match="volt-container@web"):
            await systemd.start(WEB)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("org.freedesktop.DBus.Error.AccessDenied", Denied),
        ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", Denied),
        ("org.freedesktop.systemd1.NoSuchUnit", NotFound),
        ("org.freedesktop.systemd1.UnitMasked", Conflict),
        ("org.freedesktop.DBus.Error.InvalidArgs", Invalid),
        ("org.freedesktop.DBus.Error.Timeout", TimedOut),
        ("org.freedesktop.DBus.Error.ServiceUnknown", Unreachable),
        ("org.freedesktop.systemd1.SomethingNew", VoltError),
    ],
)
async def test_what_systemd_refuses_is_an_error_of_ours(systemd, fake, name, error):
    fake.refuse["StartUnit"] = (name, "because")
    with pytest.raises(error) as caught:
        await systemd.start(WEB)
    assert type(caught.value) is error
    assert WEB in str(caught.value) or "because" in str(caught.value)


async def test_kill_reset_and_set_properties_arrive_as_they_were_given(systemd, fake):
    await systemd.kill(WEB, "all", 15)
    await systemd.reset_failed(WEB)
    await systemd.set_properties(WEB, [("MemoryMax", ("t", 1 << 40)), ("Description", ("s", "x"))])
    assert fake.calls[-3:] == [
        ("KillUnit", (WEB, "all", 15)),
        ("ResetFailedUnit", (WEB,)),
        ("SetUnitProperties", (WEB, True, [("MemoryMax", ("t", 1 << 40)), ("Description", ("s", "x"))])),
    ]


async def test_killing_what_has_no_process_is_not_found(systemd, fake):
    fake.refuse["KillUnit"] = ("org.freedesktop.systemd1.NoSuchProcess", "no such process")
    with pytest.raises(NotFound):
        await systemd.kill(WEB, "main", 9)


# -- states


async def test_every_field_of_a_state_comes_from_its_property(systemd, fake):
    await fake.set(
        WEB,
        "failed",
        "failed",
        Job=("(uo)", (7, "/org/freedesktop/systemd1/job/7")),
        Result=("s", "oom-kill"),
        MainPID=("u", 42),
        ExecMainCode=("i", 2),
        ExecMainStatus=("i", 9),
        ActiveEnterTimestamp=("t", 1_700_000_000_000_001),
        InactiveEnterTimestamp=("t", 1_700_000_000_000_002),
        InvocationID=("ay", bytes(range(16))),
        ControlGroup=("s", "/volt.slice/volt-container@web.service"),
        StatusText=("s", "ready"),
        ExecStart=("a(sasbttttuii)", [("/bin/x", ["x", "y"], False, 1, 2, 3, 4, 5, 6, 7)]),
    )
    assert await systemd.properties(WEB) == UnitState(
        name=WEB,
        load="loaded",
        active="failed",
        sub="failed",
        job=7,
        result="oom-kill",
        main_pid=42,
        exec_main_code=2,
        exec_main_status=9,
        active_enter_ns=1_700_000_000_000_001_000,
        inactive_enter_ns=1_700_000_000_000_002_000,
        invocation_id="000102030405060708090a0b0c0d0e0f",
        control_group="/volt.slice/volt-container@web.service",
        status_text="ready",
    )


async def test_a_unit_that_is_not_loaded_is_inactive(systemd):
    state = await systemd.properties(WEB)
    assert (state.active, state.sub) == ("inactive", "dead")
    assert has_ended(state)


async def test_units_are_listed_by_name(systemd, fake):
    for name in ("volt-container@b.service", "other.service", "volt-container@a.service"):
        await fake.set(name)
    found = await systemd.list_units(["volt-container@*.service"])
    assert [state.name for state in found] == ["volt-container@a.service", "volt-container@b.service"]
    assert {state.active for state in found} == {"active"}


@pytest.mark.parametrize("unit", [WEB, "volt-exec@a-b-0123456789abcdef.service", "1st.service", "a\\x2db.service"])
def test_a_unit_and_its_path_name_each_other(unit):
    part = escape(unit)
    assert part.replace("_", "").isalnum()
    assert not part[0].isdigit()
    assert unescape(part) == unit


# -- changes


async def test_wait_returns_at_once_if_it_is_so(systemd):
    assert (await systemd.wait(WEB)).active == "inactive"


async def test_wait_returns_when_it_has_become_so(systemd, fake):
    await fake.set(WEB)
    async with running(systemd.wait(WEB)) as wait:
        await fake.asked("GetAll")
        await fake.set(WEB, "deactivating")
        await fake.asked("GetAll", 2)
        assert not wait.done()
        await fake.set(WEB, "failed", Result=("s", "exit-code"))
        assert (await wait).result == "exit-code"


async def test_wait_sees_a_unit_that_is_unloaded(systemd, fake):
    await fake.set(WEB)
    async with running(systemd.wait(WEB)) as wait:
        await fake.asked("GetAll")
        await fake.unload(WEB)
        assert (await wait).active == "inactive"


async def test_waiting_for_an_unloaded_unit_does_not_load_it_again_and_again(systemd, fake):
    async with running(systemd.wait(WEB, lambda state: state.active == "active")) as wait:
        await fake.asked("ListUnitsByPatterns")  # it has heard that its own reading unloaded it
        await systemd.list_units([])
        assert fake.count["GetAll"] == 1
        await systemd.start(WEB)
        assert (await wait).active == "active"


async def test_wait_ended_returns_when_nothing_of_it_runs_and_reads_no_properties(systemd, fake):
    await systemd.wait_ended(WEB)
    for end in (fake.set(WEB, "failed"), fake.unload(WEB)):
        await fake.set(WEB)
        asked = fake.count["ListUnitsByPatterns"]
        async with running(systemd.wait_ended(WEB)) as wait:
            await fake.asked("ListUnitsByPatterns", asked + 1)
            await fake.set(WEB, "deactivating")
            await systemd.list_units([])  # the signal has come
            assert not wait.done()
            await end
            await wait
    assert fake.count["GetAll"] == 0


async def test_signals_tell_of_our_units_only(systemd, fake):
    for unit in (WEB, "ssh.service"):
        await fake.set(unit)
    changes = systemd.signals()
    first = asyncio.ensure_future(anext(changes))
    await systemd.list_units([])
    for unit in ("ssh.service", WEB):
        await fake.set(unit, "deactivating", "stop-sigterm")
    state = await first
    assert (state.name, state.active, state.sub) == (WEB, "deactivating", "stop-sigterm")
    await fake.unload(WEB)
    state = await anext(changes)
    assert (state.name, state.load, state.active) == (WEB, "", "inactive")
    await changes.aclose()


async def test_a_signal_of_anyone_else_is_not_believed(systemd, fake, bus):
    await fake.set(WEB)
    async with running(systemd.wait(WEB)) as wait:
        await fake.asked("GetAll")
        liar = await open_dbus_connection(bus.address)
        hello = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
        path = "/org/freedesktop/systemd1"
        body = (WEB, f"{path}/unit/{escape(WEB)}")
        forged = new_signal(DBusAddress(path, interface="org.freedesktop.systemd1.Manager"), "UnitRemoved", "so", body)
        forged.header.fields[HeaderFields.destination] = systemd._bus._conn.unique_name
        await liar.send(forged)
        await liar.send(new_method_call(hello, "GetId"))
        await liar.receive()  # the bus has passed the forged signal on
        for _ in range(3):
            await systemd.list_units([])
        await liar.close()
        assert not wait.done()
        assert fake.count["GetAll"] == 1


# -- what goes away and comes back


async def restart(bus, fake):
    await fake.stop()
    await bus.stop()
    await bus.start()
    await fake.start()


async def test_calls_go_on_after_the_bus_was_restarted(systemd, fake, bus):
    await restart(bus, fake)
    await fake.set(WEB)
    assert (await systemd.properties(WEB)).active == "active"
    assert fake.count["Subscribe"] == 2
    assert systemd.resyncs == [1]


async def test_a_wait_sees_what_happened_while_the_bus_was_gone(systemd, fake, bus):
    await fake.set(WEB)
    async with running(systemd.wait(WEB)) as wait:
        await fake.asked("GetAll")
        await fake.stop()
        await bus.stop()
        fake.units.clear()
        await bus.start()
        await fake.start()
        assert (await wait).active == "inactive"


async def test_a_start_whose_end_was_missed_is_read_off_the_unit(systemd, fake, bus):
    fake.hold.add(WEB)
    async with running(systemd.start(WEB)) as start:
        await fake.asked("StartUnit")
        await systemd.list_units([])
        await fake.stop()
        await bus.stop()
        fake.units[WEB].update(ActiveState=("s", "active"), Job=("(uo)", (0, "/")))
        await bus.start()
        await fake.start()
        await start


async def test_a_start_that_failed_meanwhile_fails(systemd, fake, bus):
    fake.hold.add(WEB)
    async with running(systemd.start(WEB)) as start:
        await fake.asked("StartUnit")
        await systemd.list_units([])
        await fake.stop()
        await bus.stop()
        fake.units[WEB].update(ActiveState=("s", "failed"), Job=("(uo)", (0, "/")))
        await bus.start()
        await fake.start()
        with pytest.raises(JobFailed):
            await start


async def test_a_job_that_goes_on_over_a_restart_of_the_bus_is_waited_for(systemd, fake, bus):
    fake.hold.add(WEB)
    async with running(systemd.start(WEB)) as start:
        await fake.asked("StartUnit")
        await systemd.list_units([])
        await restart(bus, fake)
        await fake.asked("GetAll")
        assert not start.done()
        await fake.finish(WEB, active="active")
        await start


async def test_signals_go_on_with_what_was_missed(systemd, fake, bus):
    for name in ("a", "b"):
        await fake.set(f"volt-{name}.service")
    changes = systemd.signals()
    first = asyncio.ensure_future(anext(changes))
    await systemd.list_units([])
    for name in ("a", "b"):
        await fake.set(f"volt-{name}.service", "reloading")
    assert (await first).name == "volt-a.service"
    assert (await anext(changes)).name == "volt-b.service"
    await fake.stop()
    await bus.stop()
    del fake.units["volt-a.service"]
    fake.units["volt-b.service"]["ActiveState"] = ("s", "failed")
    await bus.start()
    await fake.start()
    found = [await anext(changes), await anext(changes)]
    assert [(state.name, state.active) for state in found] == [
        ("volt-a.service", "inactive"),
        ("volt-b.service", "failed"),
    ]
    await changes.aclose()


async def test_a_read_is_repeated_when_systemd_executes_itself_again(systemd, fake):
    await fake.set(WEB)
    fake.silent.add("GetAll")
    async with running(systemd.properties(WEB)) as read:
        await fake.asked("GetAll")
        await fake.stop()
        fake.silent.clear()
        await fake.start()
        assert (await read).active == "active"


@pytest.mark.parametrize("active", ["active", "inactive"])
async def test_a_start_that_was_cut_off_is_done_or_not_known_and_never_asked_twice(systemd, fake, active):
    fake.silent.add("StartUnit")
    fake.hold.add(WEB)
    async with running(systemd.start(WEB)) as start:
        await fake.asked("StartUnit")
        await fake.stop()
        fake.units[WEB].update(ActiveState=("s", active), Job=("(uo)", (0, "/")))
        await fake.start()
        if active == "active":
            await start
        else:
            with pytest.raises(Unknown):
                await start
    assert fake.count["StartUnit"] == 1


async def test_a_stop_that_was_cut_off_is_asked_again(systemd, fake):
    fake.silent.add("StopUnit")
    async with running(systemd.stop(WEB)) as stop:
        await fake.asked("StopUnit")
        await fake.stop()
        fake.silent.clear()
        await fake.start()
        await stop
    assert fake.count["StopUnit"] == 2


async def test_a_kill_that_was_cut_off_is_not_known_and_never_asked_twice(systemd, fake):
    fake.silent.add("KillUnit")
    async with running(systemd.kill(WEB, "all", 1)) as kill:
        await fake.asked("KillUnit")
        await fake.stop()
        with pytest.raises(Unknown):
            await kill
        await fake.start()
    assert fake.count["KillUnit"] == 1


# -- nobody there


async def test_a_host_without_systemd_is_unreachable_and_says_so(tmp_path):
    with pytest.raises(Unreachable, match="this host does not run systemd"):
        await Systemd(f"unix:path={tmp_path}/none").connect()


async def test_a_bus_without_systemd_is_unreachable(bus):
    systemd = Systemd(bus.address)
    with pytest.raises(Unreachable, match="nobody on the bus"):
        await systemd.connect()
    await systemd.close()


async def test_a_call_without_an_answer_ends(systemd, fake, monkeypatch):
    monkeypatch.setattr(volt_common.dbus, "CALL_SECONDS", 0.05)
    fake.silent.add("GetAll")
    with pytest.raises(TimedOut):
        await systemd.properties(WEB)


async def test_a_bus_that_stays_away_is_unreachable(systemd, fake, bus, monkeypatch):
    monkeypatch.setattr(volt_common.dbus, "REACH_SECONDS", 0.05)
    await bus.stop()
    with pytest.raises(Unreachable):
        await systemd.properties(WEB)


async def test_closing_ends_what_is_under_way(systemd, fake):
    fake.silent.add("KillUnit")
    async with running(systemd.kill(WEB, "all", 1)) as kill:
        await fake.asked("KillUnit")
        await systemd.close()
        with pytest.raises(Unknown):
            await kill
