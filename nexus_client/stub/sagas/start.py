"""The instance-start saga (NX 4.1, 4.3).

Read before: stub/sagas/create.py, stub/sagas/vmms.py. Read next: stub/actions.py, stub/sagas/migrate.py.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from nexus_client.stub.contract import PutVmmState, Task
from nexus_client.stub.hazards import Hazard
from nexus_client.stub.records import InstanceDbState, Network, Provision, VmmDbState
from nexus_client.stub.refusal import conflict, not_found
from nexus_client.stub.sagas import vmms
from nexus_client.stub.sagas.nodes import Ask, Node, Wish
from nexus_client.stub.sagas.state import StartSaga
from nexus_client.stub.scope import Scope
from nexus_client.types import Asked, VmmStateRequested


def _link(ctx: Scope, saga: StartSaga) -> Wish:
    """Write the active id: our own is fine, a SagaUnwound one is replaced, any other has come meanwhile.

    The record is read anew, so whatever else has changed since the request is overruled: also a user's stop, which
    has made a Failed instance NoVmm (NX 4.2, hazard `start_overrules_stop`).
    """
    row = ctx.records.instances[saga.instance_id]
    propolis_id, _ = saga.ids
    if row.time_deleted is not None:
        raise not_found("instance", row.id)
    if row.active_propolis_id == propolis_id:
        return None
    active = ctx.records.active_vmm(row)
    unwound = active is not None and active.state is VmmDbState.SAGA_UNWOUND
    startable = row.active_propolis_id is None or unwound
    moved = row.state_generation != saga.read_generation and Hazard.START_OVERRULES_STOP not in ctx.config.hazards
    if not startable or moved:
        raise conflict("instance changed state before it could be started")
    saga.written_generation = row.state_generation + 1
    ctx.records.put_instance(
        replace(
            row,
            state=InstanceDbState.VMM,
            active_propolis_id=propolis_id,
            state_generation=saga.written_generation,
            time_state_updated=ctx.now_us,
            time_last_auto_restarted=ctx.now_us if saga.auto_restart else row.time_last_auto_restarted,
        )
    )
    if unwound:
        ctx.wake(Task.REAPER)
    return None


def _unlink(ctx: Scope, saga: StartSaga) -> Wish:
    """Back to NoVmm, unless somebody advanced the generation: then the SagaUnwound id stays for the next start."""
    row = ctx.records.instances[saga.instance_id]
    if row.state_generation == saga.written_generation and row.time_deleted is None:
        ctx.records.put_instance(
            replace(
                row,
                state=InstanceDbState.NO_VMM,
                active_propolis_id=None,
                state_generation=row.state_generation + 1,
                time_state_updated=ctx.now_us,
            )
        )
    return None


def _nat(ctx: Scope, saga: StartSaga) -> Wish:
    ctx.records.put_network(Network(saga.instance_id, saga.ids[1]))
    return None


def _is_last(ctx: Scope, saga: StartSaga) -> bool:
    """Nobody has linked another VMM meanwhile, so what hangs on the instance is still this saga's."""
    return ctx.records.instances[saga.instance_id].active_propolis_id in (None, saga.propolis_id)


def _no_nat(ctx: Scope, saga: StartSaga) -> Wish:
    if _is_last(ctx, saga):
        ctx.records.drop_network(saga.instance_id)
    return None


def _charge(ctx: Scope, saga: StartSaga) -> Wish:
    row = ctx.records.instances[saga.instance_id]
    ctx.records.put_provision(Provision(row.id, row.ncpus, row.memory))
    return None


def _uncharge(ctx: Scope, saga: StartSaga) -> Wish:
    if _is_last(ctx, saga):
        ctx.records.drop_provision(saga.instance_id)
    return None


def _run(_ctx: Scope, saga: StartSaga) -> Wish:
    propolis_id, sled_id = saga.ids
    return Ask(sled_id, PutVmmState(propolis_id, VmmStateRequested(Asked.RUNNING)))


PROGRAM: Final[tuple[Node[Scope, StartSaga], ...]] = (
    Node("reserve sled", vmms.reserve, undo=vmms.release),
    Node("allocate Propolis address", vmms.allocate_ip),
    Node("create VMM record", vmms.create_vmm, undo=vmms.unwind_vmm),
    Node("link VMM", _link, undo=_unlink),
    Node("switch NAT", _nat, undo=_no_nat),
    Node("register", vmms.register, answered=vmms.registered, undo=vmms.unregister, undo_answered=vmms.unregistered),
    Node("provisioning counters", _charge, undo=_uncharge),
    Node("run", _run, answered=vmms.put_answered),
)
