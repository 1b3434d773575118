"""The hand-off of a daemon's sleds, step by step until Nexus has taken it (SR 6).

Read before: companions/handoff.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import attrs

from nexus_client.dropshot.json import encode
from sim_sled import logs
from sim_sled.companions.handoff import dns_is_elsewhere, facts_of, password_hash, send
from sim_sled.companions.telling import put
from sim_sled.core import contract
from sim_sled.core.errors import BadRequest, DnsGeneration
from sim_sled.core.estate import ESTATE, Ask, ask
from sim_sled.core.handoff.body import Handoff, make
from sim_sled.core.handoff.process import Process
from sim_sled.core.handoff.refusals import explain, unreachable
from sim_sled.core.handoff.wishes import Wishes

if TYPE_CHECKING:
    from sim_sled.daemon.daemon import Daemon

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


_AGAIN: Final = ": it is tried again until it does"
_log = logs.get("handoff")


class HandoffRunner:
    """The hand-off of a daemon's sleds. `run` ends when it is done."""

    def __init__(self, daemon: Daemon, wishes: Wishes, seed: int) -> None:
        self.process = Process(seed)
        self.done = asyncio.Event()
        self._daemon = daemon
        self._wishes = wishes

    async def run(self) -> None:
        """Everything, in order, until Nexus has taken it. A fault of ours is told and ends it."""
        try:
            await self._run()
        except Exception:
            _log.exception("the hand-off has a fault of its own")
            raise

    async def _run(self) -> None:
        daemon, wishes = self._daemon, self._wishes
        sleds = [attrs.evolve(each.config, address=each.address) for each in daemon.rack.sleds.values()]
        hashed = await asyncio.to_thread(password_hash, wishes)
        beside = daemon.listening.companion_addresses()
        made = make(wishes, facts_of(wishes, sleds, beside, daemon.clock.now_us(), hashed))
        for told in made.told:
            _log.warning("this hand-off is not a rack's", why=told)
        await self._again_until_done(self._fill_dns, made)
        for registered in daemon.reporting.registered.values():
            await registered.wait()
        self.process.did()
        await self._ledger(made)
        self.process.did()
        await self._again_until_done(self._hand_over, made)
        _log.info("the rack is handed over", rack=str(wishes.rack_id), nexus=wishes.lockstep, sleds=len(sleds))
        self.done.set()

    async def _again_until_done(self, step: Callable[[Handoff], Awaitable[str | None]], made: Handoff) -> None:
        while (why := await step(made)) is not None:
            pause_us, new = self.process.failed(why)
            if new:
                _log.warning(self.process.step.value, why=why)
            await asyncio.sleep(pause_us / 1e6)
        self.process.did()

    async def _fill_dns(self, made: Handoff) -> str | None:
        from sim_sled.companions.dns import config_from  # noqa: PLC0415 -- only who hands over needs it
        from sim_sled.core.companions import Companions  # noqa: PLC0415 -- same

        body = encode(made.dns)
        sleds = [each.config for each in self._daemon.rack.sleds.values()]
        address = self._wishes.dns_http
        if address is None or not dns_is_elsewhere(self._wishes, sleds):
            try:
                await self._ask(sleds[0].sled_id, ask(Companions, Companions.fill_dns, config_from(body)))
            except DnsGeneration:
                _log.info("internal DNS is configured already and newer")
            return None
        answer = await put(f"http://{address}/config", body, {"api-version": "2.0.0"})
        if answer.status is None:
            return unreachable("the DNS configuration API", address, answer.message) + _AGAIN
        if answer.status == 409:  # Nexus has been there before: a sled that was started again
            _log.info("internal DNS is configured already and newer", dns=address)
            return None
        return None if answer.status == 204 else f"{address} does not take the DNS configuration: {answer.message}"

    async def _ledger(self, made: Handoff) -> None:
        """Store each sled's configuration as if it had been PUT."""
        from sim_sled.core.omicron_config import configure  # noqa: PLC0415 -- only who hands over needs it
        from sim_sled.core.omicron_config.ledger import Ledger  # noqa: PLC0415 -- same
        from sim_sled.http.bodies_omicron import CONFIGS  # noqa: PLC0415 -- same
        from sim_sled.http.routes import NEWEST  # noqa: PLC0415 -- same

        for sled_id, config in made.configs.items():
            try:
                await self._ask(sled_id, ask(Ledger, configure.put, CONFIGS(NEWEST).decode(encode(config))))
            except BadRequest as refused:
                # somebody configured it before; Nexus goes on from there, and an initialised rack takes no other
                _log.info("a sled keeps the configuration that it has", sled=str(sled_id), why=str(refused))

    async def _hand_over(self, made: Handoff) -> str | None:
        answer = await send(self._wishes, made.body)
        if answer.status is None:
            return unreachable("Nexus's lockstep API", self._wishes.lockstep, answer.message) + _AGAIN
        return None if answer.status == 204 else explain(answer.status, answer.message, self._wishes)

    async def _ask(self, sled_id: UUID, asked: Ask[None]) -> None:
        await self._daemon.submit(contract.CallArea(self._daemon.ticket(), sled_id, ESTATE, asked))
