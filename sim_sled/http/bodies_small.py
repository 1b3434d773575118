"""Bodies of the operations around a VMM (SA 3.1, operations 5 to 22), and what the core wants of them.

Read before: http/bodies_network.py. Read next: http/arrivals.py, http/routes.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec

from nexus_client.dropshot.json import Json, plain
from nexus_client.dropshot.text import U16, U32, U64, Ip, IpNet, Ipv6, Ipv6Net, Mac, Uuid, Vni
from sim_sled.core import contract
from sim_sled.core.networking.values import Router, RouterVersion, RouteSet, RouteState, V2pMapping
from sim_sled.http.bodies_network import Membership, NicV1, NicV10, RuleV1, RuleV10, RuleV31, Struct, Subnet

# ---- VMMs ----------------------------------------------------------------------------------------------------------


class MigrationResult(Enum):
    SUCCESS = "Success"
    FAILURE = "Failure"


class SimMigrationBody(Struct, kw_only=True):
    """Simulator-only: capitalised results (SA 2.8)."""

    migration_id: Uuid
    result: MigrationResult


class SnapshotBody(Struct, kw_only=True):
    snapshot_id: Uuid


class ExternalIpKind(Enum):
    EPHEMERAL = "ephemeral"
    FLOATING = "floating"


class ExternalIpBody(Struct, kw_only=True):
    type: ExternalIpKind
    value: Ip

    def to_edge(self) -> contract.ExternalIp:
        return contract.ExternalIp(self.type.value, str(self.value))


class MulticastBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Externally tagged: exactly one of the two."""

    join: Membership | msgspec.UnsetType = msgspec.UNSET
    leave: Membership | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if (self.join is msgspec.UNSET) == (self.leave is msgspec.UNSET):
            raise ValueError("expected exactly one of `join` and `leave`")


class SubnetsBody(Struct, kw_only=True):
    subnets: tuple[Subnet, ...]

    def __post_init__(self) -> None:
        if len({subnet.subnet for subnet in self.subnets}) != len(self.subnets):
            raise ValueError("duplicate attached subnet")


# ---- virtual networks ----------------------------------------------------------------------------------------------


class V2pBody(Struct, kw_only=True):
    virtual_ip: Ip
    virtual_mac: Mac
    physical_host_ip: Ipv6
    vni: Vni

    def to_edge(self) -> V2pMapping:
        return V2pMapping(str(self.virtual_ip), str(self.virtual_mac), str(self.physical_host_ip), self.vni)


class RouterSystem(Struct, tag_field="type", tag="system", kw_only=True):
    pass


class RouterCustom(Struct, tag_field="type", tag="custom", kw_only=True):
    subnet: IpNet


class RouterIdBody(Struct, kw_only=True):
    vni: Vni
    kind: RouterSystem | RouterCustom


class RouterVersionBody(Struct, kw_only=True):
    router_id: Uuid
    version: U64


class GatewaySystem(Struct, tag_field="type", tag="system", kw_only=True):
    pass


class GatewayInstance(Struct, tag_field="type", tag="instance", kw_only=True):
    value: Uuid


class TargetDrop(Struct, tag_field="type", tag="drop", kw_only=True):
    pass


class TargetGateway(Struct, tag_field="type", tag="internet_gateway", kw_only=True):
    value: GatewaySystem | GatewayInstance


class TargetIp(Struct, tag_field="type", tag="ip", kw_only=True):
    value: Ip


class TargetSubnet(Struct, tag_field="type", tag="vpc_subnet", kw_only=True):
    value: IpNet


class Route(Struct, kw_only=True):
    dest: IpNet
    target: TargetDrop | TargetGateway | TargetIp | TargetSubnet


class RouteSetBody(Struct, kw_only=True):
    id: RouterIdBody
    routes: tuple[Route, ...]
    version: RouterVersionBody | None = None

    def to_edge(self) -> RouteSet:
        kind, version = self.id.kind, self.version
        return RouteSet(
            Router(self.id.vni, str(kind.subnet) if isinstance(kind, RouterCustom) else None),
            None if version is None else RouterVersion(version.router_id.uuid, int(version.version)),
            _set_of(self.routes),
        )


def _set_of(items: tuple[object, ...]) -> tuple[Mapping[str, object], ...]:
    """Plain JSON values, sorted and without repetitions: the original's type is a set."""
    by_text = {msgspec.json.encode(value, order="deterministic"): value for value in map(plain, items)}
    return tuple(by_text[text] for text in sorted(by_text))


def route_state_json(state: RouteState) -> dict[str, object]:
    """`ResolvedVpcRouteState`."""
    router = state.id
    kind = {"type": "system"} if router.subnet is None else {"type": "custom", "subnet": router.subnet}
    return {"id": {"vni": router.vni, "kind": kind}, "version": state.version}


class FirewallV1(Struct, kw_only=True):
    vni: Vni
    rules: tuple[RuleV1, ...]

    def check(self) -> None:
        """Raises `InvalidRequest` if a target cannot be converted to the present shape."""
        for rule in self.rules:
            for target in rule.targets:
                target.to_edge()


class FirewallV10(Struct, kw_only=True):
    vni: Vni
    rules: tuple[RuleV10, ...]

    def check(self) -> None:
        """Nothing to convert."""


class FirewallV31(Struct, kw_only=True):
    vni: Vni
    rules: tuple[RuleV31, ...]

    def check(self) -> None:
        """Nothing to convert."""


class GatewaysBody(Struct, kw_only=True):
    mappings: dict[Uuid, dict[Ip, tuple[Uuid, ...]]]

    def to_facts(self) -> dict[UUID, dict[str, tuple[UUID, ...]]]:
        return {
            nic.uuid: {str(ip): tuple(sorted({gateway.uuid for gateway in ids})) for ip, ids in by_ip.items()}
            for nic, by_ip in self.mappings.items()
        }


class ProbeIpKind(Enum):
    SNAT = "snat"
    EPHEMERAL = "ephemeral"
    FLOATING = "floating"


class ProbeIp(Struct, kw_only=True):
    ip: Ip
    kind: ProbeIpKind
    first_port: U16
    last_port: U16


class ProbeV6(Struct, kw_only=True):
    id: Uuid
    external_ips: tuple[ProbeIp, ...]
    interface: NicV1


class ProbeV10(Struct, kw_only=True):
    id: Uuid
    external_ips: tuple[ProbeIp, ...]
    interface: NicV10


def _refuse_repeated(probes: tuple[ProbeV6, ...] | tuple[ProbeV10, ...]) -> None:
    if len({probe.id for probe in probes}) != len(probes):
        raise ValueError("duplicate probe id")


class ProbesV6(Struct, kw_only=True):
    probes: tuple[ProbeV6, ...]

    def __post_init__(self) -> None:
        _refuse_repeated(self.probes)


class ProbesV10(Struct, kw_only=True):
    probes: tuple[ProbeV10, ...]

    def __post_init__(self) -> None:
        _refuse_repeated(self.probes)


def probes_of(body: ProbesV6 | ProbesV10) -> tuple[dict[str, Any], ...]:
    """Plain values by id. Raises `InvalidRequest` where an old shape cannot be converted."""
    for probe in body.probes:
        probe.interface.to_edge()
    return tuple(plain(probe) for probe in sorted(body.probes, key=lambda probe: probe.id))


# ---- other sleds ---------------------------------------------------------------------------------------------------


class BaseboardId(Struct, kw_only=True):
    part_number: str
    serial_number: str


class Ipv6Subnet(Struct, kw_only=True):
    net: Ipv6Net


class StartSledBody(Struct, kw_only=True):
    id: Uuid
    rack_id: Uuid
    is_lrtq_learner: bool
    use_trust_quorum: bool
    subnet: Ipv6Subnet


class StartSledRequest(Struct, kw_only=True):
    generation: U64
    schema_version: U32
    body: StartSledBody


class AddSledBody(Struct, kw_only=True):
    sled_id: BaseboardId
    start_request: StartSledRequest


SIM_MIGRATION: Final = Json(SimMigrationBody)
SNAPSHOT: Final = Json(SnapshotBody)
EXTERNAL_IP: Final = Json(ExternalIpBody)
MULTICAST: Final = Json(MulticastBody)
SUBNETS: Final = Json(SubnetsBody)
SUBNET: Final = Json(Subnet)
V2P: Final = Json(V2pBody)
ROUTE_SETS: Final = Json(tuple[RouteSetBody, ...])
FIREWALL: Final[Mapping[int, Json[Any]]] = {1: Json(FirewallV1), 10: Json(FirewallV10), 31: Json(FirewallV31)}
GATEWAYS: Final = Json(GatewaysBody)
PROBES: Final[Mapping[int, Json[Any]]] = {6: Json(ProbesV6), 10: Json(ProbesV10)}
"""By the version since which they are so, as above."""
ADD_SLED: Final = Json(AddSledBody)
