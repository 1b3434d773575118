"""`POST` and `GET /sled-agents/{sled_id}`: what Nexus answers and stores (NX 3.3)."""

from __future__ import annotations

from uuid import UUID

from msgspec.structs import replace

from nexus_client.stub.placement import host_of
from nexus_client.stub.records import Sled
from nexus_client.stub.refusal import already_exists, internal, invalid_request, not_found
from nexus_client.stub.scope import Facts
from nexus_client.types import SledAgentInfo


def post(ctx: Facts, sled_id: UUID, info: SledAgentInfo) -> bool:
    """Store what a sled says of itself. Raises `Refused` (400, 500) before anything is stored.

    True: the sled is new or has changed, so its inventory is collected.
    """
    try:
        host_of(info.sa_address)
    except ValueError as error:
        raise invalid_request(f"sa_address: {error}") from None
    records = ctx.records
    stored = records.sleds.get(sled_id)
    if info.reservoir_size >= info.usable_physical_ram:
        raise internal("the reservoir must be smaller than the RAM")
    if stored is None:
        same = records.with_baseboard(info.baseboard.serial, info.baseboard.part)
        if any(other.state != "decommissioned" for other in same):
            raise already_exists("sled", str(sled_id))
        sled = Sled(sled_id, records.next_number("sled"), replace(info, decommissioned=False), ctx.now_us)
    else:
        if stored.state == "decommissioned" or stored.info.generation >= info.generation:
            # the upsert returns no row, which the original reports as its own failure
            raise internal(f"sled {sled_id}: decommissioned, or generation {info.generation} is not news")
        known = replace(info, baseboard=stored.info.baseboard, decommissioned=False)
        sled = replace(stored, info=known, time_modified=ctx.now_us)
    records.put_sled(sled)
    ctx.tell("sled", f"{sled_id} at {info.sa_address}, generation {info.generation}")
    return True


def get(ctx: Facts, sled_id: UUID) -> SledAgentInfo:
    """What is stored, or 404."""
    sled = ctx.records.sleds.get(sled_id)
    if sled is None:
        raise not_found("sled", sled_id)
    return replace(sled.info, decommissioned=sled.state == "decommissioned")
