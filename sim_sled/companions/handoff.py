"""Carries a hand-off out: DNS over HTTP or by hand, configurations into the ledgers, the body to Nexus (SR 6).

Read before: companions/telling.py, core/handoff/process.py, core/handoff/refusals.py. Read next: daemon/serve.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import attrs

from nexus_client.dropshot.json import encode
from nexus_client.dropshot.text import SocketAddress
from nexus_client.types import SledRole
from sim_sled.companions.servers import Addresses
from sim_sled.companions.telling import Answered, put
from sim_sled.core import contract
from sim_sled.core.config import SledConfig
from sim_sled.core.errors import BadRequest, DnsGeneration
from sim_sled.core.estate import ESTATE, Ask, ask
from sim_sled.core.handoff.body import Handoff, make
from sim_sled.core.handoff.process import Process
from sim_sled.core.handoff.refusals import explain, unreachable
from sim_sled.core.handoff.wishes import Facts, RackSled, Wishes
from sim_sled.daemon import logs

if TYPE_CHECKING:
    from sim_sled.daemon.daemon import Daemon

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

MEMORY_KIB: Final = 98_304
ROUNDS: Final = 23
"""Cost of the password hash: Nexus takes no cheaper one (SR 6.2)."""

_log = logs.get("handoff")


def password_hash(wishes: Wishes) -> str:
    """In PHC form. Takes seconds. The salt follows from whose password it is, so that the same command line hands the
    same bytes over; it protects nothing that a development cluster keeps secret.
    """
    from argon2 import PasswordHasher  # noqa: PLC0415 -- only who hands over needs it

    salt = hashlib.sha256(f"{wishes.rack_id}/{wishes.silo}/{wishes.user}".encode()).digest()[:16]
    hasher = PasswordHasher(time_cost=ROUNDS, memory_cost=MEMORY_KIB, parallelism=1)
    return hasher.hash(wishes.password, salt=salt)


def facts_of(
    wishes: Wishes, sleds: list[SledConfig], beside: Mapping[UUID, Addresses], now_us: int, hashed: str
) -> Facts:
    """What a hand-off of these sleds follows from. `sleds` have the addresses where they really listen."""
    first = beside[sleds[0].sled_id]
    remote = dns_is_elsewhere(wishes, sleds)
    dns = wishes.dns if remote else first.dns
    dns_http = wishes.dns_http if remote else first.dns_http
    assert dns_http is not None, "somebody serves internal DNS"
    return Facts(
        sleds=tuple(_rack_sled(sled, beside[sled.sled_id]) for sled in sleds),
        dns=dns or str(SocketAddress(SocketAddress.parse(dns_http).host, 53)),
        dns_http=dns_http,
        created=(_EPOCH + timedelta(microseconds=now_us)).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        password_hash=hashed,
    )


def dns_is_elsewhere(wishes: Wishes, sleds: list[SledConfig]) -> bool:
    """Whether the internal DNS server is somebody else's."""
    if wishes.dns_http is None:
        return False
    own = {SocketAddress.parse(sled.address).host for sled in sleds}
    return SocketAddress.parse(wishes.dns_http).host not in own


def _rack_sled(sled: SledConfig, beside: Addresses) -> RackSled:
    hardware = sled.hardware
    depot = beside.repo_depot
    assert depot is not None, "every sled has one"
    return RackSled(
        sled_id=sled.sled_id,
        address=sled.address,
        repo_depot_port=SocketAddress.parse(depot).port,
        scrimlet=hardware.role is SledRole.SCRIMLET,
        pools=hardware.pools_of(sled.sled_id),
        crucible={
            each.dataset_id: (each.zpool_id, beside.crucible[each.dataset_id])
            for each in hardware.crucible_datasets_of(sled.sled_id)
        },
        pantry=beside.pantry,
    )


async def send(wishes: Wishes, body: Any) -> Answered:
    """Hand over."""
    return await put(f"http://{wishes.lockstep}/racks/{wishes.rack_id}/initialization-complete", encode(body), {})


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
        made = make(wishes, facts_of(wishes, sleds, daemon.companion_addresses(), daemon.clock.now_us(), hashed))
        for told in made.told:
            _log.warning("this hand-off is not a rack's", why=told)
        await self._again_until_done(self._fill_dns, made)
        for registered in daemon.registered.values():
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
            return unreachable("the DNS configuration API", address, answer.message)
        if answer.status == 409:  # Nexus has been there before: a sled that was started again
            _log.info("internal DNS is configured already and newer", dns=address)
            return None
        return None if answer.status == 204 else f"{address} does not take the DNS configuration: {answer.message}"

    async def _ledger(self, made: Handoff) -> None:
        """Store each sled's configuration as if it had been PUT."""
        from sim_sled.core.omicron_config.ledger import Ledger  # noqa: PLC0415 -- only who hands over needs it
        from sim_sled.http.bodies_omicron import CONFIGS  # noqa: PLC0415 -- same
        from sim_sled.http.routes import NEWEST  # noqa: PLC0415 -- same

        for sled_id, config in made.configs.items():
            try:
                await self._ask(sled_id, ask(Ledger, Ledger.put, CONFIGS(NEWEST).decode(encode(config))))
            except BadRequest as refused:
                # somebody configured it before; Nexus goes on from there, and an initialised rack takes no other
                _log.info("a sled keeps the configuration that it has", sled=str(sled_id), why=str(refused))

    async def _hand_over(self, made: Handoff) -> str | None:
        answer = await send(self._wishes, made.body)
        if answer.status is None:
            return unreachable("Nexus's lockstep API", self._wishes.lockstep, answer.message)
        return None if answer.status == 204 else explain(answer.status, answer.message, self._wishes)

    async def _ask(self, sled_id: UUID, asked: Ask[None]) -> None:
        await self._daemon.submit(contract.CallArea(self._daemon.ticket(), sled_id, ESTATE, asked))
