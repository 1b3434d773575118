"""The sagas behind create, start and migrate: nodes, sled calls and undos (NX 4.1, 4.3).

A node runs again after a crash, so each first asks whether it has done its work already.

Read before: stub/sagas/nodes.py, stub/sagas/runner.py, stub/sagas/update.py. Read next: stub/actions.py.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import attrs

from nexus_client.stub.auto_restart import may_restart
from nexus_client.stub.config import SagaMode
from nexus_client.stub.context import Context
from nexus_client.stub.contract import Answered, Outcome, PutVmmState, RegisterVmm, Task, UnregisterVmm
from nexus_client.stub.hazards import Hazard
from nexus_client.stub.ingest import IFF_FAILED, apply_report, mark_failed
from nexus_client.stub.networking import vm_spec
from nexus_client.stub.placement import choose_sled, propolis_address, reserve
from nexus_client.stub.records import (
    FailureReason,
    Instance,
    InstanceDbState,
    IpState,
    Migration,
    Network,
    Provision,
    ReservationKind,
    Vmm,
    VmmDbState,
    following,
)
from nexus_client.stub.refusal import Refused, conflict, internal, not_found, unavailable
from nexus_client.stub.sagas import runner, update
from nexus_client.stub.sagas.nodes import Ask, Await, Node, Saga, SagaKind, Stuck, Wish
from nexus_client.stub.sled_answers import is_gone, news_in, refused_in_saga
from nexus_client.types import Asked, InstanceMigrationTargetParams, MigrationState, VmmStateRequested

# ---- parts of both start and migrate -------------------------------------------------------------------------------


def _row(ctx: Context, saga: Saga) -> Instance:
    return ctx.records.instances[saga.instance_id]


def _ids(saga: Saga) -> tuple[UUID, UUID]:
    """(propolis id, sled id), both chosen by the first node."""
    assert saga.propolis_id is not None
    assert saga.sled_id is not None
    return saga.propolis_id, saga.sled_id


def _reserve(ctx: Context, saga: Saga) -> Wish:
    row = _row(ctx, saga)
    starts = saga.kind is SagaKind.START
    if saga.propolis_id is not None and saga.propolis_id in ctx.records.reservations:
        return None
    sled = choose_sled(ctx, row, row.pinned_sled_id if starts else saga.sled_id)
    if saga.propolis_id is None:
        saga.propolis_id = ctx.new_id("vmm")
    saga.sled_id = sled.id
    reserve(ctx, row, saga.propolis_id, sled.id, ReservationKind.ACTIVE if starts else ReservationKind.TARGET)
    return None


def _release(ctx: Context, saga: Saga) -> Wish:
    ctx.records.drop_reservation(_ids(saga)[0])
    return None


def _allocate_ip(ctx: Context, saga: Saga) -> Wish:
    if not saga.propolis_ip:
        saga.propolis_ip, saga.propolis_port = propolis_address(ctx, ctx.sled(_ids(saga)[1]))
    return None


def _create_vmm(ctx: Context, saga: Saga) -> Wish:
    propolis_id, sled_id = _ids(saga)
    if propolis_id in ctx.records.vmms:
        return None
    first = VmmDbState.STARTING if saga.kind is SagaKind.START else VmmDbState.MIGRATING
    ctx.records.put_vmm(
        Vmm(
            id=propolis_id,
            instance_id=saga.instance_id,
            sled_id=sled_id,
            propolis_ip=saga.propolis_ip,
            propolis_port=saga.propolis_port,
            state=VmmDbState.CREATING if ctx.rules.has_creating_vmm else first,
            time_created=ctx.now_us,
            time_state_updated=ctx.now_us,
        )
    )
    return None


def _unwind_vmm(ctx: Context, saga: Saga) -> Wish:
    """The undo of the VMM's record; a start that may be tried again wakes who tries it."""
    mark_unwound(ctx, ctx.vmm(saga.propolis_id))
    row = _row(ctx, saga)
    if saga.kind is SagaKind.START and may_restart(row, ctx.config.cooldown_us, ctx.now_us).now:
        ctx.wake(Task.REINCARNATION)
    return None


def mark_unwound(ctx: Context, vmm: Vmm) -> bool:
    """Generation + 1, whatever it is by now, also if it has unwound before; a deleted record stays as it is (False).

    Raises `Refused` (500) for a Failed VMM: the write does not clear the failure reason, and the constraint fails. So
    the saga is stuck. #11294 lets the reason stay on the row, and it goes on (NX 4.3).
    """
    if vmm.time_deleted is not None:
        return False
    unwound = VmmDbState.SAGA_UNWOUND if ctx.rules.has_saga_unwound else VmmDbState.DESTROYED
    reason = vmm.failure_reason if ctx.rules.head else None
    if reason is not None and ctx.rules.reason_needs_failed:
        raise internal(IFF_FAILED)
    gen = following(vmm.state_generation)
    ctx.records.put_vmm(
        attrs.evolve(vmm, state=unwound, state_generation=gen, failure_reason=reason, time_state_updated=ctx.now_us)
    )
    ctx.tell("record", f"{unwound.value} gen {gen}", vmm.instance_id, vmm.id)
    return True


def _register(ctx: Context, saga: Saga) -> Wish:
    row = _row(ctx, saga)
    propolis_id, sled_id = _ids(saga)
    vmm = ctx.vmm(propolis_id)
    if any(ip.instance_id == row.id and ip.state is not IpState.ATTACHED for ip in ctx.records.external_ips.values()):
        raise unavailable("an external IP of the instance is being attached or detached")
    return Ask(
        sled_id,
        RegisterVmm(
            propolis_id=propolis_id,
            instance_id=row.id,
            propolis_addr=vmm.address,
            state="starting" if saga.kind is SagaKind.START else "migrating",
            gen=ctx.rules.first_gen,
            time_us=ctx.now_us,
            migration_id=saga.migration_id,
            spec=vm_spec(ctx, row),
        ),
    )


def _registered(ctx: Context, saga: Saga, outcome: Outcome) -> Wish:
    refused = refused_in_saga(outcome)
    if refused is None:
        wish = _told(ctx, saga, outcome)
        saga.registered_gen = ctx.vmm(saga.propolis_id).state_generation
        return wish
    if is_gone(outcome):
        saga.refusal = refused.refusal
        return _fail_vmm(ctx, saga)
    raise refused


def _fail_vmm(ctx: Context, saga: Saga) -> Wish:
    """The sled has lost the VMM: mark it Failed, wait for the update saga; the refusal then turns this saga round."""
    vmm = ctx.vmm(saga.propolis_id)
    applied = mark_failed(ctx, vmm.id, vmm.state_generation, FailureReason.NO_SUCH_INSTANCE)
    if applied.update is not None and ctx.config.saga_mode is not SagaMode.BACKGROUND:
        update = Saga(ctx.new_id("saga"), SagaKind.UPDATE, saga.instance_id)
        runner.spawn(ctx, update)
        return Await(update.id)
    assert saga.refusal is not None
    raise Refused(saga.refusal)


def _told(ctx: Context, saga: Saga, outcome: Outcome) -> Wish:
    """A good answer of register or put state: its news go through ingest."""
    assert isinstance(outcome, Answered)
    news = news_in(outcome)
    if news is not None and saga.propolis_id is not None:
        applied = apply_report(ctx, saga.propolis_id, news)
        if applied.update is not None:
            update.begin(ctx, applied.update)
    return None


def _put_answered(ctx: Context, saga: Saga, outcome: Outcome) -> Wish:
    refused = refused_in_saga(outcome)
    if refused is not None:
        raise refused
    return _told(ctx, saga, outcome)


def _unregister(_ctx: Context, saga: Saga) -> Wish:
    propolis_id, sled_id = _ids(saga)
    return Ask(sled_id, UnregisterVmm(propolis_id))


def _unregistered(ctx: Context, saga: Saga, outcome: Outcome) -> Wish:
    """Any answer will do but one: 404 `NO_SUCH_INSTANCE` is trouble (NX 4.3), and the saga is stuck."""
    if is_gone(outcome):
        if saga.kind is SagaKind.START:
            vmm = ctx.vmm(saga.propolis_id)
            # from the record as it was registered: lost if the sled has told anything newer
            applied = mark_failed(ctx, vmm.id, saga.registered_gen, FailureReason.NO_SUCH_INSTANCE)
            if applied.update is not None:
                update.begin(ctx, applied.update)
        raise Stuck("the sled answered 404 NO_SUCH_INSTANCE to DELETE")
    return None


# ---- create --------------------------------------------------------------------------------------------------------


def _finish_create(ctx: Context, saga: Saga) -> Wish:
    row = _row(ctx, saga)
    if row.state is InstanceDbState.CREATING:
        ctx.records.put_instance(
            attrs.evolve(
                row,
                state=InstanceDbState.NO_VMM,
                state_generation=row.state_generation + 1,
                time_state_updated=ctx.now_us,
            )
        )
    return None


def _start_created(ctx: Context, saga: Saga) -> Wish:
    """With `start`, a start is attempted; its failure does not fail the create."""
    if not saga.start:
        return None
    if saga.child_id is None:
        row = _row(ctx, saga)
        if row.time_deleted is not None:
            return None
        child = Saga(ctx.new_id("saga"), SagaKind.START, row.id, read_generation=row.state_generation)
        saga.child_id = child.id
        runner.spawn(ctx, child)
    return Await(saga.child_id)


CREATE: Final = (Node("record NoVmm", _finish_create), Node("start", _start_created))

# ---- start ---------------------------------------------------------------------------------------------------------


def _link(ctx: Context, saga: Saga) -> Wish:
    """Write the active id: our own is fine, a SagaUnwound one is replaced, any other has come meanwhile.

    The record is read anew, so whatever else has changed since the request is overruled: also a user's stop, which
    has made a Failed instance NoVmm (NX 4.2, hazard `start_overrules_stop`).
    """
    row = _row(ctx, saga)
    propolis_id, _ = _ids(saga)
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
        attrs.evolve(
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


def _unlink(ctx: Context, saga: Saga) -> Wish:
    """Back to NoVmm, unless somebody advanced the generation: then the SagaUnwound id stays for the next start."""
    row = _row(ctx, saga)
    if row.state_generation == saga.written_generation and row.time_deleted is None:
        ctx.records.put_instance(
            attrs.evolve(
                row,
                state=InstanceDbState.NO_VMM,
                active_propolis_id=None,
                state_generation=row.state_generation + 1,
                time_state_updated=ctx.now_us,
            )
        )
    return None


def _nat(ctx: Context, saga: Saga) -> Wish:
    ctx.records.put_network(Network(saga.instance_id, _ids(saga)[1]))
    return None


def _is_last(ctx: Context, saga: Saga) -> bool:
    """Nobody has linked another VMM meanwhile, so what hangs on the instance is still this saga's."""
    return _row(ctx, saga).active_propolis_id in (None, saga.propolis_id)


def _no_nat(ctx: Context, saga: Saga) -> Wish:
    if _is_last(ctx, saga):
        ctx.records.drop_network(saga.instance_id)
    return None


def _charge(ctx: Context, saga: Saga) -> Wish:
    row = _row(ctx, saga)
    ctx.records.put_provision(Provision(row.id, row.ncpus, row.memory))
    return None


def _uncharge(ctx: Context, saga: Saga) -> Wish:
    if _is_last(ctx, saga):
        ctx.records.drop_provision(saga.instance_id)
    return None


def _run(_ctx: Context, saga: Saga) -> Wish:
    propolis_id, sled_id = _ids(saga)
    return Ask(sled_id, PutVmmState(propolis_id, VmmStateRequested(Asked.RUNNING)))


START: Final = (
    Node("reserve sled", _reserve, undo=_release),
    Node("allocate Propolis address", _allocate_ip),
    Node("create VMM record", _create_vmm, undo=_unwind_vmm),
    Node("link VMM", _link, undo=_unlink),
    Node("switch NAT", _nat, undo=_no_nat),
    Node("register", _register, answered=_registered, undo=_unregister, undo_answered=_unregistered),
    Node("provisioning counters", _charge, undo=_uncharge),
    Node("run", _run, answered=_put_answered),
)

# ---- migrate -------------------------------------------------------------------------------------------------------


def _create_migration(ctx: Context, saga: Saga) -> Wish:
    if saga.migration_id is None:
        saga.migration_id = ctx.new_id("migration")
    if saga.migration_id not in ctx.records.migrations:
        assert saga.source_propolis_id is not None
        ctx.records.put_migration(
            Migration(
                id=saga.migration_id,
                instance_id=saga.instance_id,
                source_propolis_id=saga.source_propolis_id,
                target_propolis_id=_ids(saga)[0],
                time_created=ctx.now_us,
            )
        )
    return None


def _fail_migration(ctx: Context, saga: Saga) -> Wish:
    assert saga.migration_id is not None
    mark_migration_failed(ctx, ctx.records.migrations[saga.migration_id])
    return None


def mark_migration_failed(ctx: Context, row: Migration) -> bool:
    """Both sides failed, both generations + 1, however often; a deleted record stays as it is (False)."""
    if row.time_deleted is not None:
        return False
    ctx.records.put_migration(
        attrs.evolve(
            row,
            source_state=MigrationState.FAILED,
            target_state=MigrationState.FAILED,
            source_gen=following(row.source_gen),
            target_gen=following(row.target_gen),
        )
    )
    return True


def _link_target(ctx: Context, saga: Saga) -> Wish:
    """Write migration and target id. No undo: the update saga clears them when it sees the failed migration."""
    row = _row(ctx, saga)
    if row.migration_id == saga.migration_id:
        return None
    source, target = ctx.records.active_vmm(row), ctx.records.target_vmm(row)
    old = ctx.records.migration_of(row)
    no_ids = row.migration_id is None and row.target_propolis_id is None
    replaceable = (
        target is not None
        and target.state is VmmDbState.SAGA_UNWOUND
        and old is not None
        and old.source_state is old.target_state is MigrationState.FAILED
    )
    may = (
        source is not None
        and source.id == saga.source_propolis_id
        and source.state in (VmmDbState.RUNNING, VmmDbState.REBOOTING)
        and (no_ids or replaceable)
    )
    if not may or row.time_deleted is not None:
        raise conflict("another migration is already in progress")
    ctx.records.put_instance(
        attrs.evolve(
            row,
            migration_id=saga.migration_id,
            target_propolis_id=_ids(saga)[0],
            state_generation=row.state_generation + 1,
            time_state_updated=ctx.now_us,
        )
    )
    return None


def _move_in(ctx: Context, saga: Saga) -> Wish:
    """Only the target sled is called; the source learns of the migration from its Propolis."""
    propolis_id, sled_id = _ids(saga)
    source = ctx.vmm(saga.source_propolis_id)
    params = InstanceMigrationTargetParams(src_propolis_addr=source.address)
    return Ask(sled_id, PutVmmState(propolis_id, VmmStateRequested(Asked.MIGRATION_TARGET, params)))


MIGRATE: Final = (
    Node("reserve target sled", _reserve, undo=_release),
    Node("allocate Propolis address", _allocate_ip),
    Node("create VMM record", _create_vmm, undo=_unwind_vmm),
    Node("create migration record", _create_migration, undo=_fail_migration),
    Node("set migration ids", _link_target),
    Node("register on target", _register, answered=_registered, undo=_unregister, undo_answered=_unregistered),
    Node("migrate in", _move_in, answered=_put_answered),
)
