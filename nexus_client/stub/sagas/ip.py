"""The sagas that attach and detach an external IP or subnet (NX 6.1).

Read before: stub/networking.py. Read next: stub/nexus.py.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from nexus_client.stub.contract import (
    Answered,
    AttachSubnet,
    DeleteExternalIp,
    DetachSubnet,
    ErrorAnswered,
    IpKind,
    NoConnection,
    Outcome,
    PutExternalIp,
    SledOp,
    TimedOut,
)
from nexus_client.stub.networking import Tell, gate, resource, whom_to_tell
from nexus_client.stub.records import ExternalIp, IpState
from nexus_client.stub.refusal import internal, not_found, unavailable
from nexus_client.stub.sagas.nodes import Ask, End, Node, Wish
from nexus_client.stub.sagas.state import IpSaga
from nexus_client.stub.scope import Scope
from nexus_client.stub.wording import describe_outcome


def _ip(ctx: Scope, saga: IpSaga) -> ExternalIp | None:
    return ctx.records.external_ips.get(saga.address)


def _mark(ctx: Scope, saga: IpSaga) -> Wish:
    """Mark the IP attaching or detaching; from now on a start cannot pass its register node."""
    row = ctx.records.instances[saga.instance_id]
    attach = saga.attaches
    if row.time_deleted is not None:
        raise not_found("instance", row.id)
    if not gate(row, resource(ctx, row, saga.ip_kind, saga.address), attach=attach):
        return End()
    ip = _ip(ctx, saga) or ExternalIp(saga.address, saga.ip_kind, row.id, IpState.ATTACHING)
    ctx.records.put_external_ip(replace(ip, state=IpState.ATTACHING if attach else IpState.DETACHING))
    return None


def _unmark(ctx: Scope, saga: IpSaga) -> Wish:
    ip = _ip(ctx, saga)
    if ip is not None and saga.attaches:
        ctx.records.drop_external_ip(saga.address)
    elif ip is not None:
        ctx.records.put_external_ip(replace(ip, state=IpState.ATTACHED))
    return None


def _tell(ctx: Scope, saga: IpSaga) -> Wish:
    row = ctx.records.instances[saga.instance_id]
    vmm = ctx.records.active_vmm(row)
    attach = saga.attaches
    tell = whom_to_tell(ctx.rules, row, None if vmm is None else vmm.state, attach=attach)
    if tell is Tell.NOBODY or vmm is None:
        return None
    op: SledOp
    if saga.ip_kind is IpKind.SUBNET:
        op = AttachSubnet(vmm.id, saga.address) if attach else DetachSubnet(vmm.id, saga.address)
    else:
        verb = PutExternalIp if attach else DeleteExternalIp
        op = verb(vmm.id, saga.ip_kind, saga.address)
    return Ask(vmm.sled_id, op)


def _heard(_ctx: Scope, saga: IpSaga, outcome: Outcome) -> Wish:
    match outcome:
        case Answered():
            return None
        case ErrorAnswered(409) if saga.ip_kind is IpKind.SUBNET and saga.attaches:
            return None  # already attached is as good (NX 4.1)
        case NoConnection(text) | TimedOut(text):
            raise unavailable(text)
        case _:
            raise internal(f"the sled said {describe_outcome(outcome)}")


def _settle(ctx: Scope, saga: IpSaga) -> Wish:
    ip = _ip(ctx, saga)
    if ip is None:
        return None
    if saga.attaches:
        ctx.records.put_external_ip(replace(ip, state=IpState.ATTACHED))
    else:
        ctx.records.drop_external_ip(saga.address)
    return None


PROGRAM: Final[tuple[Node[Scope, IpSaga], ...]] = (
    Node("mark", _mark, undo=_unmark),
    Node("tell the sled", _tell, answered=_heard),
    Node("settle", _settle),
)
