"""One line for people about each sled call and each answer, for the timeline."""

from __future__ import annotations

from nexus_client.stub.contract import (
    Answered,
    AttachSubnet,
    DeleteExternalIp,
    DetachSubnet,
    ErrorAnswered,
    GetVmmState,
    Malformed,
    NoConnection,
    Outcome,
    PutExternalIp,
    PutVmmState,
    ReadInventory,
    RegisterVmm,
    SledOp,
    TimedOut,
    UnregisterVmm,
)
from nexus_client.types import SledVmmState, UpdatedRuntime


def describe_report(state: SledVmmState) -> str:
    """`stopping gen 5, out completed gen 3`."""
    text = f"{state.vmm_state.state.value} gen {state.vmm_state.gen}"
    for role, side in (("in", state.migration_in), ("out", state.migration_out)):
        if side is not None:
            text += f", {role} {side.state.value} gen {side.gen}"
    return text


def describe_op(op: SledOp) -> str:
    """`register (starting, gen 2)`."""
    match op:
        case RegisterVmm():
            return f"register ({op.state}, gen {op.gen})"
        case UnregisterVmm():
            return "unregister"
        case PutVmmState(_, requested):
            where = "" if requested.value is None else f" from {requested.value.src_propolis_addr}"
            return f"state {requested.type.value}{where}"
        case GetVmmState():
            return "get state"
        case PutExternalIp(_, kind, address):
            return f"attach {kind.value} IP {address}"
        case DeleteExternalIp(_, kind, address):
            return f"detach {kind.value} IP {address}"
        case AttachSubnet(_, subnet):
            return f"attach subnet {subnet}"
        case DetachSubnet(_, subnet):
            return f"detach subnet {subnet}"
        case ReadInventory():
            return "inventory"


def describe_outcome(outcome: Outcome) -> str:
    """`ok, starting gen 2` or `404 NO_SUCH_INSTANCE: …`."""
    match outcome:
        case Answered(SledVmmState() as state) | Answered(UpdatedRuntime(SledVmmState() as state)):
            return f"ok, {describe_report(state)}"
        case Answered(UpdatedRuntime()):
            return "ok, null"
        case Answered():
            return "ok"
        case ErrorAnswered(status, code, message):
            return f"{status} {code or ''}: {message}".replace(" :", ":")
        case NoConnection(text):
            return f"no connection: {text}"
        case TimedOut(text):
            return f"no answer: {text}"
        case Malformed(text):
            return f"malformed answer: {text}"
