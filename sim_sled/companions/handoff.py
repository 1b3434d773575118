"""Carries a hand-off out: DNS over HTTP or by hand, configurations into the ledgers, the body to Nexus (SR 6).

Read before: companions/telling.py, core/handoff/process.py, core/handoff/refusals.py.
Read next: daemon/handing_over.py, daemon/serve.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from nexus_client.dropshot.json import encode
from nexus_client.dropshot.text import SocketAddress
from nexus_client.types import SledRole
from sim_sled import logs
from sim_sled.companions.servers import Addresses
from sim_sled.companions.telling import Answered, put
from sim_sled.core.config import SledConfig
from sim_sled.core.handoff.wishes import Facts, RackSled, Wishes

if TYPE_CHECKING:
    pass

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
