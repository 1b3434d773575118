"""What a Nexus demands of a rack hand-off, in its order; each rule is a refusal with its text (SR 6.1).

It is about what a hand-off must contain, not about what becomes of it: the model plans and executes no blueprint.

Read before: stub/refusal.py. Read next: stub/server/internal_api.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import attrs
import msgspec

from nexus_client.stub.refusal import Refusal, Refused, invalid_request, not_found

RACK_ID: Final = UUID("c19a698f-c6f9-4a17-ae30-20d711b8f7dc")
"""Of every development Nexus (SR 6.1, rule 1)."""

CONTROL_PLANE_ZONE: Final = "control-plane.oxide.internal"

SWITCH_PORTS: Final = frozenset(f"qsfp{number}" for number in range(32))
"""What `populate_switch_ports` finds on a switch, or on a simulated one."""

_PASSWORD_HASH: Final = re.compile(r"\$(?P<algorithm>[a-z0-9-]+)\$v=\d+\$m=(?P<memory>\d+),t=\d+,p=\d+\$.+\$.+")
MEMORY_KIB_MIN: Final = 98_304

Json = dict[str, Any]


class _Range(msgspec.Struct):
    first: str
    last: str

    def holds(self, ip: IPv4Address | IPv6Address) -> bool:
        first, last = ip_address(self.first), ip_address(self.last)
        return first.version == ip.version and int(first) <= int(ip) <= int(last)


class _Pool(msgspec.Struct):
    name: str
    description: str
    ranges: Annotated[list[_Range], msgspec.Meta(min_length=1)]


class _Disk(msgspec.Struct):
    id: UUID
    sled_id: UUID
    vendor: str
    model: str
    serial: str
    variant: str


class _Zpool(msgspec.Struct):
    id: UUID
    sled_id: UUID
    physical_disk_id: UUID


class _Dataset(msgspec.Struct):
    zpool_id: UUID
    dataset_id: UUID
    address: str


class _Silo(msgspec.Struct):
    silo_name: str
    user_name: str
    user_password_hash: str


class _Certificate(msgspec.Struct):
    cert: str
    key: str


class _DnsZone(msgspec.Struct):
    zone_name: str
    records: Json


class _Dns(msgspec.Struct):
    generation: int
    serial: int
    time_created: str
    zones: list[_DnsZone]


class _Port(msgspec.Struct):
    port: str
    switch: Literal["switch0", "switch1"]
    routes: list[Json]
    addresses: list[Json]
    bgp_peers: list[Json]
    uplink_port_speed: str


class _Network(msgspec.Struct):
    rack_subnet: str
    infra_ip_first: str
    infra_ip_last: str
    ports: list[_Port]
    bgp: list[Json]


class _Zone(msgspec.Struct):
    id: UUID
    filesystem_pool: str
    image_source: Json
    disposition: Json
    zone_type: Json


class _PlannedDisk(msgspec.Struct):
    id: UUID
    pool_id: UUID
    identity: Json
    disposition: Json


class _PlannedDataset(msgspec.Struct):
    id: UUID
    pool: str
    kind: str
    compression: Json
    disposition: str


class _Slots(msgspec.Struct):
    slot_a: Json
    slot_b: Json


class _Sled(msgspec.Struct):
    state: Literal["active", "decommissioned"]
    subnet: Json
    last_allocated_ip_subnet_offset: int
    sled_agent_generation: int
    disks: list[_PlannedDisk]
    datasets: list[_PlannedDataset]
    zones: list[_Zone]
    host_phase_2: _Slots
    measurements: Json
    update_disposition: Json


class _Blueprint(msgspec.Struct):
    id: UUID
    sleds: dict[UUID, _Sled]
    internal_dns_version: int
    external_dns_version: int
    nexus_generation: int
    external_networking_generation: int
    target_release_minimum_generation: int
    creator: str
    comment: str
    time_created: str
    source: Json
    oximeter_read_mode: Json
    oximeter_read_version: int
    pending_mgs_updates: Json
    cockroachdb_fingerprint: str
    cockroachdb_setting_preserve_downgrade: Json


class HandoffBody(msgspec.Struct):
    """`RackInitializationRequest`, as far as a rule looks at it; the rest is only asked to be there."""

    allowed_source_ips: Json
    blueprint: _Blueprint
    certs: list[_Certificate]
    crucible_datasets: list[_Dataset]
    external_dns_zone_name: str
    internal_dns_zone_config: _Dns
    physical_disks: list[_Disk]
    rack_network_config: _Network
    recovery_silo: _Silo
    service_ip_pools: list[_Pool]
    zpools: list[_Zpool]


@attrs.define(eq=False)
class RackState:
    """Whether the rack is initialised, and with what. `switch_ports`: known ones of either switch."""

    rack_id: UUID = RACK_ID
    switch_ports: frozenset[str] = SWITCH_PORTS
    handed_over: HandoffBody | None = None

    def complete(self, rack_id: UUID, body: HandoffBody) -> None:
        """Take a hand-off. Raises `Refused`. A rack that is initialised says yes as soon as the network is right:
        what comes after that is one transaction, which ends early then.
        """
        _parsed(body)
        if rack_id != self.rack_id:
            raise not_found("rack", rack_id)
        if all(zone.zone_name != CONTROL_PLANE_ZONE for zone in body.internal_dns_zone_config.zones):
            raise invalid_request("expected initial DNS config to include control plane zone")
        for port in body.rack_network_config.ports:
            if port.port not in self.switch_ports:
                raise Refused(Refusal(404, "ObjectNotFound", f'not found: switch-port with name "{port.port}"'))
        if self.handed_over is not None:
            return
        for ip in _external_ips(body.blueprint):
            if not any(each.holds(ip) for pool in body.service_ip_pools for each in pool.ranges):
                raise invalid_request(f"no system services pool for external IP {ip}")
        zpools = {zpool.id for zpool in body.zpools}
        for dataset in body.crucible_datasets:
            if dataset.zpool_id not in zpools:
                raise not_found("zpool", dataset.zpool_id)
        disks = {disk.id for disk in body.physical_disks}
        for zpool in body.zpools:
            if zpool.physical_disk_id not in disks:
                raise not_found("physical-disk", zpool.physical_disk_id)
        self.handed_over = body


def _parsed(body: HandoffBody) -> None:
    """What the original's types refuse while they are read."""
    if not body.rack_network_config.ports:
        raise _unparsed("rack_network_config.ports: invalid length 0, expected at least one uplink port")
    found = _PASSWORD_HASH.fullmatch(body.recovery_silo.user_password_hash)
    if found is None:
        raise _unparsed("recovery_silo.user_password_hash: password hash: not in PHC form")
    if found["algorithm"] != "argon2id" or int(found["memory"]) < MEMORY_KIB_MIN:
        raise _unparsed("recovery_silo.user_password_hash: password hash: algorithm: expected argon2id at full cost")
    for pool in body.service_ip_pools:
        for each in pool.ranges:
            try:
                first, last = ip_address(each.first), ip_address(each.last)
            except ValueError as error:
                raise _unparsed(f"service_ip_pools: {error}") from None
            if first.version != last.version or int(first) > int(last):
                raise _unparsed("service_ip_pools: last address must be greater than the first")


def _unparsed(text: str) -> Refused:
    return Refused(Refusal(400, None, f"unable to parse JSON body: {text}"))


def _external_ips(blueprint: _Blueprint) -> Iterator[IPv4Address | IPv6Address]:
    """Of Nexus, external DNS and boundary NTP zones."""
    for sled in blueprint.sleds.values():
        for zone in sled.zones:
            match zone.zone_type:
                case {"type": "nexus", "external_ip": {"ip": str(ip)}}:
                    yield _ip(ip)
                case {"type": "external_dns", "dns_address": {"addr": str(addr)}}:
                    yield _ip(addr.rpartition(":")[0].strip("[]"))
                case {"type": "boundary_ntp", "external_ip": {"snat_cfg": {"ip": str(ip)}}}:
                    yield _ip(ip)


def _ip(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError as error:
        raise _unparsed(f"blueprint: {error}") from None
