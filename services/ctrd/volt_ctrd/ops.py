"""What only root may do to a container, done by an op unit: a request file, a start, a result file."""

from __future__ import annotations

import contextlib
import os
import secrets

import msgspec

from volt_common.errors import VoltError, of_code
from volt_ctrd.files import OpResult, Places, load
from volt_ctrd.units import Units, op_unit


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """op-ID.json: the launcher checks it as it would any stranger's."""

    version: int = 1
    op: str  # delete, pause, resume, signal
    signal: str | msgspec.UnsetType = msgspec.UNSET


async def perform(places: Places, units: Units, name: str, request: Request) -> None:
    """Have it done. Raises what the launcher refuses, or what systemd says."""
    id = secrets.token_hex(8)
    path = places.op(name, id)
    # Not synced: a request that a power cut loses has not been performed either.
    with open(path, "xb") as file:
        file.write(msgspec.json.encode(request))
    failure: VoltError | None = None
    try:
        try:
            await units.start(op_unit(name, id))
        except VoltError as error:  # the launcher's own words are better than "the job failed"
            failure = error
        result = load(places.op_result(name, id), OpResult)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    if result is None:
        raise failure or VoltError(f"{request.op} of {name} ended without a result")
    if not result.ok:
        raise of_code(result.code, result.hint, {"message": result.message})
    if failure is not None:
        raise failure
