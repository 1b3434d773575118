"""The rack of a hand-off as a blueprint has it: disks, datasets and zones of each sled (SR 6.2, 6.3).

Every id follows from the sled's, so the same command line always hands over the same rack.

Read before: core/handoff/wishes.py. Read next: core/handoff/body.py.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Any, Final
from uuid import UUID

import attrs

from nexus_client.dropshot.text import SocketAddress
from sim_sled.core.config import derived_id
from sim_sled.core.handoff.wishes import GENERATION, Facts, RackSled, Wishes

Json = dict[str, Any]

DEBUG_QUOTA: Final = 100 * 2**30
OFFSET_MIN: Final = 32
"""The lowest addresses of a sled's /64 belong to the global zone and the switch zone."""
OFFSET_MAX: Final = 2**16 - 1

_IN_SERVICE: Final = {"kind": "in_service"}
_NEXUS_NETS: Final = ("172.30.2.0/24", "fd77:e9d2:9cd9:2::/64")
_DNS_NETS: Final = ("172.30.1.0/24", "fd77:e9d2:9cd9:1::/64")
"""The networks of services' own interfaces, fixed in every rack (`common/src/address.rs`)."""
_NEXUS_MAC: Final = "A8:40:25:FF:80:06"
_DNS_MAC: Final = "A8:40:25:FF:80:07"
_SERVICES_VNI: Final = 100


@attrs.frozen
class Zone:
    """A zone of a blueprint. `name`: as in its dataset; `durable`: kind of the dataset that outlives it."""

    id: UUID
    name: str
    pool: str
    type: Json
    durable: str | None = None
    external: str | None = None  # its address in a pool of services

    @property
    def json(self) -> Json:
        return {
            "disposition": _IN_SERVICE,
            "id": str(self.id),
            "filesystem_pool": self.pool,
            "image_source": {"type": "install_dataset"},
            "zone_type": self.type,
        }


@attrs.frozen
class SledPlan:
    """What a sled shall have."""

    sled: RackSled
    zones: tuple[Zone, ...]

    @property
    def blueprint(self) -> Json:
        """`BlueprintSledConfig`."""
        return {
            "state": "active",
            "subnet": {"net": str(self.sled.subnet)},
            "last_allocated_ip_subnet_offset": self._offset(),
            "sled_agent_generation": GENERATION,
            "disks": [
                {
                    "disposition": _IN_SERVICE,
                    "id": str(pool.disk.id),
                    "pool_id": str(pool.id),
                    "identity": {"vendor": pool.disk.vendor, "model": pool.disk.model, "serial": pool.disk.serial},
                }
                for pool in self.sled.pools
            ],
            "datasets": self._datasets(),
            "zones": [zone.json for zone in self.zones],
            "remove_mupdate_override": None,
            "host_phase_2": {"slot_a": {"type": "current_contents"}, "slot_b": {"type": "current_contents"}},
            "measurements": {"type": "install_dataset"},
            "update_disposition": {"generation": 1, "kind": {"availability": "available"}},
        }

    def _offset(self) -> int:
        """The highest address in use: the planner goes on from there."""
        net = int(self.sled.subnet.network_address)
        used = [int(IPv6Address(ip)) - net for zone in self.zones if (ip := _underlay_ip(zone)) is not None]
        return max((offset for offset in used if OFFSET_MIN < offset <= OFFSET_MAX), default=OFFSET_MIN)

    def _datasets(self) -> list[Json]:
        made: list[Json] = []
        for pool in self.sled.pools:
            made.append(self._dataset(f"oxp_{pool.id}", "debug", quota=DEBUG_QUOTA))
            made += [
                self._dataset(f"oxp_{pool.id}", kind)
                for kind in ("zone", "local_storage", "local_storage_unencrypted")
            ]
        for dataset_id, (pool_id, address) in self.sled.crucible.items():
            made.append(self._dataset(f"oxp_{pool_id}", "crucible", dataset_id, address=address))
        for zone in self.zones:
            if zone.durable is not None:
                made.append(self._dataset(zone.pool, zone.durable))
            made.append(self._dataset(zone.pool, f"zone/oxz_{zone.name}_{zone.id}"))
        return made

    def _dataset(
        self,
        pool: str,
        kind: str,
        dataset_id: UUID | None = None,
        *,
        address: str | None = None,
        quota: int | None = None,
    ) -> Json:
        return {
            "id": str(dataset_id or derived_id(self.sled.sled_id, f"dataset/{pool}/{kind}")),
            "pool": pool,
            "kind": kind,
            "address": address,
            "compression": {"type": "off"},
            "quota": quota,
            "reservation": None,
            "disposition": "in_service",
        }


def plans(wishes: Wishes, facts: Facts) -> tuple[SledPlan, ...]:
    """One plan per sled; the rack's own services are on the first."""
    return tuple(
        SledPlan(sled, (*_own_zones(sled), *(_rack_zones(sled, wishes, facts) if number == 0 else ())))
        for number, sled in enumerate(facts.sleds)
    )


def _own_zones(sled: RackSled) -> tuple[Zone, ...]:
    """What every sled runs."""
    made = [
        Zone(
            derived_id(sled.sled_id, f"zone/crucible/{dataset_id}"),
            "crucible",
            f"oxp_{pool_id}",
            {"type": "crucible", "address": address, "dataset": {"pool_name": f"oxp_{pool_id}"}},
        )
        for dataset_id, (pool_id, address) in sled.crucible.items()
    ]
    if sled.pools:
        pool = f"oxp_{sled.pools[0].id}"
        ntp = {"type": "internal_ntp", "address": str(SocketAddress(str(sled.ip), 123))}
        made.append(Zone(derived_id(sled.sled_id, "zone/ntp"), "ntp", pool, ntp))
        if sled.pantry is not None:
            pantry = {"type": "crucible_pantry", "address": sled.pantry}
            made.append(Zone(derived_id(sled.sled_id, "zone/pantry"), "crucible_pantry", pool, pantry))
    return tuple(made)


def _rack_zones(sled: RackSled, wishes: Wishes, facts: Facts) -> tuple[Zone, ...]:
    pool = f"oxp_{sled.pools[0].id}"
    dataset = {"pool_name": pool}
    dns_ip = IPv6Address(SocketAddress.parse(facts.dns).host)
    # on a rack DNS has a /64 of its own, whose next address is the global zone's; in a sled's it may be anybody's
    shared = any(dns_ip in each.subnet for each in facts.sleds)
    made = [
        Zone(
            derived_id(sled.sled_id, "zone/internal_dns"),
            "internal_dns",
            pool,
            {
                "type": "internal_dns",
                "dataset": dataset,
                "dns_address": facts.dns,
                "gz_address": "::1" if shared else str(dns_ip + 1),
                "gz_address_index": 0,
                "http_address": facts.dns_http,
            },
            durable="internal_dns",
        )
    ]
    for number, address in enumerate(wishes.cockroach):
        # each on a pool of its own: a pool has one dataset of a kind
        on = f"oxp_{sled.pools[number].id}"
        cockroach = {"type": "cockroach_db", "address": address, "dataset": {"pool_name": on}}
        zone_id = derived_id(sled.sled_id, f"zone/cockroach/{address}")
        made.append(Zone(zone_id, "cockroachdb", on, cockroach, durable="cockroachdb"))
    if wishes.nexus_external is not None:
        made.append(_nexus(sled, wishes, pool, wishes.nexus_external))
    if wishes.external_dns_http is not None:
        made.append(_external_dns(sled, wishes.external_dns_http, pool))
    return tuple(made)


def _nexus(sled: RackSled, wishes: Wishes, pool: str, external: str) -> Zone:
    ip = SocketAddress.parse(external).host
    return Zone(
        wishes.nexus_id,
        "nexus",
        pool,
        {
            "type": "nexus",
            "internal_address": wishes.nexus_internal,
            "lockstep_port": wishes.lockstep_port,
            "nexus_generation": 1,
            "external_ip": {"id": str(derived_id(sled.sled_id, "external-ip/nexus")), "ip": ip},
            "external_tls": wishes.certificate is not None,
            "external_dns_servers": ["1.1.1.1"],
            "nic": _nic(sled, wishes.nexus_id, "nexus", ip, nets=_NEXUS_NETS, mac=_NEXUS_MAC),
        },
        external=ip,
    )


def _external_dns(sled: RackSled, http: str, pool: str) -> Zone:
    """Its DNS address is the same host's port 53, as the original has it."""
    ip = SocketAddress.parse(http).host
    zone_id = derived_id(sled.sled_id, "zone/external_dns")
    return Zone(
        zone_id,
        "external_dns",
        pool,
        {
            "type": "external_dns",
            "dataset": {"pool_name": pool},
            "http_address": http,
            "dns_address": {
                "id": str(derived_id(sled.sled_id, "external-ip/external-dns")),
                "addr": str(SocketAddress(ip, 53)),
            },
            "nic": _nic(sled, zone_id, "external-dns", ip, nets=_DNS_NETS, mac=_DNS_MAC),
        },
        durable="external_dns",
        external=ip,
    )


def _nic(sled: RackSled, zone_id: UUID, name: str, external: str, *, nets: tuple[str, str], mac: str) -> Json:
    """Of the family of the zone's external address; the first five addresses of a network are reserved."""
    version = ip_address(external).version
    subnet = nets[0] if version == 4 else nets[1]
    base = subnet.partition("/")[0]
    ip = str(ip_address(base) + 5)
    return {
        "id": str(derived_id(sled.sled_id, f"nic/{name}")),
        "kind": {"type": "service", "id": str(zone_id)},
        "name": f"{name}-{zone_id}",
        "mac": mac,
        "primary": True,
        "slot": 0,
        "vni": _SERVICES_VNI,
        "ip_config": {"type": f"v{version}", "value": {"ip": ip, "subnet": subnet, "transit_ips": []}},
    }


def address_of(zone: Zone) -> str:
    """Where other parts of the control plane find this zone, `host:port`."""
    for name in ("address", "internal_address", "http_address"):
        if name in zone.type:
            return str(zone.type[name])
    raise AssertionError(f"{zone.name} has no address")


def _underlay_ip(zone: Zone) -> str | None:
    host = SocketAddress.parse(address_of(zone)).host
    return host if ":" in host else None
