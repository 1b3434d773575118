"""Operations on `Networking` as values: what `contract.CallArea` carries with `facts="networking"`.

`apply` refuses with a `SledError` before anything has changed, or changes and returns the operation's result.

Read before: core/networking/facts.py. Read next: http/networks.py.
"""

# ruff: noqa: ARG002 -- every AreaCall is told the time; few need it

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import attrs

from sim_sled.core.contract import AttachedSubnet, ExternalIp, MulticastMembership
from sim_sled.core.networking.facts import Networking
from sim_sled.core.networking.values import RouteSet, RouteState, V2pMapping

FACTS: Final = "networking"
"""Name of this area in `contract.CallArea.facts`."""


def _of(area: object) -> Networking:
    assert isinstance(area, Networking), f"a networking call on {type(area).__name__}"
    return area


@attrs.frozen
class PutExternalIp:
    propolis_id: UUID
    ip: ExternalIp

    def apply(self, area: object, now_us: int) -> None:
        _of(area).put_external_ip(self.propolis_id, self.ip)


@attrs.frozen
class DeleteExternalIp:
    propolis_id: UUID
    ip: ExternalIp

    def apply(self, area: object, now_us: int) -> None:
        _of(area).delete_external_ip(self.propolis_id, self.ip)


@attrs.frozen
class JoinMulticastGroup:
    propolis_id: UUID
    membership: MulticastMembership

    def apply(self, area: object, now_us: int) -> None:
        _of(area).join_multicast_group(self.propolis_id, self.membership)


@attrs.frozen
class LeaveMulticastGroup:
    propolis_id: UUID
    membership: MulticastMembership

    def apply(self, area: object, now_us: int) -> None:
        _of(area).leave_multicast_group(self.propolis_id, self.membership)


@attrs.frozen
class PutAttachedSubnets:
    propolis_id: UUID
    subnets: tuple[AttachedSubnet, ...]

    def apply(self, area: object, now_us: int) -> None:
        _of(area).put_attached_subnets(self.propolis_id, self.subnets)


@attrs.frozen
class PostAttachedSubnet:
    propolis_id: UUID
    subnet: AttachedSubnet

    def apply(self, area: object, now_us: int) -> None:
        _of(area).post_attached_subnet(self.propolis_id, self.subnet)


@attrs.frozen
class DeleteAttachedSubnets:
    propolis_id: UUID

    def apply(self, area: object, now_us: int) -> None:
        _of(area).delete_attached_subnets(self.propolis_id)


@attrs.frozen
class DeleteAttachedSubnet:
    propolis_id: UUID
    subnet: str

    def apply(self, area: object, now_us: int) -> None:
        _of(area).delete_attached_subnet(self.propolis_id, self.subnet)


@attrs.frozen
class ListV2p:
    def apply(self, area: object, now_us: int) -> list[V2pMapping]:
        return _of(area).list_v2p()


@attrs.frozen
class SetV2p:
    mapping: V2pMapping

    def apply(self, area: object, now_us: int) -> None:
        _of(area).set_v2p(self.mapping)


@attrs.frozen
class DeleteV2p:
    mapping: V2pMapping

    def apply(self, area: object, now_us: int) -> None:
        _of(area).delete_v2p(self.mapping)


@attrs.frozen
class ListVpcRoutes:
    def apply(self, area: object, now_us: int) -> list[RouteState]:
        return _of(area).list_vpc_routes()


@attrs.frozen
class SetVpcRoutes:
    sets: tuple[RouteSet, ...]

    def apply(self, area: object, now_us: int) -> None:
        _of(area).set_vpc_routes(self.sets)


@attrs.frozen
class PutFirewallRules:
    vpc_id: UUID
    vni: int
    rules: tuple[Mapping[str, object], ...]

    def apply(self, area: object, now_us: int) -> None:
        _of(area).put_firewall_rules(self.vpc_id, self.vni, self.rules)


@attrs.frozen
class SetEipGateways:
    mappings: Mapping[UUID, Mapping[str, tuple[UUID, ...]]]

    def apply(self, area: object, now_us: int) -> None:
        _of(area).set_eip_gateways(self.mappings)


@attrs.frozen
class PutProbes:
    probes: tuple[Mapping[str, object], ...]

    def apply(self, area: object, now_us: int) -> None:
        _of(area).put_probes(self.probes)
