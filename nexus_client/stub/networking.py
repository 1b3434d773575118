"""External IPs and subnets of instances, and who may use the serial console (NX 6).

Read before: stub/sagas/runner.py, stub/records.py.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from enum import Enum
from typing import Final

import attrs

from nexus_client.stub.context import Context
from nexus_client.stub.contract import (
    Answered,
    AttachSubnet,
    DeleteExternalIp,
    DetachSubnet,
    ErrorAnswered,
    IpKind,
    NetworkInterface,
    NoConnection,
    Outcome,
    PutExternalIp,
    SledOp,
    SourceNat,
    TimedOut,
    VmSpec,
)
from nexus_client.stub.records import ExternalIp, Instance, InstanceDbState, IpState, VmmDbState
from nexus_client.stub.refusal import Refused, internal, invalid_request, not_found, unavailable
from nexus_client.stub.rules import RuleSet
from nexus_client.stub.sagas.nodes import Ask, End, Node, Saga, SagaKind, Wish
from nexus_client.stub.wording import describe_outcome

V = VmmDbState
IPS_PER_INSTANCE_MAX: Final = 32
"""The original's limit of external IPs per instance; the text of its refusal is unverified."""
SNAT_PORTS: Final = 16_384
"""Ports of a source NAT slice; four instances share an address (SA 4.2)."""

# ---- what a VMM is told when it is registered ----------------------------------------------------------------------


def vm_spec(ctx: Context, row: Instance) -> VmSpec:
    """The virtual machine of an instance; addresses follow from its ordinal, ids from its id."""
    mine = [ip for ip in ctx.records.external_ips.values() if ip.instance_id == row.id]
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
            ip=str(ipaddress.IPv4Address("172.30.0.0") + host),
            subnet="172.30.0.0/22",
            mac=f"A8:40:25:{mac >> 16 & 0xFF:02X}:{mac >> 8 & 0xFF:02X}:{mac & 0xFF:02X}",
            vni=1024 + row.project_id.int % 0xFF_0000,
        ),
        source_nat=SourceNat(
            ip=str(ipaddress.IPv4Address("203.0.113.0") + 1 + nat // 4 % 254),
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


def _what(kind: IpKind) -> str:
    return "external subnet" if kind is IpKind.SUBNET else f"{kind.value} IP"


def gate(row: Instance, kind: IpKind, *, attach: bool) -> None:
    """Raises `Refused` unless the record's state lets addresses change (NX 6.1, step 1)."""
    if row.state not in (InstanceDbState.NO_VMM, InstanceDbState.VMM):
        verb = f"attach {_what(kind)} to" if attach else f"detach {_what(kind)} from"
        raise invalid_request(f"cannot {verb} instance in {row.state.label} state")
    if row.migration_id is not None:
        raise unavailable(f"can't {'attach' if attach else 'detach'} while the instance migrates")


def draw_ephemeral(ctx: Context) -> str:
    """The next unused address of the model's pool, 198.51.100.0/24."""
    for _ in range(254):
        number = (ctx.records.next_number("ephemeral ip") - 1) % 254 + 1
        address = str(ipaddress.IPv4Address("198.51.100.0") + number)
        if address not in ctx.records.external_ips:
            return address
    raise internal("the pool of ephemeral addresses is empty")


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


def whom_to_tell(rules: RuleSet, row: Instance, active: VmmDbState | None, *, attach: bool) -> Tell:
    """NOBODY or SLED; everything else raises (NX 6.1, step 2)."""
    things = "IPs or subnets" if rules is RuleSet.HEAD else "IPs"
    match row.state:
        case InstanceDbState.NO_VMM:
            return Tell.NOBODY
        case InstanceDbState.CREATING:
            raise invalid_request(f"cannot modify instance {things}, instance is still being created")
        case InstanceDbState.FAILED:
            raise invalid_request(f"cannot modify instance {things}, instance is in unhealthy state")
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
        raise invalid_request(f"cannot modify instance {things}, instance is in unhealthy state")
    if tell is Tell.BROKEN:
        raise internal(f"instance {row.id} points to destroyed VMM")
    return tell


# ---- the sagas -----------------------------------------------------------------------------------------------------


def _ip(ctx: Context, saga: Saga) -> ExternalIp | None:
    return ctx.records.external_ips.get(saga.address)


def _mark(ctx: Context, saga: Saga) -> Wish:
    """Mark the IP attaching or detaching; from now on a start cannot pass its register node."""
    row = ctx.records.instances[saga.instance_id]
    attach = saga.kind is SagaKind.ATTACH
    assert saga.ip_kind is not None
    if row.time_deleted is not None:
        raise not_found("instance", row.id)
    gate(row, saga.ip_kind, attach=attach)
    ip = _ip(ctx, saga)
    if ip is None:
        if not attach:
            return End()
        ip = ExternalIp(saga.address, saga.ip_kind, row.id, IpState.ATTACHING)
    elif attach and ip.state is IpState.ATTACHED:
        return End()
    ctx.records.put_external_ip(attrs.evolve(ip, state=IpState.ATTACHING if attach else IpState.DETACHING))
    return None


def _unmark(ctx: Context, saga: Saga) -> Wish:
    ip = _ip(ctx, saga)
    if ip is not None and saga.kind is SagaKind.ATTACH:
        ctx.records.drop_external_ip(saga.address)
    elif ip is not None:
        ctx.records.put_external_ip(attrs.evolve(ip, state=IpState.ATTACHED))
    return None


def _tell(ctx: Context, saga: Saga) -> Wish:
    row = ctx.records.instances[saga.instance_id]
    vmm = ctx.records.active_vmm(row)
    attach = saga.kind is SagaKind.ATTACH
    tell = whom_to_tell(ctx.config.rules, row, None if vmm is None else vmm.state, attach=attach)
    if tell is Tell.NOBODY or vmm is None:
        return None
    assert saga.ip_kind is not None
    op: SledOp
    if saga.ip_kind is IpKind.SUBNET:
        op = AttachSubnet(vmm.id, saga.address) if attach else DetachSubnet(vmm.id, saga.address)
    else:
        verb = PutExternalIp if attach else DeleteExternalIp
        op = verb(vmm.id, saga.ip_kind, saga.address)
    return Ask(vmm.sled_id, op)


def _heard(_ctx: Context, saga: Saga, outcome: Outcome) -> Wish:
    match outcome:
        case Answered():
            return None
        case ErrorAnswered(409) if saga.ip_kind is IpKind.SUBNET and saga.kind is SagaKind.ATTACH:
            return None  # already attached is as good (NX 4.1)
        case NoConnection(text) | TimedOut(text):
            raise unavailable(text)
        case _:
            raise internal(f"the sled said {describe_outcome(outcome)}")


def _settle(ctx: Context, saga: Saga) -> Wish:
    ip = _ip(ctx, saga)
    if ip is None:
        return None
    if saga.kind is SagaKind.ATTACH:
        ctx.records.put_external_ip(attrs.evolve(ip, state=IpState.ATTACHED))
    else:
        ctx.records.drop_external_ip(saga.address)
    return None


CHANGE_IP: Final = (
    Node("mark", _mark, undo=_unmark),
    Node("tell the sled", _tell, answered=_heard),
    Node("settle", _settle),
)

# ---- the serial console --------------------------------------------------------------------------------------------

_CONNECTS: Final = frozenset({V.RUNNING, V.REBOOTING, V.MIGRATING})
"""During a migration it is the source's console."""


def console_refusal(rules: RuleSet, row: Instance, active: VmmDbState | None, public: str) -> Refused | None:
    """Why there is no console now; None: connect (NX 6.2). `public`: the instance's public state."""
    head = rules is RuleSet.HEAD
    if active is None:
        label = "no VMM" if row.state is InstanceDbState.NO_VMM else row.state.label
        return invalid_request(f"instance is {public if head else label} and has no active serial console server")
    if active in _CONNECTS:
        return None
    if active is V.DESTROYED and rules is RuleSet.R5854:
        return invalid_request("cannot connect to serial console of destroyed instance")
    if active in (V.DESTROYED, V.SAGA_UNWOUND):
        # a fixed, capitalized word, whatever the public state is
        return invalid_request('cannot connect to serial console of instance in state "Stopped"')
    return invalid_request(
        f'cannot connect to serial console of instance in state "{public if head else active.value}"'
    )
