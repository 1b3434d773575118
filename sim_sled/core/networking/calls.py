"""Operations on `Networking` as values: what `contract.CallArea` carries with `facts="networking"`.

`apply` refuses with a `SledError` before anything has changed, or changes and returns the operation's result.

Read before: core/networking/facts.py. Read next: http/networks.py.
"""

# ruff: noqa: ARG002 -- every AreaCall is told the time; few need it

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from msgspec import Struct

from sim_sled.core.contract import AttachedSubnet, ExternalIp, MulticastMembership
from sim_sled.core.networking.facts import Networking
from sim_sled.core.networking.values import RouteSet, RouteState, V2pMapping

FACTS: Final = "networking"
"""Name of this area in `contract.CallArea.facts`."""


def _of(area: object) -> Networking:
    assert isinstance(area, Networking), f"a networking call on {type(area).__name__}"
    return area


class PutExternalIp(Struct, frozen=True):
    propolis_id: UUID
    ip: ExternalIp

    def apply(self, area: object, now_us: int) -> None:
        _of(area).put_external_ip(self.propolis_id, self.ip)


class DeleteExternalIp(Struct, frozen=True):
    propolis_id: UUID
    ip: ExternalIp

    def apply(self, area: object, now_us: int) -> None:
        _of(area).delete_external_ip(self.propolis_id, self.ip)


class JoinMulticastGroup(Struct, frozen=True):
    propolis_id: UUID
    membership: MulticastMembership

    def apply(self, area: object, now_us: int) -> None:
        _of(area).join_multicast_group(self.propolis_id, self.membership)


class LeaveMulticastGroup(Struct, frozen=True):
    propolis_id: UUID
    membership: MulticastMembership

    def apply(self, area: object, now_us: int) -> None:
        _of(area).leave_multicast_group(self.propolis_id, self.membership)


class PutAttachedSubnets(Struct, frozen=True):
    propolis_id: UUID
    subnets: tuple[AttachedSubnet, ...]

    def apply(self, area: object, now_us: int) -> None:
        _of(area).put_attached_subnets(self.propolis_id, self.subnets)


class PostAttachedSubnet(Struct, frozen=True):
    propolis_id: UUID
    subnet: AttachedSubnet

    def apply(self, area: object, now_us: int) -> None:
        _of(area).post_attached_subnet(self.propolis_id, self.subnet)


class DeleteAttachedSubnets(Struct, frozen=True):
    propolis_id: UUID

    def apply(self, area: object, now_us: int) -> None:
        _of(area).delete_attached_subnets(self.propolis_id)


class DeleteAttachedSubnet(Struct, frozen=True):
    propolis_id: UUID
    subnet: str

    def apply(self, area: object, now_us: int) -> None:
        _of(area).delete_attached_subnet(self.propolis_id, self.subnet)


class ListV2p(Struct, frozen=True):
    def apply(self, area: object, now_us: int) -> list[V2pMapping]:
        return _of(area).list_v2p()


class SetV2p(Struct, frozen=True):
    mapping: V2pMapping

    def apply(self, area: object, now_us: int) -> None:
        _of(area).set_v2p(self.mapping)


class DeleteV2p(Struct, frozen=True):
    mapping: V2pMapping

    def apply(self, area: object, now_us: int) -> None:
        _of(area).delete_v2p(self.mapping)


class ListVpcRoutes(Struct, frozen=True):
    def apply(self, area: object, now_us: int) -> list[RouteState]:
        return _of(area).list_vpc_routes()


class SetVpcRoutes(Struct, frozen=True):
    sets: tuple[RouteSet, ...]

    def apply(self, area: object, now_us: int) -> None:
        _of(area).set_vpc_routes(self.sets)


class PutFirewallRules(Struct, frozen=True):
    vpc_id: UUID
    vni: int
    rules: tuple[Mapping[str, object], ...]

    def apply(self, area: object, now_us: int) -> None:
        _of(area).put_firewall_rules(self.vpc_id, self.vni, self.rules)


class SetEipGateways(Struct, frozen=True):
    mappings: Mapping[UUID, Mapping[str, tuple[UUID, ...]]]

    def apply(self, area: object, now_us: int) -> None:
        _of(area).set_eip_gateways(self.mappings)


class PutProbes(Struct, frozen=True):
    probes: tuple[Mapping[str, object], ...]

    def apply(self, area: object, now_us: int) -> None:
        _of(area).put_probes(self.probes)
