"""Network parts of request bodies: interfaces, external addresses, firewall rules (SA 4.2).

A class named `…V10` is what API version 10.0.0 introduced and stays valid until the next one of its kind. Shapes that
a version only converts away (one field per family instead of tagged forms) are checked here and converted to
`edge` values by `to_edge`, which raises `InvalidRequest` where the original's conversion fails: after parsing, so
without "unable to parse JSON body".

Read before: nexus_client/dropshot/text.py.
Read next: http/bodies_bootstore.py, http/bodies_omicron.py, http/bodies_register.py, http/bodies_small.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from nexus_client.dropshot.text import (
    U8,
    U16,
    IcmpRange,
    Ip,
    IpNet,
    Ipv4,
    Ipv4Net,
    Ipv6,
    Ipv6Net,
    Mac,
    Name,
    PortRange,
    Uuid,
    Vni,
)
from sim_sled.core import contract
from sim_sled.core.errors import InvalidRequest

SNAT_BLOCK: Final = 16384
"""Source NAT ports come in blocks of this size, aligned to it (SA 4.2)."""

V4_PREFIX: Final = range(8, 27)
V6_PREFIX: Final = range(64, 65)
"""Prefix lengths a VPC subnet may have."""


class Struct(msgspec.Struct, kw_only=True):
    """Base of request bodies: unknown fields are ignored (SA 1.5)."""


# ---- interfaces ----------------------------------------------------------------------------------------------------


class NicInstance(Struct, tag_field="type", tag="instance", kw_only=True):
    id: Uuid


class NicService(Struct, tag_field="type", tag="service", kw_only=True):
    id: Uuid


class NicProbe(Struct, tag_field="type", tag="probe", kw_only=True):
    id: Uuid


NicKind = NicInstance | NicService | NicProbe


def _why_not_in(ip: str, subnet: IpNet) -> str | None:
    if subnet.width not in (V6_PREFIX if subnet.is_v6 else V4_PREFIX):
        return f"a subnet of prefix length {subnet.width} is not allowed for an interface"
    if not subnet.contains(ip):
        return f"IP subnet {subnet} does not contain the address {ip}"
    return None


class PrivateV4(Struct, kw_only=True):
    ip: Ipv4
    subnet: Ipv4Net
    transit_ips: tuple[Ipv4Net, ...] = ()

    def __post_init__(self) -> None:
        if why := _why_not_in(self.ip, self.subnet):
            raise ValueError(why)


class PrivateV6(Struct, kw_only=True):
    ip: Ipv6
    subnet: Ipv6Net
    transit_ips: tuple[Ipv6Net, ...] = ()  # the documents demand it, the parser does not (SR 2.1)

    def __post_init__(self) -> None:
        if why := _why_not_in(self.ip, self.subnet):
            raise ValueError(why)


class PrivateBoth(Struct, kw_only=True):
    v4: PrivateV4
    v6: PrivateV6


class IpConfigV4(Struct, tag_field="type", tag="v4", kw_only=True):
    value: PrivateV4

    @property
    def subnets(self) -> tuple[str, ...]:
        return (str(self.value.subnet),)


class IpConfigV6(Struct, tag_field="type", tag="v6", kw_only=True):
    value: PrivateV6

    @property
    def subnets(self) -> tuple[str, ...]:
        return (str(self.value.subnet),)


class IpConfigBoth(Struct, tag_field="type", tag="dual_stack", kw_only=True):
    value: PrivateBoth

    @property
    def subnets(self) -> tuple[str, ...]:
        return (str(self.value.v4.subnet), str(self.value.v6.subnet))


class _Nic(Struct, kw_only=True):
    id: Uuid
    kind: NicKind
    name: Name
    mac: Mac
    vni: Vni
    primary: bool
    slot: U8


class NicV1(_Nic, kw_only=True):
    """One family per interface; that the parts agree is checked when it is converted."""

    ip: Ip
    subnet: IpNet
    transit_ips: tuple[IpNet, ...] = ()

    def to_edge(self) -> contract.Nic:
        is_v6 = ":" in self.ip
        if is_v6 != self.subnet.is_v6 or any(net.is_v6 != is_v6 for net in self.transit_ips):
            raise InvalidRequest(f"interface {self.name}: address, subnet and transit IPs must be of one IP family")
        if why := _why_not_in(self.ip, self.subnet):
            raise InvalidRequest(f"interface {self.name}: {why}")
        return contract.Nic(vni=self.vni, subnets=(str(self.subnet),))


class NicV10(_Nic, kw_only=True):
    ip_config: IpConfigV4 | IpConfigV6 | IpConfigBoth

    def to_edge(self) -> contract.Nic:
        return contract.Nic(vni=self.vni, subnets=self.ip_config.subnets)


# ---- firewall rules ------------------------------------------------------------------------------------------------


class Status(Enum):
    DISABLED = "disabled"
    ENABLED = "enabled"


class Direction(Enum):
    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Action(Enum):
    ALLOW = "allow"
    DENY = "deny"


class HostIp(Struct, tag_field="type", tag="ip", kw_only=True):
    value: IpNet


class HostVpc(Struct, tag_field="type", tag="vpc", kw_only=True):
    value: Vni


class IcmpFilter(Struct, kw_only=True):
    icmp_type: U8
    code: IcmpRange | None = None


class Tcp(Struct, tag_field="type", tag="tcp", kw_only=True):
    pass


class Udp(Struct, tag_field="type", tag="udp", kw_only=True):
    pass


class Icmp(Struct, tag_field="type", tag="icmp", kw_only=True):
    value: IcmpFilter | None = None


class Icmp6(Struct, tag_field="type", tag="icmp6", kw_only=True):
    value: IcmpFilter | None = None


class _Rule(Struct, kw_only=True):
    status: Status
    direction: Direction
    action: Action
    priority: U16
    filter_hosts: tuple[HostIp | HostVpc, ...] | None = None
    filter_ports: tuple[PortRange, ...] | None = None


class RuleV1(_Rule, kw_only=True):
    targets: tuple[NicV1, ...]
    filter_protocols: tuple[Tcp | Udp | Icmp, ...] | None = None


class RuleV10(_Rule, kw_only=True):
    targets: tuple[NicV10, ...]
    filter_protocols: tuple[Tcp | Udp | Icmp, ...] | None = None


class RuleV31(_Rule, kw_only=True):
    targets: tuple[NicV10, ...]
    filter_protocols: tuple[Tcp | Udp | Icmp | Icmp6, ...] | None = None


# ---- external addresses --------------------------------------------------------------------------------------------


def _check_ports(first: int, last: int) -> None:
    if first % SNAT_BLOCK or last != first + SNAT_BLOCK - 1:
        raise ValueError(f"source NAT ports {first} to {last} are not an aligned block of {SNAT_BLOCK}")


class SnatV1(Struct, kw_only=True):
    ip: Ip
    first_port: U16
    last_port: U16

    def __post_init__(self) -> None:
        _check_ports(self.first_port, self.last_port)


class SnatV4(Struct, kw_only=True):
    ip: Ipv4
    first_port: U16
    last_port: U16

    def __post_init__(self) -> None:
        _check_ports(self.first_port, self.last_port)


class SnatV6(Struct, kw_only=True):
    ip: Ipv6
    first_port: U16
    last_port: U16

    def __post_init__(self) -> None:
        _check_ports(self.first_port, self.last_port)


class ExternalV4(Struct, kw_only=True):
    floating_ips: tuple[Ipv4, ...]
    source_nat: SnatV4 | None = None
    ephemeral_ip: Ipv4 | None = None


class ExternalV6(Struct, kw_only=True):
    floating_ips: tuple[Ipv6, ...]
    source_nat: SnatV6 | None = None
    ephemeral_ip: Ipv6 | None = None


class ExternalBoth(Struct, kw_only=True):
    v4: ExternalV4
    v6: ExternalV6


class ExternalOnlyV4(Struct, tag_field="type", tag="v4", kw_only=True):
    value: ExternalV4


class ExternalOnlyV6(Struct, tag_field="type", tag="v6", kw_only=True):
    value: ExternalV6


class ExternalDual(Struct, tag_field="type", tag="dual_stack", kw_only=True):
    value: ExternalBoth


ExternalV11 = ExternalOnlyV4 | ExternalOnlyV6 | ExternalDual


class ExternalV32(Struct, kw_only=True):
    v4: ExternalV4 | None = None
    v6: ExternalV6 | None = None


def _of_family(part: ExternalV4 | ExternalV6 | None) -> tuple[contract.ExternalIp, ...]:
    if part is None:
        return ()
    floating = tuple(contract.ExternalIp("floating", str(ip)) for ip in part.floating_ips)
    if part.ephemeral_ip is None:
        return floating
    return (contract.ExternalIp("ephemeral", str(part.ephemeral_ip)), *floating)


def external_ips_v1(
    source_nat: SnatV1, ephemeral: Ip | None, floating: tuple[Ip, ...]
) -> tuple[contract.ExternalIp, ...]:
    """Untagged form of 1 to 10: all addresses must be of one family, that of the source NAT address."""
    ips = (*((ephemeral,) if ephemeral is not None else ()), *floating)
    if any((":" in ip) != (":" in source_nat.ip) for ip in ips):
        raise InvalidRequest("external IP addresses must all be of one IP family")
    found = tuple(contract.ExternalIp("floating", str(ip)) for ip in floating)
    return found if ephemeral is None else (contract.ExternalIp("ephemeral", str(ephemeral)), *found)


def external_ips_v11(config: ExternalV11 | None) -> tuple[contract.ExternalIp, ...]:
    """Tagged and optional form of 11 to 31."""
    match config:
        case None:
            return ()
        case ExternalDual(value=both):
            return _of_family(both.v4) + _of_family(both.v6)
        case ExternalOnlyV4() | ExternalOnlyV6():
            return _of_family(config.value)


def external_ips_v32(config: ExternalV32) -> tuple[contract.ExternalIp, ...]:
    """One field per family, each optional, since 32."""
    return _of_family(config.v4) + _of_family(config.v6)


# ---- multicast, subnets --------------------------------------------------------------------------------------------


class Membership(Struct, kw_only=True):
    group_ip: Ip
    sources: tuple[Ip, ...]

    def to_edge(self) -> contract.MulticastMembership:
        return contract.MulticastMembership(str(self.group_ip), tuple(str(source) for source in self.sources))


class SubnetKind(Enum):
    VPC = "vpc"
    EXTERNAL = "external"


class Subnet(Struct, kw_only=True):
    subnet: IpNet
    kind: SubnetKind

    def to_edge(self) -> contract.AttachedSubnet:
        return contract.AttachedSubnet(str(self.subnet), self.kind.value)
