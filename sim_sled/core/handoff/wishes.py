"""What somebody wants of a hand-off, and what it is made from.

Read next: cli/rss.py, core/handoff/refusals.py, core/handoff/zones.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Network
from typing import Final
from uuid import UUID

import attrs

from nexus_client.dropshot.text import SocketAddress
from sim_sled.core.config import Zpool
from sim_sled.core.estate import RACK_ID

NEXUS_ID: Final = UUID("e6bff1ff-24fb-49dc-a54e-c6a350cd4d6c")
"""Deployment id of every development Nexus: the one that its configuration file names (SR 6.3)."""

GENERATION: Final = 2
"""Of the sled configurations and of the blueprint, as the original's own test starter has it (SR 6.3)."""

SCRIMLETS_MAX: Final = 2
"""A rack has two switches; Nexus sends what concerns them to every scrimlet (SA 1.7)."""


class HandoffImpossible(ValueError):
    """No hand-off can be made of this; the text names the option that mends it."""


@attrs.frozen
class Wishes:
    """The `--rss-*` options of the original and what goes with them. Addresses are texts, `host:port`.

    `nexus_external`, `external_dns_http`: None leaves that zone out; `cockroach`: one zone each. `dns_http` on an
    address that is none of the sleds': somebody else runs the internal DNS server, and gets its configuration there.
    """

    nexus_internal: str
    lockstep_port: int
    nexus_external: str | None = None
    nexus_id: UUID = NEXUS_ID
    dns: str | None = None
    dns_http: str | None = None
    external_dns_http: str | None = None
    cockroach: tuple[str, ...] = ()
    rack_subnet: IPv6Network | None = None
    certificate: tuple[str, str] | None = None
    silo: str = "demo-silo"
    user: str = "demo-privileged"
    password: str = "oxide"  # noqa: S105 -- the well-known one of development clusters, not a secret
    switch_port: str = "qsfp0"
    rack_id: UUID = RACK_ID

    @property
    def lockstep(self) -> str:
        """Address of the lockstep API: the internal one's host with its own port."""
        return f"{self.nexus_internal.rpartition(':')[0]}:{self.lockstep_port}"


@attrs.frozen
class RackSled:
    """A sled as the hand-off sees it. `crucible`: addresses of the agents by dataset, in the order of the pools."""

    sled_id: UUID
    address: str
    repo_depot_port: int
    scrimlet: bool
    pools: tuple[Zpool, ...]
    crucible: Mapping[UUID, tuple[UUID, str]]  # dataset: (its pool, address)
    pantry: str | None

    @property
    def ip(self) -> IPv6Address:
        return IPv6Address(SocketAddress.parse(self.address).host)

    @property
    def subnet(self) -> IPv6Network:
        """The /64 that this sled's zones are expected in."""
        return IPv6Network((self.ip, 64), strict=False)


@attrs.frozen
class Facts:
    """Everything a hand-off follows from. `dns`: where internal DNS is served, `dns_http` its configuration API.

    `created`: RFC 3339; `password_hash`: of `Wishes.password`, as argon2 writes it.
    """

    sleds: tuple[RackSled, ...]
    dns: str
    dns_http: str
    created: str
    password_hash: str


def check(wishes: Wishes, facts: Facts) -> list[str]:
    """Raises `HandoffImpossible`; returns what works, but not as on a rack, in plain words."""
    told: list[str] = []
    first = facts.sleds[0]
    if not first.pools:
        raise HandoffImpossible("a hand-off needs a zpool for the zones of the rack: --zpools 1")
    for option, address in (
        ("NEXUS_ADDR", wishes.nexus_internal if wishes.nexus_external is not None else None),
        ("--rss-internal-dns-dns-addr", facts.dns),
        ("--rss-internal-dns-http-addr", facts.dns_http),
        *(("--cockroach-addr", each) for each in wishes.cockroach),
        ("--rss-external-dns-internal-addr", wishes.external_dns_http),
    ):
        if address is None:
            continue
        host = SocketAddress.parse(address).host
        if ":" not in host:
            raise HandoffImpossible(f"{option} {address}: a zone of a rack has an IPv6 address")
        if not any(IPv6Address(host) in sled.subnet for sled in facts.sleds):
            told.append(f"{option} {address} lies in no sled's /64: Nexus may not plan with it")
    if wishes.nexus_external is None:
        told.append("no Nexus zone: without --rss-nexus-external-addr Nexus does not find itself in the blueprint")
    if len(wishes.cockroach) > len(first.pools):
        raise HandoffImpossible("--cockroach-addr: every CockroachDB zone needs a zpool of its own, see --zpools")
    if wishes.rack_subnet is not None and not all(sled.subnet.subnet_of(wishes.rack_subnet) for sled in facts.sleds):
        told.append(f"--rack-subnet {wishes.rack_subnet} does not contain every sled")
    if not wishes.cockroach:
        told.append("no CockroachDB zone: without --cockroach-addr inventory collection of Nexus fails (SR 6.3)")
    hosts = [sled.ip for sled in facts.sleds]
    if any(host.is_loopback for host in hosts):
        told.append(
            "sleds on the loopback address: leave blueprint execution of Nexus off, its addresses are no rack's"
        )
    elif len(set(hosts)) < len(hosts):
        told.append("two sleds share an address: on a rack each has a /64 of its own")
    if sum(sled.scrimlet for sled in facts.sleds) == 0:
        told.append("no sled is a scrimlet: Nexus will find no switch and collect no inventory (--role scrimlet)")
    return told
