"""What the start and the migrate saga share: a VMM's way to its sled, and back (NX 4.1, 4.3).

A node runs again after a crash, so each first asks whether it has done its work already.

Read before: stub/placement.py, stub/sagas/runner.py, stub/sagas/update.py.
Read next: stub/sagas/migrate.py, stub/sagas/start.py.
"""

from __future__ import annotations

from msgspec.structs import replace

from nexus_client.stub import placement
from nexus_client.stub.auto_restart import may_restart
from nexus_client.stub.config import SagaMode
from nexus_client.stub.contract import Answered, Outcome, RegisterVmm, Task, UnregisterVmm
from nexus_client.stub.ingest import IFF_FAILED, apply_report, mark_failed
from nexus_client.stub.networking import vm_spec
from nexus_client.stub.records import (
    FailureReason,
    IpState,
    ReservationKind,
    Vmm,
    VmmDbState,
    following,
)
from nexus_client.stub.refusal import Refused, internal, unavailable
from nexus_client.stub.sagas import update
from nexus_client.stub.sagas.nodes import Ask, Await, Stuck, Wish
from nexus_client.stub.sagas.state import MigrateSaga, SagaKind, UpdateSaga, VmmSaga
from nexus_client.stub.scope import Scope
from nexus_client.stub.sled_answers import is_gone, news_in, refused_in_saga


def reserve(ctx: Scope, saga: VmmSaga) -> Wish:
    row = ctx.records.instances[saga.instance_id]
    starts = saga.kind is SagaKind.START
    if saga.propolis_id is not None and saga.propolis_id in ctx.records.reservations:
        return None
    sled = placement.choose_sled(ctx, row, placement.pinned(ctx, row) if starts else saga.sled_id)
    if saga.propolis_id is None:
        saga.propolis_id = ctx.new_id("vmm")
    saga.sled_id = sled.id
    placement.reserve(
        ctx, row, saga.propolis_id, sled.id, ReservationKind.ACTIVE if starts else ReservationKind.TARGET
    )
    if starts:
        placement.next_pin(ctx, row)
    return None


def release(ctx: Scope, saga: VmmSaga) -> Wish:
    ctx.records.drop_reservation(saga.ids[0])
    return None


def allocate_ip(ctx: Scope, saga: VmmSaga) -> Wish:
    if not saga.propolis_ip:
        saga.propolis_ip, saga.propolis_port = placement.propolis_address(ctx, ctx.sled(saga.ids[1]))
    return None


def create_vmm(ctx: Scope, saga: VmmSaga) -> Wish:
    propolis_id, sled_id = saga.ids
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


def unwind_vmm(ctx: Scope, saga: VmmSaga) -> Wish:
    """The undo of the VMM's record; a start that may be tried again wakes who tries it."""
    mark_unwound(ctx, ctx.vmm(saga.propolis_id))
    row = ctx.records.instances[saga.instance_id]
    if saga.kind is SagaKind.START and may_restart(row, ctx.config.cooldown_us, ctx.now_us).now:
        ctx.wake(Task.REINCARNATION)
    return None


def mark_unwound(ctx: Scope, vmm: Vmm) -> bool:
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
        replace(vmm, state=unwound, state_generation=gen, failure_reason=reason, time_state_updated=ctx.now_us)
    )
    ctx.tell("record", f"{unwound.value} gen {gen}", vmm.instance_id, vmm.id)
    return True


def register(ctx: Scope, saga: VmmSaga) -> Wish:
    row = ctx.records.instances[saga.instance_id]
    propolis_id, sled_id = saga.ids
    vmm = ctx.vmm(propolis_id)
    if any(ip.state is not IpState.ATTACHED for ip in ctx.records.external_ips_of(row.id)):
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
            migration_id=saga.migration_id if isinstance(saga, MigrateSaga) else None,
            spec=vm_spec(ctx, row),
        ),
    )


def registered(ctx: Scope, saga: VmmSaga, outcome: Outcome) -> Wish:
    refused = refused_in_saga(outcome)
    if refused is None:
        wish = told(ctx, saga, outcome)
        saga.registered_gen = ctx.vmm(saga.propolis_id).state_generation
        return wish
    if is_gone(outcome):
        saga.refusal = refused.refusal
        return _fail_vmm(ctx, saga)
    raise refused


def _fail_vmm(ctx: Scope, saga: VmmSaga) -> Wish:
    """The sled has lost the VMM: mark it Failed, wait for the update saga; the refusal then turns this saga round."""
    vmm = ctx.vmm(saga.propolis_id)
    applied = mark_failed(ctx, vmm.id, vmm.state_generation, FailureReason.NO_SUCH_INSTANCE)
    if applied.update is not None and ctx.config.saga_mode is not SagaMode.BACKGROUND:
        due = UpdateSaga(id=ctx.new_id("saga"), instance_id=saga.instance_id)
        ctx.spawn(due)
        return Await(due.id)
    assert saga.refusal is not None
    raise Refused(saga.refusal)


def told(ctx: Scope, saga: VmmSaga, outcome: Outcome) -> Wish:
    """A good answer of register or put state: its news go through ingest."""
    assert isinstance(outcome, Answered)
    news = news_in(outcome)
    if news is not None and saga.propolis_id is not None:
        applied = apply_report(ctx, saga.propolis_id, news)
        if applied.update is not None:
            update.begin(ctx, applied.update)
    return None


def put_answered(ctx: Scope, saga: VmmSaga, outcome: Outcome) -> Wish:
    refused = refused_in_saga(outcome)
    if refused is not None:
        raise refused
    return told(ctx, saga, outcome)


def unregister(_ctx: Scope, saga: VmmSaga) -> Wish:
    propolis_id, sled_id = saga.ids
    return Ask(sled_id, UnregisterVmm(propolis_id))


def unregistered(ctx: Scope, saga: VmmSaga, outcome: Outcome) -> Wish:
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
