"""The rack's network configuration in every version from 1 to 48, both ways (SR 1, 2.1, 4.4).

A configuration is kept in the shape in which it was written, as in the original. `newer` makes the newest shape of it
and `older` one of 1 to 22, which is all that anybody can read.

    20  IPv6 infrastructure, max_paths, router_lifetime, null uplink addresses     25  no schema_version
    26  rack_network_config required, no ntp_servers     30  tagged peers and uplink addresses     33  NAT entries
    39  NAT entries with a generation     42  at least one port     47  target_addr, src_addr
    48  allow_ddm_traffic

Read before: http/bodies_network.py. Read next: http/bootstore.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any, Final

import msgspec

from nexus_client.dropshot.json import Json
from nexus_client.dropshot.text import U8, U16, U32, U64, Ip, IpNet, Ipv4, Ipv4Net, Ipv6, Ipv6Net, Mac, Scalar, Uuid
from sim_sled.core.errors import BadRequest, Internal
from sim_sled.http.bodies_network import SnatV1, Struct
from sim_sled.http.bodies_omicron import Generation, tagged

MaxPaths = Annotated[int, msgspec.Meta(ge=1, le=32)]
RouterLifetime = Annotated[int, msgspec.Meta(ge=0, le=9000)]
I32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]

_ADDRCONF_V1: Final = "::/128"
_UNNUMBERED: Final = "::"
_SPEEDS: Final = ("0", "1", "10", "25", "40", "50", "100", "200", "400")


class Switch(Enum):
    SWITCH0 = "switch0"
    SWITCH1 = "switch1"


class BfdMode(Enum):
    SINGLE_HOP = "single_hop"
    MULTI_HOP = "multi_hop"


class Fec(Enum):
    FIRECODE = "firecode"
    NONE = "none"
    RS = "rs"


class LldpStatus(Enum):
    ENABLED = "enabled"
    DISABLED = "disabled"
    RX_ONLY = "rx_only"
    TX_ONLY = "tx_only"


class Speed(Scalar):
    """`speed100_g`, read also `100G` (SR 2.1)."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        for speed in _SPEEDS:
            if text in {f"speed{speed}_g", f"{speed}G"}:
                return f"speed{speed}_g"
        expected = ", ".join(f"`speed{speed}_g`" for speed in _SPEEDS)
        raise ValueError(f"unknown variant `{text}`, expected one of {expected}")


def _usable(address: IPv4Address | IPv6Address) -> bool:
    """SR 2.1: what a peer or an uplink may have for an address."""
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        return False
    if isinstance(address, IPv4Address):
        return address != IPv4Address("255.255.255.255")
    return not address.is_link_local and address.ipv4_mapped is None


class RouterIp(Ip):
    """Of a BGP peer."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        found = super().canonical(text)
        if not _usable(ip_address(found)):
            raise ValueError(f"invalid router peer address: {found}")
        return found


class UplinkNet(IpNet):
    """Address of an uplink with its prefix."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        found = super().canonical(text)
        if not _usable(ip_address(found.partition("/")[0])):
            raise ValueError(f"invalid uplink address: {found}")
        return found


class Bfd(Struct, kw_only=True):
    detection_threshold: U8
    mode: BfdMode
    remote: Ip
    required_rx: U64
    switch: Switch
    local: Ip | None = None


class Lldp(Struct, kw_only=True):
    status: LldpStatus
    chassis_id: str | None = None
    port_id: str | None = None
    port_description: str | None = None
    system_name: str | None = None
    system_description: str | None = None
    management_addrs: tuple[Ip, ...] | None = None


class TxEq(Struct, kw_only=True):
    pre1: I32 | None = None
    pre2: I32 | None = None
    main: I32 | None = None
    post2: I32 | None = None
    post1: I32 | None = None


class Route(Struct, kw_only=True):
    destination: IpNet
    nexthop: Ip
    vlan_id: U16 | None = None
    rib_priority: U8 | None = None


class NoFiltering(Struct, tag_field="type", tag="no_filtering", kw_only=True):
    pass


class Allow(Struct, tag_field="type", tag="allow", kw_only=True):
    value: tuple[IpNet, ...]


Policy = NoFiltering | Allow

# ---- NAT entries ---------------------------------------------------------------------------------------------------


class NatBoundaryNtp(Struct, tag_field="kind", tag="boundary_ntp", kw_only=True):
    snat_cfg: SnatV1


class NatExternalDns(Struct, tag_field="kind", tag="external_dns", kw_only=True):
    external_ip: Ip


class NatNexus(Struct, tag_field="kind", tag="nexus", kw_only=True):
    external_ip: Ip


NatKind = NatBoundaryNtp | NatExternalDns | NatNexus


class NatEntry(Struct, kw_only=True):
    zone_id: Uuid
    sled_underlay_ip: Ipv6
    nic_mac: Mac
    vni: U32
    kind: NatKind


def _ports(kind: NatKind) -> tuple[str, int, int]:
    if isinstance(kind, NatBoundaryNtp):
        return str(kind.snat_cfg.ip), kind.snat_cfg.first_port, kind.snat_cfg.last_port
    return str(kind.external_ip), 0, 2**16 - 1


def _check_nat(entries: tuple[NatEntry, ...] | None) -> None:
    """SR 2.1: entries of each kind, no zone twice, no port twice on one address."""
    if entries is None:
        return
    if len({entry.zone_id for entry in entries}) != len(entries):
        raise ValueError("duplicate zone id in service_zone_nat_entries")
    for kind in (NatNexus, NatExternalDns, NatBoundaryNtp):
        if not any(isinstance(entry.kind, kind) for entry in entries):
            raise ValueError(f"no service zone NAT entry of kind {kind.__struct_config__.tag}")
    taken: list[tuple[str, int, int]] = []
    for entry in entries:
        ip, first, last = _ports(entry.kind)
        if any(ip == other and first <= until and since <= last for other, since, until in taken):
            raise ValueError(f"overlapping service zone NAT entries on {ip}")
        taken.append((ip, first, last))


class BlueprintNetworking(Struct, kw_only=True):
    blueprint_external_networking_generation: Generation
    service_zone_nat_entries: tuple[NatEntry, ...]

    def __post_init__(self) -> None:
        _check_nat(self.service_zone_nat_entries)


# ---- shapes that differ --------------------------------------------------------------------------------------------


def _post_nat(body: Any) -> None:
    _check_nat(body.service_zone_nat_entries)


def _post_numbered(peer: Any) -> None:
    if peer.src_addr is not None and (":" in peer.src_addr) != (":" in peer.target_addr):
        raise ValueError("source and target address must be of one IP family")


def _post_ports(config: Any) -> None:
    if not config.ports:
        raise ValueError("ports: invalid length 0, expected at least one uplink port")


Fields = list[Any]


def _struct(name: str, fields: Fields, check: Any = None) -> type[msgspec.Struct]:
    namespace = {} if check is None else {"__post_init__": check}
    return msgspec.defstruct(name, fields, bases=(Struct,), namespace=namespace, kw_only=True, module=__name__)


def _uplink_address(level: int) -> type[msgspec.Struct]:
    if level >= 30:
        address = tagged("Addrconf", "addrconf") | tagged("Static", "static", ip_net=UplinkNet)
        fields: Fields = [("address", address)]
    elif level >= 20:
        fields = [("address", IpNet | None, None)]
    else:
        fields = [("address", IpNet)]
    return _struct("UplinkAddressConfig", [*fields, ("vlan_id", U16 | None, None)])


def _peer(level: int) -> type[msgspec.Struct]:
    fields: Fields = [("asn", U32), ("port", str)]
    if level >= 30:
        unnumbered = tagged("Unnumbered", "unnumbered", router_lifetime=RouterLifetime)
        if level >= 47:
            numbered = msgspec.defstruct(
                "Numbered",
                [("target_addr", RouterIp), ("src_addr", RouterIp | None, None)],
                bases=(Struct,),
                namespace={"__post_init__": _post_numbered},
                tag_field="type",
                tag="numbered",
                kw_only=True,
                module=__name__,
            )
        else:
            numbered = tagged("Numbered", "numbered", ip=RouterIp)
        fields.append(("addr", unnumbered | numbered))
    elif level >= 20:
        fields += [("addr", Ip), ("router_lifetime", RouterLifetime, 0)]
    else:
        fields.append(("addr", Ipv4))
    fields += [
        (name, kind | None, None)
        for name, kind in (
            ("hold_time", U64),
            ("idle_hold_time", U64),
            ("delay_open", U64),
            ("connect_retry", U64),
            ("keepalive", U64),
            ("remote_asn", U32),
            ("min_ttl", U8),
            ("md5_auth_key", str),
            ("multi_exit_discriminator", U32),
            ("local_pref", U32),
            ("vlan_id", U16),
        )
    ]
    fields += [
        ("communities", tuple[U32, ...], ()),
        ("enforce_first_as", bool, False),
        ("allowed_import", Policy, msgspec.field(default_factory=NoFiltering)),
        ("allowed_export", Policy, msgspec.field(default_factory=NoFiltering)),
    ]
    return _struct("BgpPeerConfig", fields)


def _port(level: int) -> type[msgspec.Struct]:
    fields: Fields = [
        ("routes", tuple[Route, ...]),
        ("addresses", tuple[_uplink_address(level), ...]),  # type: ignore[misc]  # made at run time
        ("switch", Switch),
        ("port", str),
        ("uplink_port_speed", Speed),
        ("bgp_peers", tuple[_peer(level), ...]),  # type: ignore[misc]  # made at run time
        ("uplink_port_fec", Fec | None, None),
        ("autoneg", bool, False),
        ("lldp", Lldp | None, None),
        ("tx_eq", TxEq | None, None),
    ]
    if level >= 48:
        fields.append(("allow_ddm_traffic", bool, False))
    return _struct("PortConfig", fields)


def _rack(level: int) -> type[msgspec.Struct]:
    bgp: Fields = [
        ("asn", U32),
        ("originate", tuple[IpNet, ...] if level >= 20 else tuple[Ipv4Net, ...]),
        ("shaper", str | None, None),
        ("checker", str | None, None),
    ]
    if level >= 20:
        bgp.append(("max_paths", MaxPaths, 1))
    ip = Ip if level >= 20 else Ipv4
    return _struct(
        "RackNetworkConfig",
        [
            ("rack_subnet", Ipv6Net),
            ("infra_ip_first", ip),
            ("infra_ip_last", ip),
            ("ports", tuple[_port(level), ...]),  # type: ignore[misc]  # made at run time
            ("bgp", tuple[_struct("BgpConfig", bgp), ...]),  # type: ignore[misc]  # made at run time
            ("bfd", tuple[Bfd, ...], ()),
        ],
        _post_ports if level >= 42 else None,
    )


def _request(level: int) -> type[msgspec.Struct]:
    rack: Any = _rack(level)
    check = None
    if level >= 39:
        fields: Fields = [
            ("rack_network_config", rack),
            ("blueprint_external_networking_config", BlueprintNetworking | None, None),
        ]
    elif level >= 33:
        fields = [("rack_network_config", rack), ("service_zone_nat_entries", tuple[NatEntry, ...] | None, None)]
        check = _post_nat
    elif level >= 26:
        fields = [("rack_network_config", rack)]
    else:
        fields = [("ntp_servers", tuple[str, ...]), ("rack_network_config", rack | None, None)]
    outer: Fields = [("generation", U64), ("body", _struct("EarlyNetworkConfigBody", fields, check))]
    if level < 25:
        outer.append(("schema_version", U32))
    return _struct("WriteNetworkConfigRequest", outer)


_SHAPES: Final = (1, 20, 25, 26, 30, 33, 39, 42, 47, 48)
"""Versions that changed something in the request; the rest only gave things other names."""

_made: dict[int, Json[Any]] = {}


def shape_of(level: int) -> int:
    """The version whose shape `level` has."""
    return max(each for each in _SHAPES if each <= max(level, 1))


def REQUESTS(level: int) -> Json[Any]:  # noqa: N802 -- a table whose rows are made when they are first used
    """Decoder of the request of a version."""
    shape = shape_of(level)
    if shape not in _made:
        _made[shape] = Json(_request(shape))
    return _made[shape]


_switch_ports: dict[int, Json[Any]] = {}


def SWITCH_PORTS(level: int) -> Json[Any]:  # noqa: N802 -- as above
    """Decoder of `SwitchPorts` (1 to 44)."""
    shape = 30 if level >= 30 else 20 if level >= 20 else 1
    if shape not in _switch_ports:
        host_port = _struct(
            "HostPortConfig",
            [
                ("port", str),
                ("addrs", tuple[_uplink_address(shape), ...]),  # type: ignore[misc]  # made at run time
                ("lldp", Lldp | None, None),
                ("tx_eq", TxEq | None, None),
            ],
        )
        ports: Fields = [("uplinks", tuple[host_port, ...])]  # type: ignore[valid-type]  # made just above
        _switch_ports[shape] = Json(_struct("SwitchPorts", ports))
    return _switch_ports[shape]


# ---- conversions ---------------------------------------------------------------------------------------------------

Wire = Mapping[str, Any]


def newer(body: Wire, shape: int) -> Wire:
    """A body of version 25 or later in the newest shape. Raises `Internal` for addresses that nobody checked when
    they were written (20 to 29).
    """
    rack = body["rack_network_config"]
    nat = body.get("blueprint_external_networking_config")
    if body.get("service_zone_nat_entries") is not None:
        nat = {
            "blueprint_external_networking_generation": 1,
            "service_zone_nat_entries": body["service_zone_nat_entries"],
        }
    if rack is not None:
        rack = rack | {"ports": [_newer_port(port, shape) for port in rack["ports"]]}
    return {"rack_network_config": rack, "blueprint_external_networking_config": nat}


def _newer_port(port: Wire, shape: int) -> Wire:
    return {
        **port,
        "addresses": [_newer_address(each, shape) for each in port["addresses"]],
        "bgp_peers": [_newer_peer(each, shape) for each in port["bgp_peers"]],
        "allow_ddm_traffic": port.get("allow_ddm_traffic", False),
    }


def _newer_address(uplink: Wire, shape: int) -> Wire:
    if shape >= 30:
        return uplink
    net = uplink["address"]
    if net is None:
        return {**uplink, "address": {"type": "addrconf"}}
    return {**uplink, "address": {"type": "static", "ip_net": _checked(UplinkNet, net)}}


def _newer_peer(peer: Wire, shape: int) -> Wire:
    if shape >= 47:
        return peer
    if shape >= 30:
        addr = peer["addr"]
        if addr["type"] == "numbered":
            addr = {"type": "numbered", "target_addr": addr["ip"], "src_addr": None}
        return {**peer, "addr": addr}
    new = dict(peer)
    lifetime = new.pop("router_lifetime")
    if ip_address(new["addr"]).is_unspecified:
        new["addr"] = {"type": "unnumbered", "router_lifetime": lifetime}
    else:
        new["addr"] = {"type": "numbered", "target_addr": _checked(RouterIp, new["addr"]), "src_addr": None}
    return new


def _checked(kind: type[Scalar], text: str) -> str:
    try:
        return kind.canonical(text)
    except ValueError as error:
        raise Internal(f"the stored network config cannot be converted: {error}") from None


def older(body: Wire, level: int) -> Wire:
    """A body of the newest shape in that of 1 to 22. Raises `Internal`, and `BadRequest` below 20 for IPv6."""
    rack = body["rack_network_config"]
    if rack is None:
        return {"ntp_servers": [], "rack_network_config": None}
    rack = {**rack, "ports": [_older_port(port, level) for port in rack["ports"]]}
    if level < 20:
        rack["bgp"] = [{key: value for key, value in bgp.items() if key != "max_paths"} for bgp in rack["bgp"]]
        _only_v4(rack)
    return {"ntp_servers": [], "rack_network_config": rack}


def _older_port(port: Wire, level: int) -> Wire:
    new = {key: value for key, value in port.items() if key != "allow_ddm_traffic"}
    new["addresses"] = [_older_address(each, level) for each in port["addresses"]]
    new["bgp_peers"] = [_older_peer(each, level) for each in port["bgp_peers"]]
    return new


def _older_address(uplink: Wire, level: int) -> Wire:
    net = uplink["address"].get("ip_net")
    if net is None and level < 20:
        net = _ADDRCONF_V1
    return {**uplink, "address": net}


def _older_peer(peer: Wire, level: int) -> Wire:
    addr, new = peer["addr"], dict(peer)
    if addr["type"] == "unnumbered":
        new["addr"], lifetime = _UNNUMBERED if level >= 20 else "0.0.0.0", addr["router_lifetime"]
    else:
        if addr["src_addr"] is not None:
            raise Internal(f"peer {addr['target_addr']} has a source address, which versions before 47 cannot tell")
        new["addr"], lifetime = addr["target_addr"], 0
    return new if level < 20 else new | {"router_lifetime": lifetime}


def _only_v4(rack: Wire) -> None:
    told = [rack["infra_ip_first"], rack["infra_ip_last"]]
    told += [peer["addr"] for port in rack["ports"] for peer in port["bgp_peers"]]
    told += [net for bgp in rack["bgp"] for net in bgp["originate"]]
    for each in told:
        if ":" in each:
            raise BadRequest(f"error getting v1 config: {each} is not IPv4")
