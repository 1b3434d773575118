"""The hand-off as it goes over the wire: `RackInitializationRequest`, and the sled configurations that Nexus makes of
its blueprint (SR 6.2, 6.3).

Read before: core/handoff/zones.py. Read next: core/handoff/process.py.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Network, ip_address
from typing import Final
from uuid import UUID

import attrs

from nexus_client.dropshot.text import SocketAddress
from sim_sled.core.config import derived_id
from sim_sled.core.handoff.wishes import GENERATION, Facts, Wishes, check
from sim_sled.core.handoff.zones import Json, SledPlan, Zone, address_of, plans

ZONE: Final = "control-plane.oxide.internal"
EXTERNAL_ZONE: Final = "oxide-dev.test"
REPO_DEPOTS_MAX: Final = 6
"""Of all sleds only so many are told as depots (SR 6.3)."""

_SERVICE_NAMES: Final = {
    "internal_dns": "nameservice",
    "cockroachdb": "cockroach",
    "ntp": "internal-ntp",
    "crucible_pantry": "crucible-pantry",
    "nexus": "nexus",
    "external_dns": "external-dns",
}
_SWITCH_SERVICES: Final = {"mgs": 12225, "dendrite": 12224, "mgd": 4676, "ddm": 8000}


@attrs.frozen
class Handoff:
    """Everything that is handed over. `told`: what works, but not as on a rack."""

    body: Json
    configs: dict[UUID, Json]
    told: tuple[str, ...]

    @property
    def dns(self) -> Json:
        """What internal DNS shall answer from now on: `DnsConfigParams`."""
        config: Json = self.body["internal_dns_zone_config"]
        return config


def make(wishes: Wishes, facts: Facts) -> Handoff:
    """Raises `HandoffImpossible`."""
    told = check(wishes, facts)
    made = plans(wishes, facts)
    body = {
        "blueprint": _blueprint(made, facts.created),
        "physical_disks": [
            {
                "id": str(pool.disk.id),
                "sled_id": str(plan.sled.sled_id),
                "vendor": pool.disk.vendor,
                "model": pool.disk.model,
                "serial": pool.disk.serial,
                "variant": "u2",
            }
            for plan in made
            for pool in plan.sled.pools
        ],
        "zpools": [
            {"id": str(pool.id), "sled_id": str(plan.sled.sled_id), "physical_disk_id": str(pool.disk.id)}
            for plan in made
            for pool in plan.sled.pools
        ],
        "crucible_datasets": [
            {"zpool_id": str(pool_id), "dataset_id": str(dataset_id), "address": address}
            for plan in made
            for dataset_id, (pool_id, address) in plan.sled.crucible.items()
        ],
        "service_ip_pools": _service_pools(made),
        "certs": [] if wishes.certificate is None else [dict(zip(("cert", "key"), wishes.certificate, strict=True))],
        "internal_dns_zone_config": _dns(wishes, made, facts.created),
        "external_dns_zone_name": EXTERNAL_ZONE,
        "recovery_silo": {
            "silo_name": wishes.silo,
            "user_name": wishes.user,
            "user_password_hash": facts.password_hash,
        },
        "rack_network_config": _network(wishes, facts),
        "allowed_source_ips": {"allow": "any"},
        "initial_trust_quorum_configuration": None,
        "external_jumbo_frames_opt_in_enabled": False,
    }
    return Handoff(body, {plan.sled.sled_id: config_of(plan.blueprint) for plan in made}, tuple(told))


def _blueprint(made: tuple[SledPlan, ...], created: str) -> Json:
    return {
        "id": str(derived_id(made[0].sled.sled_id, "blueprint")),
        "sleds": {str(plan.sled.sled_id): plan.blueprint for plan in made},
        "parent_blueprint_id": None,
        "internal_dns_version": 1,
        "external_dns_version": 1,
        "external_networking_generation": 1,
        "nexus_generation": 1,
        "target_release_minimum_generation": 1,
        "cockroachdb_fingerprint": "",
        "cockroachdb_setting_preserve_downgrade": {"action": "do_not_modify"},
        "clickhouse_cluster_config": None,
        "oximeter_read_mode": {"type": "single_node"},
        "oximeter_read_version": 1,
        "pending_mgs_updates": {"by_baseboard": []},
        "source": {"source": "rss"},
        "creator": "sim-sled",
        "comment": "initial blueprint of a simulated rack",
        "time_created": created,
    }


def _service_pools(made: tuple[SledPlan, ...]) -> list[Json]:
    """One pool per IP version, with every external address of a zone (SR 6.1, rule 4)."""
    externals = [zone.external for plan in made for zone in plan.zones if zone.external is not None]
    pools: list[Json] = []
    for version in (4, 6):
        ips = sorted({ip_address(ip) for ip in externals if ip_address(ip).version == version}, key=int)
        if ips:
            pools.append(
                {
                    "name": f"oxide-service-pool-v{version}",
                    "description": "service addresses of the simulated rack",
                    "ranges": [{"first": str(ip), "last": str(ip)} for ip in ips],
                }
            )
    return pools


def _network(wishes: Wishes, facts: Facts) -> Json:
    subnet = wishes.rack_subnet or IPv6Network((facts.sleds[0].ip, 56), strict=False)
    return {
        "rack_subnet": str(subnet),
        "infra_ip_first": "127.0.0.1",
        "infra_ip_last": "127.0.0.1",
        "bgp": [],
        "bfd": [],
        "ports": [
            {
                "routes": [],
                "addresses": [],
                "switch": "switch0",
                "port": wishes.switch_port,
                "uplink_port_speed": "speed100_g",
                "uplink_port_fec": "none",
                "bgp_peers": [],
                "autoneg": False,
            }
        ],
    }


# --- DNS ------------------------------------------------------------------------------------------------------------


def _dns(wishes: Wishes, made: tuple[SledPlan, ...], created: str) -> Json:
    """The records that Nexus's first execution of the blueprint makes itself: it then finds nothing to change."""
    records: dict[str, list[Json]] = {}

    def host(name: str, address: str) -> None:
        records[name] = [{"type": "AAAA", "data": SocketAddress.parse(address).host}]

    def srv(name: str, target: str, port: int) -> None:
        data = {"prio": 0, "weight": 0, "port": port, "target": f"{target}.{ZONE}"}
        records.setdefault(name, []).append({"type": "SRV", "data": data})

    for number, plan in enumerate(made):
        sled = plan.sled
        host(f"{sled.sled_id}.sled", sled.address)
        if number < REPO_DEPOTS_MAX:
            srv("_repo-depot._tcp", f"{sled.sled_id}.sled", sled.repo_depot_port)
        for zone in plan.zones:
            _zone_records(zone, wishes, host, srv)
        if sled.scrimlet:
            name = f"dendrite-{sled.sled_id}.host"
            host(name, str(SocketAddress(str(sled.subnet.network_address + 2), 0)))
            for service, port in _SWITCH_SERVICES.items():
                srv(f"_{service}._tcp", name, port)
    zones = [{"zone_name": ZONE, "records": records}]
    return {"generation": 1, "serial": 1, "time_created": created, "zones": zones}


def _zone_records(
    zone: Zone, wishes: Wishes, host: Callable[[str, str], None], srv: Callable[[str, str, int], None]
) -> None:
    name = f"{zone.id}.host"
    address = address_of(zone)
    port = SocketAddress.parse(address).port
    host(name, address)
    if zone.name == "crucible":
        srv(f"_crucible._tcp.{zone.id}", name, port)
        return
    srv(f"_{_SERVICE_NAMES[zone.name]}._tcp", name, port)
    if zone.name == "nexus":
        srv("_nexus-lockstep._tcp", name, wishes.lockstep_port)


# --- the sled's side ------------------------------------------------------------------------------------------------


def config_of(sled: Json) -> Json:
    """The `OmicronSledConfig` that Nexus makes of a sled in a blueprint: all in service, dispositions dropped."""
    return {
        "generation": GENERATION,
        "disks": {disk["id"]: {key: disk[key] for key in ("id", "pool_id", "identity")} for disk in sled["disks"]},
        "datasets": {
            each["id"]: {
                "id": each["id"],
                "name": {"pool_name": each["pool"], "kind": each["kind"]},
                "compression": each["compression"],
                "quota": each["quota"],
                "reservation": each["reservation"],
            }
            for each in sled["datasets"]
        },
        "zones": {
            zone["id"]: {
                "id": zone["id"],
                "filesystem_pool": zone["filesystem_pool"],
                "image_source": zone["image_source"],
                "zone_type": _zone_type(zone["zone_type"]),
            }
            for zone in sled["zones"]
        },
        "remove_mupdate_override": sled["remove_mupdate_override"],
        "host_phase_2": sled["host_phase_2"],
        "measurements": [],
    }


def _zone_type(there: Json) -> Json:
    match there["type"]:
        case "nexus":
            kept = {key: value for key, value in there.items() if key != "nexus_generation"}
            return kept | {"external_ip": there["external_ip"]["ip"]}
        case "external_dns":
            return there | {"dns_address": there["dns_address"]["addr"]}
        case _:
            return there
