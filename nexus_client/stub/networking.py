"""External IPs and subnets of instances, and who may use the serial console (NX 6).

Read before: stub/records.py, stub/sagas/runner.py. Read next: stub/sagas/ip.py.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from enum import Enum
from typing import Final
from uuid import UUID

import attrs

from nexus_client.stub.contract import (
    AttachIp,
    DetachIp,
    IpKind,
    NetworkInterface,
    SourceNat,
    VmSpec,
)
from nexus_client.stub.records import Instance, InstanceDbState, IpState, VmmDbState
from nexus_client.stub.refusal import Refused, internal, invalid_request, not_found, unavailable
from nexus_client.stub.rules import Rules, RuleSet
from nexus_client.stub.scope import Facts

V = VmmDbState
IPS_PER_INSTANCE_MAX: Final = 32
"""External IPs of an instance, its source NAT not counted (NX 6.1)."""
SUBNETS_PER_INSTANCE_MAX: Final = 32
"""Chosen here: NX does not state it."""
SNAT_PORTS: Final = 16_384
"""Ports of a source NAT slice; four instances share an address (SA 4.2)."""

# ---- what a VMM is told when it is registered ----------------------------------------------------------------------


_GUESTS: Final = int(ipaddress.IPv4Address("172.30.0.0"))
_NATS: Final = int(ipaddress.IPv4Address("203.0.113.0"))


def _address(net: int, host: int) -> str:
    return ".".join(map(str, (net + host).to_bytes(4, "big")))


def vm_spec(ctx: Facts, row: Instance) -> VmSpec:
    """The virtual machine of an instance; addresses follow from its ordinal, ids from its id."""
    mine = ctx.records.external_ips_of(row.id)
    ephemeral = [ip.address for ip in mine if ip.kind is IpKind.EPHEMERAL]
    host = 5 + row.ordinal % 1000  # the first five addresses of a VPC subnet are reserved
    nat = row.ordinal - 1
    mac = 0xF0_0000 + row.ordinal % 0xF_FFFF  # guests have the upper part of Oxide's block
    return VmSpec(
        hostname=row.hostname,
        ncpus=row.ncpus,
        memory_mb=row.memory // 1024**2,
        project_id=row.project_id,
        silo_id=row.silo_id,
        nic=NetworkInterface(
            id=ctx.named_id("nic", str(row.id)),
            name="net0",
            ip=_address(_GUESTS, host),
            subnet="172.30.0.0/22",
            mac=f"A8:40:25:{mac >> 16 & 0xFF:02X}:{mac >> 8 & 0xFF:02X}:{mac & 0xFF:02X}",
            vni=1024 + row.project_id.int % 0xFF_0000,
        ),
        source_nat=SourceNat(
            ip=_address(_NATS, 1 + nat // 4 % 254),
            first_port=nat % 4 * SNAT_PORTS,
            last_port=nat % 4 * SNAT_PORTS + SNAT_PORTS - 1,
        ),
        boot_disk_id=ctx.named_id("disk", str(row.id)),
        ephemeral_ip=ephemeral[0] if ephemeral else None,
        floating_ips=tuple(sorted(ip.address for ip in mine if ip.kind is IpKind.FLOATING)),
        subnets=tuple(sorted(ip.address for ip in mine if ip.kind is IpKind.SUBNET)),
    )


# ---- step 1: the gate on the instance record -----------------------------------------------------------------------


def check_address(kind: IpKind, address: str) -> str:
    """The address in normal form, or 400."""
    try:
        if kind is IpKind.SUBNET:
            return str(ipaddress.ip_network(address))
        return str(ipaddress.ip_address(address))
    except ValueError as error:
        raise invalid_request(str(error)) from None


@attrs.frozen
class Resource:
    """The address or subnet in question, as the gate reads it: its state and whose it is.

    `attached`: external IPs (or subnets) the instance has, source NAT not counted. `stack_fits`: the instance's NIC
    has an address of this IP version; the model's have both.
    """

    kind: IpKind
    state: IpState = IpState.DETACHED
    owner: UUID | None = None
    attached: int = 0
    version: int = 4
    stack_fits: bool = True


def gate(row: Instance, what: Resource, *, attach: bool) -> bool:
    """May it begin (NX 6.1, step 1)? True: a saga goes on; False: there is nothing to do. Raises `Refused`.

    The address is judged first, then migration and state of the instance: what has been done already is no error,
    whatever the instance does now.
    """
    texts = _SUBNET_TEXTS if what.kind is IpKind.SUBNET else _IP_TEXTS
    mine = what.owner == row.id
    at_work, done = (IpState.ATTACHING, IpState.ATTACHED) if attach else (IpState.DETACHING, IpState.DETACHED)
    words = {
        "kind": what.kind.value,
        "verb": "attach" if attach else "detach",
        "to": "to" if attach else "from",
        "state": row.state.label,
    }
    if what.state is done and (mine or not attach):
        return False
    if what.state is at_work and mine:
        return True
    if what.state in (IpState.ATTACHING, IpState.DETACHING):
        raise unavailable(texts.under_way.format(**words))
    if what.state is IpState.ATTACHED and not mine:
        raise invalid_request((texts.elsewhere if attach else texts.not_here).format(**words))
    if row.migration_id is not None:
        raise unavailable(texts.migrating.format(**words))
    if row.state not in (InstanceDbState.NO_VMM, InstanceDbState.VMM):
        raise invalid_request(texts.state.format(**words))
    if attach and what.attached >= texts.most:
        raise invalid_request(texts.too_many.format(most=texts.most))
    if attach and not what.stack_fits:
        raise invalid_request(texts.no_stack.format(**words, version=what.version, instance=row.id))
    return True


@attrs.frozen
class _Texts:
    """What the gate says of one kind of resource, as recorded (`ip_begin_attach`, `subnet_begin_attach`)."""

    under_way: str
    elsewhere: str
    not_here: str
    migrating: str
    state: str
    too_many: str
    no_stack: str
    most: int


_IP_TEXTS: Final = _Texts(
    under_way="tried to {verb} {kind} IP mid-attach/detach: "
    "{verb} will be safe to retry once operation on same IP resource completes",
    elsewhere="{kind} IP cannot be attached to one instance while still attached to another",
    not_here="{kind} IP is not attached to the target instance",
    # "detach" in both directions: as recorded
    migrating="tried to {verb} {kind} IP while instance was migrating: "
    "detach will be safe to retry once migrate completes",
    state="cannot {verb} {kind} IP {to} instance in {state} state",
    too_many="an instance may not have more than {most} external IP addresses",
    no_stack="The {kind} external IP is an IPv{version} address, but the instance with ID {instance} does not have a "
    "primary network interface with a VPC-private IPv{version} address. Add a VPC-private IPv{version} address to "
    "the interface, or attach a different IP address",
    most=IPS_PER_INSTANCE_MAX,
)
_SUBNET_TEXTS: Final = _Texts(
    under_way="The external subnet is in the process of attaching to or detaching from another instance.",
    elsewhere="External subnets cannot be attached to one instance while still attached to another",
    not_here="External subnet is not attached to the target instance",
    migrating="Cannot {verb} a subnet while instance is migrating",
    state="Cannot {verb} subnet {to} instance in {state} state",
    too_many="An instance may not have more than {most} attached subnets",
    no_stack="Cannot attach an IPv{version} external subnet to an instance that does not have a matching IP stack",
    most=SUBNETS_PER_INSTANCE_MAX,
)
NO_EPHEMERAL: Final = "instance does not have an ephemeral IP attached"


def resource(ctx: Facts, row: Instance, kind: IpKind, address: str) -> Resource:
    """What the records say of this address. One without a row is detached and nobody's."""
    subnet = kind is IpKind.SUBNET
    counted = [ip for ip in ctx.records.external_ips_of(row.id) if (ip.kind is IpKind.SUBNET) == subnet]
    version = ipaddress.ip_network(address).version
    held = ctx.records.external_ips.get(address)
    if held is None:
        return Resource(kind, attached=len(counted), version=version)
    return Resource(kind, held.state, held.instance_id, len(counted), version)


def draw_ephemeral(ctx: Facts) -> str:
    """The next unused address of the model's pool, 198.51.100.0/24."""
    for _ in range(254):
        number = (ctx.records.next_number("ephemeral ip") - 1) % 254 + 1
        address = str(ipaddress.IPv4Address("198.51.100.0") + number)
        if address not in ctx.records.external_ips:
            return address
    raise internal("the pool of ephemeral addresses is empty")


def address_for(ctx: Facts, row: Instance, item: AttachIp | DetachIp) -> str:
    """The address which a user means, or 400. An ephemeral one may go without: the pool gives it, or it is the one
    that is attached; there are at most two, one per IP version.
    """
    address = None if item.address is None else check_address(item.kind, item.address)
    if item.kind is not IpKind.EPHEMERAL:
        if address is None:
            raise invalid_request(f"a {item.kind.value} address is required")
        return address
    own = [ip.address for ip in ctx.records.external_ips_of(row.id) if ip.kind is IpKind.EPHEMERAL]
    if isinstance(item, DetachIp):
        if not own or (address is not None and address not in ctx.records.external_ips):
            raise invalid_request(NO_EPHEMERAL)
        return own[0] if address is None else address
    if address is None:
        return own[0] if own else draw_ephemeral(ctx)
    version = ipaddress.ip_address(address).version
    if any(ipaddress.ip_address(held).version == version for held in own if held != address):
        raise invalid_request(f"an instance may not have more than one ephemeral IPv{version} address")
    return address


# ---- step 2: where to send it --------------------------------------------------------------------------------------


class Tell(Enum):
    NOBODY = "nobody is told"
    SLED = "the sled is told"
    LATER = "503: the VMM is in a transient state"
    UNHEALTHY = "400: unhealthy"
    BROKEN = "500: the record points to a destroyed VMM"


_FROM_5855: Final[Mapping[V, Tell]] = {
    V.SAGA_UNWOUND: Tell.NOBODY,
    V.RUNNING: Tell.SLED,
    V.REBOOTING: Tell.SLED,
    V.STARTING: Tell.LATER,  # nobody can tell whether the start saga has already sent its list of IPs
    V.CREATING: Tell.LATER,
    V.STOPPING: Tell.LATER,
    V.STOPPED: Tell.LATER,
    V.MIGRATING: Tell.LATER,
    V.FAILED: Tell.UNHEALTHY,
    V.DESTROYED: Tell.BROKEN,
}
"""`#5855 … HEAD`. At #5854 the same, but that rule set knows neither SagaUnwound nor Creating."""


def whom_to_tell(rules: Rules, row: Instance, active: VmmDbState | None, *, attach: bool) -> Tell:
    """NOBODY or SLED; everything else raises (NX 6.1, step 2)."""
    match row.state:
        case InstanceDbState.NO_VMM:
            return Tell.NOBODY
        case InstanceDbState.CREATING:
            one = "IP or subnets" if rules.head else "IPs"
            raise invalid_request(f"cannot modify instance {one}, instance is still being created")
        case InstanceDbState.FAILED:
            raise _unhealthy(rules)
        case InstanceDbState.DESTROYED:
            raise not_found("instance", row.id)
        case InstanceDbState.VMM:
            pass
    if active is None:
        raise internal(f"instance {row.id} is in the 'VMM' state but has no VMM ID")
    tell = _FROM_5855[active]
    if tell is Tell.LATER:
        raise unavailable(f"can't {'attach' if attach else 'detach'} in transient state {active.value}")
    if tell is Tell.UNHEALTHY:
        raise _unhealthy(rules)
    if tell is Tell.BROKEN:
        raise internal(f"instance {row.id} points to destroyed VMM")
    return tell


def _unhealthy(rules: Rules) -> Refused:
    things = "IPs or subnets" if rules.head else "IPs"
    return invalid_request(f"cannot modify instance {things}, instance is in unhealthy state")


# ---- the serial console --------------------------------------------------------------------------------------------

_CONNECTS: Final = frozenset({V.RUNNING, V.REBOOTING, V.MIGRATING})
"""During a migration it is the source's console."""


def console_refusal(rules: Rules, row: Instance, active: VmmDbState | None, public: str) -> Refused | None:
    """Why there is no console now; None: connect (NX 6.2). `public`: the instance's public state."""
    head = rules.names_public_state
    if active is None:
        label = "no VMM" if row.state is InstanceDbState.NO_VMM else row.state.label
        return invalid_request(f"instance is {public if head else label} and has no active serial console server")
    if active in _CONNECTS:
        return None
    if active is V.DESTROYED and rules.name is RuleSet.R5854:
        return invalid_request("cannot connect to serial console of destroyed instance")
    if active in (V.DESTROYED, V.SAGA_UNWOUND):
        # a fixed, capitalized word, whatever the public state is
        return invalid_request('cannot connect to serial console of instance in state "Stopped"')
    return invalid_request(
        f'cannot connect to serial console of instance in state "{public if head else active.value}"'
    )
