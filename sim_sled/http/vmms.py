"""Operations on VMMs that are there: 2 to 4 of SA 3.1, and two that only simulators have (2.8).

Read before: http/routes.py. Read next: http/arrivals.py, http/operations.py.
"""

from __future__ import annotations

from typing import Final

from nexus_client.dropshot.json import Json, encode
from nexus_client.dropshot.text import SockAddr
from nexus_client.types import Asked, VmmPutStateBody
from sim_sled.core import contract
from sim_sled.http.routes import Answer, Call

NO_CONTENT = Answer(204)

_KNOWN_MAX: Final = 256
_KNOWN_BYTES_MAX: Final = 64
"""Bodies of a PUT state that are remembered, and the bytes that each of them may have."""


class PutStateJson(Json[VmmPutStateBody]):
    """`VmmPutStateBody`; the one address in it must be a socket address."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        super().__init__(VmmPutStateBody)
        self._known: dict[bytes, VmmPutStateBody] = {}
        """Read before: three bodies, as each client spells them, are nearly all there is, and histories keep them."""

    def decode(self, body: bytes) -> VmmPutStateBody:
        known = self._known.get(body)
        if known is not None:
            return known
        asked = super().decode(body)
        state = asked.state
        if state.value is not None and state.type is Asked.MIGRATION_TARGET:
            self.require(SockAddr.canonical, state.value.src_propolis_addr, "state.value.src_propolis_addr")
        elif len(body) <= _KNOWN_BYTES_MAX and len(self._known) < _KNOWN_MAX:
            self._known[body] = asked
        return asked


PUT_STATE: Final = PutStateJson()


async def unregister(call: Call) -> Answer:
    host = call.host
    return Answer(200, encode(await host.submit(contract.Unregister(host.ticket(), call.sled_id, call.propolis_id))))


async def get_state(call: Call) -> Answer:
    host = call.host
    return Answer(200, encode(await host.submit(contract.GetState(host.ticket(), call.sled_id, call.propolis_id))))


async def put_state(call: Call) -> Answer:
    host = call.host
    item = contract.PutState(host.ticket(), call.sled_id, call.path[0], call.body.state)
    return Answer(200, encode(await host.submit(item)))


async def poke(call: Call) -> Answer:
    host = call.host
    await host.submit(contract.Poke(host.ticket(), call.sled_id, call.propolis_id, drain=True))
    return NO_CONTENT


async def poke_single_step(call: Call) -> Answer:
    host = call.host
    await host.submit(contract.Poke(host.ticket(), call.sled_id, call.propolis_id, drain=False))
    return NO_CONTENT
