"""Faults of the servers beside a sled, from the control API (SR 8).

Read before: core/mishaps.py, core/companions.py. Read next: daemon/control.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from aiohttp import web

from sim_sled.core import contract
from sim_sled.core.companions import Companions
from sim_sled.core.crucible.values import RegionState
from sim_sled.core.estate import ESTATE, ask
from sim_sled.core.mishaps import Adjust, BreakDownstairs, Mishap, Refuse, SetRegion, TakeOver
from sim_sled.daemon.daemon import Daemon

_SPOKEN = (
    '{"refuse": OPERATION, "status": 503 or null, "times": N, "dataset_id": UUID}, '
    '{"set": {KNOB: VALUE}, "server": "crucible", "pantry", "dns" or "repo-depot", "dataset_id": UUID}, '
    '{"region": UUID, "dataset_id": UUID, "state": STATE}, {"take_over": VOLUME} or '
    '{"break": REGION, "dataset_id": UUID, "repair_us": N, "aborted": BOOL}'
)


class _Fault(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Each kind is known by a field that no other kind has."""


class _RefuseBody(_Fault):
    refuse: str
    status: int | None = 503
    times: int = 1
    dataset_id: UUID | None = None

    def mishap(self) -> Mishap:
        return Refuse(self.refuse, self.status, self.times, self.dataset_id)


class _SetBody(_Fault):
    set: dict[str, Any]
    server: str
    dataset_id: UUID | None = None

    def mishap(self) -> Mishap:
        # `born` is a state, everything else as it was said: the core knows what may be
        changes = ((name, RegionState(value) if name == "born" else value) for name, value in self.set.items())
        return Adjust(self.server, tuple(changes), self.dataset_id)


class _RegionBody(_Fault):
    region: UUID
    dataset_id: UUID
    state: RegionState

    def mishap(self) -> Mishap:
        return SetRegion(self.dataset_id, self.region, self.state)


class _TakeOverBody(_Fault):
    take_over: str

    def mishap(self) -> Mishap:
        return TakeOver(self.take_over)


class _BreakBody(_Fault, rename={"region": "break"}):
    region: UUID
    dataset_id: UUID
    repair_us: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    aborted: bool = False

    def mishap(self) -> Mishap:
        return BreakDownstairs(self.dataset_id, self.region, self.repair_us, self.aborted)


_KINDS: Final[dict[str, type[_RefuseBody | _SetBody | _RegionBody | _TakeOverBody | _BreakBody]]] = {
    "refuse": _RefuseBody,
    "set": _SetBody,
    "region": _RegionBody,
    "take_over": _TakeOverBody,
    "break": _BreakBody,
}


class CompanionFaults:
    """`GET` and `POST /sleds/{sled_id}/companions`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def routes(self) -> list[web.RouteDef]:
        path = "/sleds/{sled_id}/companions"
        return [web.get(path, self.show), web.post(path, self.suffer)]

    async def show(self, request: web.Request) -> web.Response:
        """Where the servers are, their knobs, and what waits to be refused."""
        sled_id = self._sled_id(request)
        told = await self._ask(sled_id, ask(Companions, Companions.overview))
        assert isinstance(told, dict), "an overview is an object"
        return web.json_response(self._daemon.companions[sled_id].addresses.json | told)

    async def suffer(self, request: web.Request) -> web.Response:
        """Let one mishap happen."""
        sled_id = self._sled_id(request)
        try:
            said = await request.json()
            mishap = _mishap(said)
        except (ValueError, RecursionError) as error:
            raise web.HTTPBadRequest(reason=f"a fault is one of {_SPOKEN}; {error}".replace("\n", " ")) from error
        await self._ask(sled_id, ask(Companions, Companions.suffer, mishap))
        return web.json_response({"injected": said})

    async def _ask(self, sled_id: UUID, asked: Any) -> object:
        daemon = self._daemon
        return await daemon.submit(contract.CallArea(daemon.ticket(), sled_id, ESTATE, asked))

    def _sled_id(self, request: web.Request) -> UUID:
        try:
            sled_id = UUID(request.match_info["sled_id"])
        except ValueError as error:
            raise web.HTTPBadRequest(reason="sled_id is not a UUID") from error
        if sled_id not in self._daemon.companions:
            raise web.HTTPNotFound(reason="no such sled, or it has no servers beside it")
        return sled_id


def _mishap(said: Any) -> Mishap:
    """Raises `ValueError`."""
    kinds = [kind for name, kind in _KINDS.items() if isinstance(said, dict) and name in said]
    if len(kinds) != 1:
        raise ValueError("this is none of them")
    body: _RefuseBody | _SetBody | _RegionBody | _TakeOverBody | _BreakBody = msgspec.convert(said, kinds[0])
    return body.mishap()
