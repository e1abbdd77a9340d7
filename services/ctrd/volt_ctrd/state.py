"""What a container is now: joined from ctrd's files, root's files and systemd's unit, kept nowhere else."""

from __future__ import annotations

import msgspec

from volt_common.api import ctr
from volt_ctrd.config import Config
from volt_ctrd.files import Ended, RootState, Running
from volt_ctrd.units import Phase, Unit

START_FAILURE = "start-failure"
LOST = "lost"


def own(config: Config, root: RootState | None) -> RootState:
    """Root's record if it is of this container, and not of an earlier one of the same name."""
    # The launcher knows no id where it could not read config.json.
    return root if root is not None and root.id in (config.id, "") else RootState()


def settled(unit: Unit, root: RootState) -> Unit:
    """A unit as far as its container goes. Once root has written down how the run ended, that is over, though systemd
    may have the unit to tidy up."""
    if unit.phase in (Phase.ACTIVE, Phase.STOPPING) and root.ended_at:
        return msgspec.structs.replace(unit, phase=Phase.INACTIVE, frozen=False)
    return unit


def state_of(unit: Unit, exit: ctr.Exit | None) -> ctr.State:
    """One word for a unit and the way its last run ended."""
    match unit.phase:
        case Phase.STARTING:
            return ctr.State.STARTING
        case Phase.ACTIVE:
            return ctr.State.PAUSED if unit.frozen else ctr.State.RUNNING
        case Phase.STOPPING:
            return ctr.State.STOPPING
        case Phase.INACTIVE:
            failed = exit is not None and exit.reason == START_FAILURE
            return ctr.State.FAILED if failed else ctr.State.STOPPED


def exit_of(unit: Unit, root: RootState) -> ctr.Exit | None:
    """How the last run ended; None while one is under way and where there was none.

    A run that was begun, whose unit is gone and of which nobody wrote the end, was lost: the host went down
    under it. A unit that failed without root having written anything never reached its payload."""
    if unit.phase is not Phase.INACTIVE:
        return None
    if root.exit is not None:
        return exit_from(root.exit, root.ended_at or "")
    if unit.failed:
        message = f"the launcher ended without a word ({unit.result}); journalctl -u {unit.name} may say why"
        return ctr.Exit(code=1, signal=0, reason=START_FAILURE, at=root.ended_at or "", message=message)
    if root.started_at:
        return ctr.Exit(code=255, signal=0, reason=LOST, at=root.ended_at or "", message="the host went down")
    return None


def exit_from(ended: Ended, at: str) -> ctr.Exit:
    """What the launcher says of an end, as callers are told it."""
    code = 128 + ended.signal if ended.signal and not ended.code else ended.code
    return ctr.Exit(code=code, signal=ended.signal, reason=ended.reason, at=at, message=ended.message)


def container(
    config: Config, unit: Unit, root: RootState | None, running: Running | None, spec: ctr.Spec | None = None
) -> ctr.Container:
    """The whole picture. `running` counts only while the unit is up, since a crash may leave it behind."""
    record = own(config, root)
    unit = settled(unit, record)
    exit = exit_of(unit, record)
    up = unit.phase is Phase.ACTIVE
    return ctr.Container(
        name=config.name,
        id=config.id,
        image=config.image,
        tree=config.tree,
        mode=config.mode,
        state=state_of(unit, exit),
        created_at=config.created_at,
        uid=config.uid,
        args=config.args,
        started_at=record.started_at or "",
        ready_at=(record.ready_at or "") if up or exit is not None else "",
        leader=running.leader if up and running is not None else 0,
        exit=exit,
        restarts=record.restarts,
        id_base=record.id_base,
        spec=spec,
    )


def damaged(name: str, unit: Unit, message: str) -> ctr.Container:
    """One whose config.json can't be read: it is shown, with the reason, so that a person can delete it."""
    return ctr.Container(
        name=name,
        id="",
        image="",
        tree="",
        mode=ctr.Mode.CONTAINER,
        state=ctr.State.FAILED if unit.phase is Phase.INACTIVE else state_of(unit, None),
        created_at="",
        uid=0,
        args=[],
        exit=ctr.Exit(code=125, signal=0, reason=START_FAILURE, at="", message=message),
    )
