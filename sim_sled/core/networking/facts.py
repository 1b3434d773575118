"""What one sled knows of virtual networks (SA 3.4): pure state and its rules, no I/O.

Per VMM: external addresses, multicast groups, attached subnets and the routers its interfaces use; they are cleaned
up with the VMM. Per sled: virtual-to-physical mappings, VPC routes, firewall rules, gateways of external addresses,
probes. The sled calls `vmm_registered` and `vmm_removed`; everything else comes in as a value of
`calls.py` by `contract.CallArea`. Whatever is listed is sorted: two equal sleds answer equal bytes.

Read before: core/networking/values.py. Read next: core/networking/calls.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar
from uuid import UUID

from msgspec import Struct
from msgspec.structs import asdict

from sim_sled.core.contract import AttachedSubnet, ExternalIp, MulticastMembership, Registration
from sim_sled.core.errors import Conflict, Internal, InvalidRequest, TooMany
from sim_sled.core.networking.values import Router, RouterVersion, RouteSet, RouteState, V2pMapping

PER_VMM_MAX: Final = 1024
"""Addresses, groups or subnets of one VMM. Nexus allows 32 external addresses and 32 groups; a client that never
stops attaching must not eat the process."""

V2P_MAX: Final = 500_000
"""Mappings of one sled: a rack of 32 sleds with 500 VMs each, 8 interfaces and 2 families, stays below."""

FIREWALL_VPCS_MAX: Final = 20_000
"""VPCs with firewall rules on one sled: more than instances fit on one."""

EPHEMERAL: Final = "ephemeral"

_T = TypeVar("_T")


_NO_SUBNETS: Final[Mapping[str, AttachedSubnet]] = {}  # shared: a mapping here is replaced, never changed


class VmmNetwork(Struct, eq=False, gc=False):
    """Network state of one VMM.

    `external_ips`, `multicast_groups` and `attached_subnets` (by CIDR) are what is in effect: the registration's
    own, and whatever was attached or detached since. The `asked_*` sets hold only what came by attach calls: they
    start empty and decide on conflicts, as the original's do (SA 3.4).

    Tuples, not sets: a set of one costs 216 bytes, and there may be hundreds of thousands of VMMs.
    """

    routers: tuple[Router, ...] = ()
    external_ips: tuple[ExternalIp, ...] = ()
    asked_external_ips: tuple[ExternalIp, ...] = ()
    multicast_groups: tuple[MulticastMembership, ...] = ()
    attached_subnets: Mapping[str, AttachedSubnet] = _NO_SUBNETS
    asked_subnets: frozenset[str] = frozenset()


class RouteTable(Struct, eq=False, gc=False):
    """Routes of one router: known as long as a VMM on this sled uses it (`users`)."""

    router: Router  # the one object that all its users share
    users: int = 0
    version: RouterVersion | None = None
    routes: tuple[Mapping[str, object], ...] = ()


class FirewallRules(Struct, frozen=True):
    vni: int
    rules: tuple[Mapping[str, object], ...]


def _unique(items: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(items)) if len(items) > 1 else items


def family(ip: str) -> int:
    """4 or 6, of a canonical address text."""
    return 6 if ":" in ip else 4


def _with(items: tuple[_T, ...], new: _T, what: str) -> tuple[_T, ...]:
    """`items` as a set with `new` in it. Raises `TooMany`."""
    if new in items:
        return items
    if len(items) >= PER_VMM_MAX:
        raise TooMany(f"more than {PER_VMM_MAX} {what} on one VMM")
    return (*items, new)


def _without(items: tuple[_T, ...], gone: _T) -> tuple[_T, ...]:
    return tuple(item for item in items if item != gone)


class Networking:
    """The networking facts of one sled. Methods decide first and change second; refusals are `SledError`s."""

    __slots__ = ("_firewall", "_gateways", "_probes", "_routes", "_v2p", "_vmms", "_vpcs")

    def __init__(self) -> None:
        self._vmms: dict[UUID, VmmNetwork] = {}
        self._v2p: set[V2pMapping] = set()
        self._routes: dict[Router, RouteTable] = {}
        self._firewall: dict[UUID, FirewallRules] = {}
        self._vpcs: dict[int, set[UUID]] = {}  # VNI to the keys of `_firewall` that have it
        self._gateways: Mapping[UUID, Mapping[str, tuple[UUID, ...]]] = {}
        self._probes: tuple[Mapping[str, object], ...] = ()

    # ---- the sled's side -------------------------------------------------------------------------------------------

    def vmm_registered(self, propolis_id: UUID, registration: Registration) -> None:
        """Call on every accepted registration. A repeated one changes nothing but may bring further routers.

        Routers of a VMM: per VPC of its interfaces the system one, and one per subnet (SA 2.2 step 6).
        """
        vmm = self._vmms.get(propolis_id)
        if vmm is None:
            vmm = self._vmms[propolis_id] = VmmNetwork(
                external_ips=_unique(registration.external_ips),
                multicast_groups=_unique(registration.multicast_groups),
                attached_subnets={subnet.subnet: subnet for subnet in registration.attached_subnets} or _NO_SUBNETS,
            )
        held = list(vmm.routers)
        for nic in registration.nics:
            for subnet in (None, *nic.subnets):
                router = Router(nic.vni, subnet)
                table = self._routes.get(router)
                if table is None:
                    table = self._routes[router] = RouteTable(router)
                elif any(table.router is each for each in held):
                    continue
                table.users += 1
                held.append(table.router)
        vmm.routers = tuple(held)

    def vmm_removed(self, propolis_id: UUID) -> None:
        """Forget all that belongs to this VMM: its own sets, routes and firewall rules nobody else here needs."""
        vmm = self._vmms.pop(propolis_id, None)
        if vmm is None:
            return
        for router in vmm.routers:
            table = self._routes[router]
            table.users -= 1
            if table.users == 0:
                del self._routes[router]
                if router.subnet is None:
                    for vpc_id in self._vpcs.pop(router.vni, ()):
                        del self._firewall[vpc_id]

    def _vmm(self, propolis_id: UUID) -> VmmNetwork:
        vmm = self._vmms.get(propolis_id)
        if vmm is None:
            # Both originals answer 500 here, not NO_SUCH_INSTANCE (SA 2.12, 3.1)
            raise Internal(f"VMM {propolis_id} is not registered on this sled")
        return vmm

    # ---- per VMM ---------------------------------------------------------------------------------------------------

    def put_external_ip(self, propolis_id: UUID, ip: ExternalIp) -> None:
        """Attach an address; the same again is a no-op. One ephemeral address per IP family at a time."""
        vmm = self._vmm(propolis_id)
        if ip.kind == EPHEMERAL:
            for other in vmm.asked_external_ips:
                if other.kind == EPHEMERAL and family(other.ip) == family(ip.ip) and other != ip:
                    raise InvalidRequest("cannot replace existing ephemeral IP without explicit removal")
        asked = _with(vmm.asked_external_ips, ip, "external IPs")
        vmm.external_ips = _with(vmm.external_ips, ip, "external IPs")
        vmm.asked_external_ips = asked

    def delete_external_ip(self, propolis_id: UUID, ip: ExternalIp) -> None:
        """Detach an address, of the registration's own or attached since; one that is not there is no error."""
        vmm = self._vmm(propolis_id)
        vmm.external_ips = _without(vmm.external_ips, ip)
        vmm.asked_external_ips = _without(vmm.asked_external_ips, ip)

    def join_multicast_group(self, propolis_id: UUID, membership: MulticastMembership) -> None:
        vmm = self._vmm(propolis_id)
        vmm.multicast_groups = _with(vmm.multicast_groups, membership, "multicast groups")

    def leave_multicast_group(self, propolis_id: UUID, membership: MulticastMembership) -> None:
        vmm = self._vmm(propolis_id)
        vmm.multicast_groups = _without(vmm.multicast_groups, membership)

    def put_attached_subnets(self, propolis_id: UUID, subnets: Iterable[AttachedSubnet]) -> None:
        """Replace the whole set."""
        vmm = self._vmm(propolis_id)
        attached = {subnet.subnet: subnet for subnet in subnets}
        if len(attached) > PER_VMM_MAX:
            raise TooMany(f"more than {PER_VMM_MAX} attached subnets on one VMM")
        vmm.asked_subnets = frozenset(attached)
        vmm.attached_subnets = attached or _NO_SUBNETS

    def post_attached_subnet(self, propolis_id: UUID, subnet: AttachedSubnet) -> None:
        """Add one. `Conflict` if that subnet was attached before, of whatever kind."""
        vmm = self._vmm(propolis_id)
        if subnet.subnet in vmm.asked_subnets:
            raise Conflict("Subnet already attached")
        if len(vmm.asked_subnets) >= PER_VMM_MAX:
            raise TooMany(f"more than {PER_VMM_MAX} attached subnets on one VMM")
        vmm.asked_subnets |= {subnet.subnet}
        vmm.attached_subnets = {**vmm.attached_subnets, subnet.subnet: subnet}

    def delete_attached_subnets(self, propolis_id: UUID) -> None:
        vmm = self._vmm(propolis_id)
        vmm.asked_subnets = frozenset()
        vmm.attached_subnets = _NO_SUBNETS

    def delete_attached_subnet(self, propolis_id: UUID, subnet: str) -> None:
        vmm = self._vmm(propolis_id)
        vmm.asked_subnets -= {subnet}
        vmm.attached_subnets = {key: value for key, value in vmm.attached_subnets.items() if key != subnet}

    # ---- per sled --------------------------------------------------------------------------------------------------

    def list_v2p(self) -> list[V2pMapping]:
        return sorted(
            self._v2p, key=lambda m: (m.vni, family(m.virtual_ip), m.virtual_ip, m.virtual_mac, m.physical_host_ip)
        )

    def set_v2p(self, mapping: V2pMapping) -> None:
        if mapping not in self._v2p and len(self._v2p) >= V2P_MAX:
            raise TooMany(f"more than {V2P_MAX} virtual-to-physical mappings")
        self._v2p.add(mapping)

    def delete_v2p(self, mapping: V2pMapping) -> None:
        self._v2p.discard(mapping)

    def list_vpc_routes(self) -> list[RouteState]:
        return [RouteState(router, self._routes[router].version) for router in sorted(self._routes, key=_router_key)]

    def set_vpc_routes(self, sets: Iterable[RouteSet]) -> None:
        """Take each element that is news: its router is in use here and its version replaces the stored one.

        A null version, new or stored, always overwrites (SA 3.4).
        """
        for new in sets:
            table = self._routes.get(new.id)
            if table is None:
                continue  # nobody here uses it: Nexus sends every sled the routes of every VPC it ever had here
            if (
                table.version is not None
                and new.version is not None
                and not table.version.is_replaced_by(new.version)
            ):
                continue
            table.version = new.version
            table.routes = new.routes

    def put_firewall_rules(self, vpc_id: UUID, vni: int, rules: tuple[Mapping[str, object], ...]) -> None:
        """Replace the rules of a VPC. They leave with the last VMM of that VPC."""
        if vpc_id not in self._firewall and len(self._firewall) >= FIREWALL_VPCS_MAX:
            raise TooMany(f"firewall rules of more than {FIREWALL_VPCS_MAX} VPCs")
        old = self._firewall.get(vpc_id)
        if old is not None and old.vni != vni:
            self._vpcs[old.vni].remove(vpc_id)
            if not self._vpcs[old.vni]:
                del self._vpcs[old.vni]
        self._firewall[vpc_id] = FirewallRules(vni, rules)
        self._vpcs.setdefault(vni, set()).add(vpc_id)

    def set_eip_gateways(self, mappings: Mapping[UUID, Mapping[str, tuple[UUID, ...]]]) -> None:
        """Replace the whole map: NIC to external address to internet gateways."""
        self._gateways = mappings

    def put_probes(self, probes: tuple[Mapping[str, object], ...]) -> None:
        """Replace the whole set."""
        self._probes = probes

    # ---- for people and tests --------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, object]:
        """Everything, as JSON values in a stable order: what the control API shows (SA 6 #26)."""
        return {
            "vmms": {str(key): _vmm_json(self._vmms[key]) for key in sorted(self._vmms)},
            "v2p": [asdict(mapping) for mapping in self.list_v2p()],
            "vpc_routes": [
                {
                    "vni": router.vni,
                    "subnet": router.subnet,
                    "version": _version_json(table.version),
                    "users": table.users,
                    "routes": list(table.routes),
                }
                for router, table in sorted(self._routes.items(), key=lambda item: _router_key(item[0]))
            ],
            "firewall": {
                str(key): {"vni": self._firewall[key].vni, "rules": list(self._firewall[key].rules)}
                for key in sorted(self._firewall)
            },
            "eip_gateways": {
                str(nic): {ip: [str(g) for g in by_ip[ip]] for ip in sorted(by_ip)}
                for nic, by_ip in sorted(self._gateways.items())
            },
            "probes": list(self._probes),
        }


def _router_key(router: Router) -> tuple[int, int, str]:
    # the system router first, then IPv4 subnets, then IPv6
    return (router.vni, 0 if router.subnet is None else family(router.subnet), router.subnet or "")


def _version_json(version: RouterVersion | None) -> dict[str, object] | None:
    return None if version is None else {"router_id": str(version.router_id), "version": version.version}


def _vmm_json(vmm: VmmNetwork) -> dict[str, object]:
    return {
        "external_ips": [
            {"type": ip.kind, "value": ip.ip}
            for ip in sorted(vmm.external_ips, key=lambda ip: (ip.kind, family(ip.ip), ip.ip))
        ],
        "multicast_groups": [
            {"group_ip": m.group_ip, "sources": list(m.sources)}
            for m in sorted(vmm.multicast_groups, key=lambda m: (m.group_ip, m.sources))
        ],
        "attached_subnets": [
            {"kind": subnet.kind, "subnet": key} for key, subnet in sorted(vmm.attached_subnets.items())
        ],
        "routers": [{"vni": router.vni, "subnet": router.subnet} for router in sorted(vmm.routers, key=_router_key)],
    }
