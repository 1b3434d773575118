"""Between the Nexus model's words and the rack's: calls to inputs, happenings to lines.

Read before: play/virtual.py. Read next: page/recording.py, recording/open_loop.py.
"""

from __future__ import annotations

from typing import Any, Final

from nexus_client.stub import contract as nx
from nexus_client.types import SledVmmState, VmmRuntimeState, VmmState, time_of
from propolis_stub.spec.build import cpus_fault
from sim_sled.core import contract
from sim_sled.core.happenings import Happening, Kind
from sim_sled.play.calls import Plain

_STATES: Final = {state.value: state for state in VmmState}
_OTHER: Final = {
    nx.PutExternalIp: "vmm_put_external_ip",
    nx.DeleteExternalIp: "vmm_delete_external_ip",
    nx.AttachSubnet: "vmm_post_attached_subnet",
    nx.DetachSubnet: "vmm_delete_attached_subnet",
    nx.ReadInventory: "inventory",
}


def translate(call: nx.CallSled, ticket: int) -> tuple[str, Any]:
    """The operation id and the rack's input for a call of the model (None: nothing that a rack must know)."""
    op, sled_id = call.op, call.sled_id
    match op:
        case nx.RegisterVmm():
            runtime = VmmRuntimeState(_STATES[op.state], op.gen, time_of(op.time_us))
            body = contract.Registration(
                instance_id=op.instance_id,
                vmm_runtime=runtime,
                propolis_addr=op.propolis_addr,
                ncpus=op.spec.ncpus,
                unbuildable=cpus_fault(op.spec.ncpus),
                memory_mib=op.spec.memory_mb,
                hostname=op.spec.hostname,
                silo_id=op.spec.silo_id,
                project_id=op.spec.project_id,
                migration_id=op.migration_id,
            )
            return "vmm_register", contract.Register(ticket, sled_id, op.propolis_id, body)
        case nx.UnregisterVmm():
            return "vmm_unregister", contract.Unregister(ticket, sled_id, op.propolis_id)
        case nx.PutVmmState():
            return "vmm_put_state", contract.PutState(ticket, sled_id, op.propolis_id, op.requested)
        case nx.GetVmmState():
            return "vmm_get_state", contract.GetState(ticket, sled_id, op.propolis_id)
        case _:
            return _OTHER[type(op)], Plain(ticket, sled_id, getattr(op, "propolis_id", None))


def asked(item: Any) -> str:
    """` stopped` of a request for a state, to be put behind its operation; "" of others."""
    return f" {item.requested.type.value}" if isinstance(item, contract.PutState) else ""


UNTOLD: Final = frozenset({Kind.ASKED, Kind.OBSERVED, Kind.POKED, Kind.MIGRATION, Kind.SLED})
"""Happenings of which a trace has no line: others tell it better."""


def told(happening: Happening) -> str:
    """One line for the trace; "" for what others tell better."""
    data: Any = happening.data
    match happening.kind:
        case Kind.REGISTERED | Kind.UNREGISTERED:
            return describe(data)
        case Kind.PROPOLIS:
            before, now = data
            text = f"{'-' if before is None else before.state.value} -> {now.state.value}".lower()
            for name, side in (("in", now.migration_in), ("out", now.migration_out)):
                if side is not None:
                    text += f" {name}={side.state.value}"
            return text
        case Kind.SENT:
            body, attempt = data
            return describe(body) + (f" attempt {attempt + 1}" if attempt else "")
        case Kind.ACKED | Kind.FORGOTTEN:
            return describe(data)
        case Kind.RETRYING | Kind.GIVEN_UP:
            return str(data.why)
        case Kind.INJECTED:
            return str(data)
        case Kind.REFUSED:
            return f"{data[0].type.value}: {data[1].message}"
        case _:
            return ""


def describe(body: SledVmmState) -> str:
    """`stopping gen 5 out=completed/3`."""
    text = f"{body.vmm_state.state.value} gen {body.vmm_state.gen}"
    for name, side in (("in", body.migration_in), ("out", body.migration_out)):
        if side is not None:
            text += f" {name}={side.state.value}/{side.gen}"
    return text
