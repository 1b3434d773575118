"""Faults of the servers beside a sled, from the control API (SR 8). Imported when one is asked for.

Read before: core/mishaps.py, core/companions.py. Read next: daemon/control.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec

from nexus_client.dropshot.answers import Refused, bad_request
from sim_sled.core import contract
from sim_sled.core.companions import Companions
from sim_sled.core.crucible.values import RegionState
from sim_sled.core.estate import ESTATE, ask
from sim_sled.core.mishaps import Adjust, BreakDownstairs, Mishap, Refuse, SetRegion, TakeOver
from sim_sled.daemon.daemon import Daemon


class _Fault(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Each kind is known by a field that no other kind has."""


class RefuseFault(_Fault):
    refuse: str
    status: int | None = 503
    times: int = 1
    dataset_id: UUID | None = None

    def mishap(self) -> Mishap:
        return Refuse(self.refuse, self.status, self.times, self.dataset_id)


class SetFault(_Fault):
    set: dict[str, Any]
    server: str
    dataset_id: UUID | None = None

    def mishap(self) -> Mishap:
        # `born` is a state, everything else as it was said: the core knows what may be
        changes = ((name, RegionState(value) if name == "born" else value) for name, value in self.set.items())
        return Adjust(self.server, tuple(changes), self.dataset_id)


class RegionFault(_Fault):
    region: UUID
    dataset_id: UUID
    state: RegionState

    def mishap(self) -> Mishap:
        return SetRegion(self.dataset_id, self.region, self.state)


class TakeOverFault(_Fault):
    take_over: str

    def mishap(self) -> Mishap:
        return TakeOver(self.take_over)


class BreakDownstairsFault(_Fault, rename={"region": "break"}):
    region: UUID
    dataset_id: UUID
    repair_us: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    aborted: bool = False

    def mishap(self) -> Mishap:
        return BreakDownstairs(self.dataset_id, self.region, self.repair_us, self.aborted)


CompanionFault = RefuseFault | SetFault | RegionFault | TakeOverFault | BreakDownstairsFault

KINDS: Final[Mapping[str, type[CompanionFault]]] = {
    "refuse": RefuseFault,
    "set": SetFault,
    "region": RegionFault,
    "take_over": TakeOverFault,
    "break": BreakDownstairsFault,
}
"""The bodies of `POST /sleds/{sled_id}/companions`."""


async def show(daemon: Daemon, sled_id: UUID) -> dict[str, Any]:
    """Where the servers are, their knobs, and what waits to be refused."""
    told = await _ask(daemon, sled_id, ask(Companions, Companions.overview))
    assert isinstance(told, dict), "an overview is an object"
    return daemon.listening.companions[sled_id].addresses.json | told


async def suffer(daemon: Daemon, sled_id: UUID, fault: CompanionFault) -> None:
    """Let one mishap happen."""
    try:
        mishap = fault.mishap()
    except ValueError as error:
        raise bad_request(str(error)) from error
    await _ask(daemon, sled_id, ask(Companions, Companions.suffer, mishap))


async def _ask(daemon: Daemon, sled_id: UUID, asked: Any) -> object:
    if sled_id not in daemon.listening.companions:
        raise Refused(404, "no such sled, or it has no servers beside it")
    return await daemon.submit(contract.CallArea(daemon.ticket(), sled_id, ESTATE, asked))
