"""The instance-update saga: lock, decide, commit, clean up, chain (NX 5.1, 5.3).

The original runs two sagas (start-instance-update and its child instance-update); here they are one program in which
the `inherit` node stands where the child begins, so that lock ids and generations move as in the original: +3 for a
full run, +2 for one without work.

Read before: stub/ingest.py, stub/sagas/lock.py, stub/sagas/nodes.py, stub/sagas/runner.py, stub/update_decision.py.
Read next: stub/background.py, stub/sagas/vmms.py.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec.structs import replace

from nexus_client.stub.config import SagaMode
from nexus_client.stub.contract import Answered, CrashPoint, Outcome, PutVmmState, Task
from nexus_client.stub.hazards import Hazard
from nexus_client.stub.ingest import apply_report
from nexus_client.stub.records import (
    Instance,
    InstanceDbState,
    IntendedState,
    Network,
    ReservationKind,
    following,
)
from nexus_client.stub.refusal import internal
from nexus_client.stub.sagas.lock import acquired, committed, inherited, unlocked
from nexus_client.stub.sagas.nodes import Ask, End, Node, Wish
from nexus_client.stub.sagas.state import Decision, UpdateSaga
from nexus_client.stub.scope import Scope, Waiter
from nexus_client.stub.sled_answers import news_in
from nexus_client.types import Asked, VmmStateRequested

# ---- when it begins ------------------------------------------------------------------------------------------------


def needs_update(ctx: Scope, row: Instance) -> bool:
    return _decide(ctx, row) is not None


def _decide(ctx: Scope, row: Instance) -> Decision | None:
    records = ctx.records
    return ctx.behaviour.decide(
        ctx.rules,
        row,
        records.active_vmm(row),
        records.target_vmm(row),
        records.migration_of(row),
        hazards=ctx.config.hazards,
    )


def begin(ctx: Scope, instance_id: UUID, *waiters: Waiter, reported: bool = True) -> bool:
    """Start an update saga; False if the mode leaves that to the updater task (waiters are then not taken)."""
    if reported and ctx.config.saga_mode is SagaMode.BACKGROUND:
        return False
    ctx.spawn(UpdateSaga(id=ctx.new_id("saga"), instance_id=instance_id), *waiters)
    return True


# ---- nodes ---------------------------------------------------------------------------------------------------------


def _lock(ctx: Scope, saga: UpdateSaga) -> Wish:
    row = ctx.records.instances[saga.instance_id]
    if row.time_deleted is not None:
        return End()
    if not ctx.behaviour.locks:
        return None
    if saga.lock_id is None:
        saga.lock_id = ctx.new_id("lock")  # not the saga's id: a saga that runs twice must not look like two
    locked = acquired(row, saga.lock_id)
    if locked is None:
        ctx.tell("saga", "instance-update finds the lock taken", row.id)
        return End()
    if locked is not row:
        ctx.records.put_instance(locked)
    saga.lock_gen = locked.updater_gen
    return None


def _unlock(ctx: Scope, saga: UpdateSaga) -> Wish:
    """Release whatever lock this saga holds, as parent or as child; nothing else is undone: what it mirrors has
    happened.
    """
    row = ctx.records.instances[saga.instance_id]
    if saga.lock_id is not None:
        free = unlocked(row, saga.lock_id, saga.lock_gen)
        if free is not None:
            ctx.records.put_instance(free)
    ctx.wake(Task.UPDATER)
    return None


def _read(ctx: Scope, saga: UpdateSaga) -> Wish:
    row = ctx.records.instances[saga.instance_id]
    saga.decision = _decide(ctx, row)
    saga.read_generation = row.state_generation
    if saga.decision is None:
        if saga.lock_id is not None:
            free = unlocked(row, saga.lock_id, saga.lock_gen)
            if free is not None:
                ctx.records.put_instance(free)
        ctx.tell("saga", "instance-update has nothing to do", row.id)
        return End()
    return None


def _inherit(ctx: Scope, saga: UpdateSaga) -> Wish:
    if saga.lock_id is None:  # the variant without locks
        return None
    row = ctx.records.instances[saga.instance_id]
    if saga.child_id is None:
        saga.child_id = ctx.new_id("lock")
    child = inherited(row, saga.lock_id, saga.lock_gen, saga.child_id)
    if child is None:
        raise internal("the updater lock was lost before it was inherited")
    if child is not row:
        ctx.records.put_instance(child)
    saga.lock_id = saga.child_id
    saga.lock_gen = child.updater_gen
    return None


def _decision(saga: UpdateSaga) -> Decision:
    assert saga.decision is not None, "the node before has decided"
    return saga.decision


def _network(ctx: Scope, saga: UpdateSaga) -> Wish:
    decision = _decision(saga)
    if decision.deprovision:
        ctx.records.drop_network(saga.instance_id)
    elif decision.network_to is not None:
        ctx.records.put_network(Network(saga.instance_id, decision.network_to))
    return None


def _release(ctx: Scope, saga: UpdateSaga) -> Wish:
    if _decision(saga).deprovision:
        ctx.records.drop_provision(saga.instance_id)
    return None


def _commit(ctx: Scope, saga: UpdateSaga) -> Wish:
    """Write the record and unlock in one statement, guarded by lock and state generation."""
    decision = _decision(saga)
    row = ctx.records.instances[saga.instance_id]
    new = replace(
        row,
        state=decision.state,
        state_generation=following(saga.read_generation),
        time_state_updated=ctx.now_us,
        active_propolis_id=decision.active,
        target_propolis_id=decision.target,
        migration_id=decision.migration,
        intended_state=row.intended_state if decision.intended is None else decision.intended,
    )
    written: Instance | None
    if saga.lock_id is None:  # the variant without locks
        written = replace(new, state_generation=max(new.state_generation, row.state_generation))
    else:
        written = committed(row, new, saga.lock_id, saga.lock_gen)
    if written is None:
        return None
    ctx.records.put_instance(written)
    ctx.tell("commit", f"{decision.state.value} gen {new.state_generation}", row.id, decision.active)
    ctx.crash_if_armed(CrashPoint.IN_COMMIT)
    return None


def _swap(ctx: Scope, saga: UpdateSaga) -> Wish:
    """Everything but the target's reservation is tombstoned: the source's, and that of a start in between, if the
    source was lost and restarted while its migration went on. Nothing to swap if the target is over, too.
    """
    swap = _decision(saga).swap
    if swap is not None and _decision(saga).destroy_target is None:
        _, target = swap
        held = ctx.records.reservations_of(saga.instance_id)
        for row in sorted(held, key=lambda row: row.vmm_id == target):
            kind = ReservationKind.ACTIVE if row.vmm_id == target else ReservationKind.TOMBSTONED
            if row.kind is not kind and (row.vmm_id == target or row.kind is ReservationKind.ACTIVE):
                ctx.records.put_reservation(replace(row, kind=kind))
    return None


def destroy_vmm(ctx: Scope, propolis_id: UUID) -> None:
    """Release the reservation and mark the record deleted; twice is as good as once."""
    ctx.records.drop_reservation(propolis_id)
    vmm = ctx.records.vmms[propolis_id]
    if vmm.time_deleted is None:
        ctx.records.put_vmm(replace(vmm, time_deleted=ctx.now_us))
        ctx.tell("record", "VMM record deleted", vmm.instance_id, vmm.id)


def _destroy_active(ctx: Scope, saga: UpdateSaga) -> Wish:
    propolis_id = _decision(saga).destroy_active
    if propolis_id is not None:
        destroy_vmm(ctx, propolis_id)
    return None


def _destroy_target(ctx: Scope, saga: UpdateSaga) -> Wish:
    propolis_id = _decision(saga).destroy_target
    if propolis_id is not None:
        destroy_vmm(ctx, propolis_id)
    return None


def _chain(ctx: Scope, saga: UpdateSaga) -> Wish:
    """Another saga if something came in meanwhile, else perhaps a restart."""
    row = ctx.records.instances[saga.instance_id]
    if row.time_deleted is None and needs_update(ctx, row):
        begin(ctx, row.id)
    elif row.state is InstanceDbState.FAILED:
        ctx.wake(Task.REINCARNATION)
    elif Hazard.STOP_LOST_IN_MIGRATION not in ctx.config.hazards:
        return _stop_again(ctx, row)
    return None


def _stop_again(ctx: Scope, row: Instance) -> Wish:
    """Its user has stopped it while it moved: what was asked of the source is asked of the VMM that is left."""
    vmm = ctx.records.active_vmm(row)
    if row.intended_state is not IntendedState.STOPPED or row.migration_id is not None or vmm is None:
        return None
    ctx.tell("saga", "instance-update stops what its user has stopped in the migration", row.id, vmm.id)
    return Ask(vmm.sled_id, PutVmmState(vmm.id, VmmStateRequested(Asked.STOPPED)))


def _stop_answered(ctx: Scope, saga: UpdateSaga, outcome: Outcome) -> Wish:
    """News is taken; a sled that refuses or is silent is the health check's."""
    row = ctx.records.instances[saga.instance_id]
    news = news_in(outcome) if isinstance(outcome, Answered) else None
    if news is None or row.active_propolis_id is None:
        return None
    if apply_report(ctx, row.active_propolis_id, news).update is not None:
        begin(ctx, row.id)
    return None


PROGRAM: Final[tuple[Node[Scope, UpdateSaga], ...]] = (
    Node("lock", _lock, undo=_unlock),
    Node("read and decide", _read),
    Node("inherit lock", _inherit),
    Node("network", _network),
    Node("release counters", _release),
    Node("commit", _commit),
    Node("swap reservations", _swap),
    Node("destroy active", _destroy_active),
    Node("destroy target", _destroy_target),
    Node("chain", _chain, answered=_stop_answered),
)
