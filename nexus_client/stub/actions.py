"""What users may ask of an instance in each public state (NX 4.1, 4.2): the table, and what each verdict does.

Everything is decided before anything is changed, except the intended state: the original writes it before the
checks, so
a refused stop or delete still changes it (a refused delete of a running instance disables auto-restart).

Read before: stub/public_state.py, stub/sagas/instances.py. Read next: stub/background.py, stub/nexus.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final
from uuid import UUID

import attrs

from nexus_client.stub.context import Context, RequestCall, TicketWaits
from nexus_client.stub.contract import Answered, Outcome, PutVmmState
from nexus_client.stub.ingest import apply_report, mark_failed
from nexus_client.stub.public_state import PublicState
from nexus_client.stub.records import FailureReason, Instance, InstanceDbState, IntendedState, Vmm, VmmDbState
from nexus_client.stub.refusal import Refused, conflict, internal, invalid_request, not_found
from nexus_client.stub.rules import Rules
from nexus_client.stub.sagas import runner, update
from nexus_client.stub.sagas.nodes import Saga, SagaKind
from nexus_client.stub.sled_answers import is_gone, news_in, refused_request
from nexus_client.stub.views import instance_view
from nexus_client.types import Asked, VmmStateRequested


class Situation(Enum):
    """The rows of the table: the public state, told apart by what the record still points to."""

    CREATING = "creating"
    STARTING = "starting"
    RUNNING = "running"
    REBOOTING = "rebooting"
    MIGRATING = "migrating"
    STOPPING = "stopping"
    STOPPED = "stopped, no VMM"
    FAILED = "failed, no VMM"
    UNWOUND = "SagaUnwound still linked"
    OVER = "VMM over but still linked"
    """Only before #6455, where the VMM's own `stopped`, `destroyed` or `failed` shows."""


class Action(Enum):
    START = "start"
    STOP = "stop"
    REBOOT = "reboot"
    DELETE = "delete"


class Do(Enum):
    """What happens if the action is not refused."""

    NOTHING = "accepted, nothing done"
    SAGA = "start saga"
    SEND = "sent to the sled"
    RECORD = "record only"


@attrs.frozen
class Refuse:
    """An error with this status; `<s>` in the message is the public state."""

    status: int
    message: str


Verdict = Do | Refuse

_BEING_CREATED: Final = Refuse(400, "cannot change instance state while it is still being created")
_NOT_STOPPED: Final = Refuse(400, "cannot delete instance: instance is running or has not yet fully stopped")
_CANNOT_FROM: Final = Refuse(400, 'instance state cannot be changed from state "<s>"')
_MUST_BE_STOPPED: Final = Refuse(409, "instance is in state <s> but it must be stopped to be started")
_MUST_FINISH: Final = Refuse(409, "instance must finish stopping before it can be started")

S, A = Situation, Action
TABLE: Final[Mapping[tuple[Situation, Action], Verdict]] = {
    (S.CREATING, A.START): _MUST_BE_STOPPED,
    (S.CREATING, A.STOP): _BEING_CREATED,
    (S.CREATING, A.REBOOT): _BEING_CREATED,
    (S.CREATING, A.DELETE): Refuse(400, 'instance cannot be deleted in state "creating"'),
    (S.STARTING, A.START): Do.NOTHING,
    (S.STARTING, A.STOP): Do.SEND,
    (S.STARTING, A.REBOOT): Do.SEND,
    (S.STARTING, A.DELETE): _NOT_STOPPED,
    (S.RUNNING, A.START): Do.NOTHING,
    (S.RUNNING, A.STOP): Do.SEND,
    (S.RUNNING, A.REBOOT): Do.SEND,
    (S.RUNNING, A.DELETE): _NOT_STOPPED,
    (S.REBOOTING, A.START): Do.NOTHING,
    (S.REBOOTING, A.STOP): Do.SEND,
    (S.REBOOTING, A.REBOOT): Do.SEND,
    (S.REBOOTING, A.DELETE): _NOT_STOPPED,
    (S.MIGRATING, A.START): Do.NOTHING,
    (S.MIGRATING, A.STOP): Do.SEND,  # to the active VMM: the source
    (S.MIGRATING, A.REBOOT): Do.SEND,
    (S.MIGRATING, A.DELETE): _NOT_STOPPED,
    (S.STOPPING, A.START): _MUST_FINISH,
    (S.STOPPING, A.STOP): Do.SEND,  # the sled makes it idempotent
    (S.STOPPING, A.REBOOT): Do.SEND,  # the sled refuses it
    (S.STOPPING, A.DELETE): _NOT_STOPPED,
    (S.STOPPED, A.START): Do.SAGA,
    (S.STOPPED, A.STOP): Do.NOTHING,
    (S.STOPPED, A.REBOOT): Refuse(400, "cannot reboot an instance in state <s> with no VMM"),
    (S.STOPPED, A.DELETE): Do.RECORD,
    (S.FAILED, A.START): Do.SAGA,
    (S.FAILED, A.STOP): Do.RECORD,
    (S.FAILED, A.REBOOT): Refuse(400, "instance state cannot be changed from <s>"),
    (S.FAILED, A.DELETE): Do.RECORD,
    (S.UNWOUND, A.START): Do.SAGA,
    (S.UNWOUND, A.STOP): _CANNOT_FROM,
    (S.UNWOUND, A.REBOOT): _CANNOT_FROM,
    (S.UNWOUND, A.DELETE): _NOT_STOPPED,
    (S.OVER, A.START): _MUST_BE_STOPPED,
    (S.OVER, A.STOP): _CANNOT_FROM,
    (S.OVER, A.REBOOT): _CANNOT_FROM,
    (S.OVER, A.DELETE): _NOT_STOPPED,
}
"""NX 4.2 at HEAD; the rows UNWOUND and OVER of the older rule sets follow from their messages (unverified)."""

ACCEPTED: Final[Mapping[Action, int]] = {A.START: 202, A.STOP: 202, A.REBOOT: 202, A.DELETE: 204}

_INTENDS: Final[Mapping[Action, IntendedState]] = {
    A.START: IntendedState.RUNNING,
    A.STOP: IntendedState.STOPPED,
    A.REBOOT: IntendedState.RUNNING,
    A.DELETE: IntendedState.DESTROYED,
}

_BY_PUBLIC: Final[Mapping[PublicState, Situation]] = {
    PublicState.CREATING: S.CREATING,
    PublicState.STARTING: S.STARTING,
    PublicState.RUNNING: S.RUNNING,
    PublicState.REBOOTING: S.REBOOTING,
    PublicState.MIGRATING: S.MIGRATING,
    PublicState.STOPPING: S.STOPPING,
    PublicState.STOPPED: S.STOPPED,
    PublicState.FAILED: S.FAILED,
}


def situation(public: PublicState, active: Vmm | None) -> Situation:
    """The row of the table for this public state and what hangs behind it."""
    if active is not None and public in (PublicState.STOPPED, PublicState.FAILED, PublicState.DESTROYED):
        return S.UNWOUND if active.state is VmmDbState.SAGA_UNWOUND else S.OVER
    return _BY_PUBLIC[public]


def _old_start(rules: Rules, active: Vmm | None) -> Verdict | None:
    """The start precheck of before #6278: it looked at the VMM record. None: it does not apply."""
    if not rules.start_looks_at_vmm:
        return None
    if active is None or active.state is VmmDbState.SAGA_UNWOUND:
        return Do.SAGA  # whatever the instance state
    if active.state in (VmmDbState.STARTING, VmmDbState.RUNNING, VmmDbState.REBOOTING):
        return Do.NOTHING
    if active.state is VmmDbState.STOPPED:
        return Refuse(500, "a stopped VMM is still linked")
    return Refuse(409, f"instance is in state {active.state.value} but must be stopped to be started")


def judge(rules: Rules, action: Action, public: PublicState, active: Vmm | None) -> Verdict:
    """The cell of the table for this rule set."""
    if action is A.START:
        old = _old_start(rules, active)
        if old is not None:
            return old
    row = situation(public, active)
    if row is S.FAILED and action is A.STOP and not rules.failed_can_stop:
        return _CANNOT_FROM
    return TABLE[row, action]


def _refused(refuse: Refuse, public: PublicState) -> Refused:
    message = refuse.message.replace("<s>", public.value)
    if refuse.status == 409:
        return conflict(message)
    return invalid_request(message) if refuse.status == 400 else internal(message)


# ---- start, stop, reboot, delete -----------------------------------------------------------------------------------


def act(ctx: Context, ticket: int, instance_id: UUID, action: Action) -> None:
    """Answers the ticket now, or when the sled or the saga has; raises `Refused` if the action is refused at once."""
    row = ctx.instance(instance_id)
    intends = _INTENDS[action]
    if row.intended_state is not intends:
        row = attrs.evolve(row, intended_state=intends)
        ctx.records.put_instance(row)
    public = ctx.public(row)
    active = ctx.records.active_vmm(row)
    verdict = judge(ctx.rules, action, public, active)
    if action is A.DELETE and ctx.behaviour.may_delete(row) and row.state is not InstanceDbState.CREATING:
        verdict = Do.RECORD  # the original asks the record, not the public state
    match verdict:
        case Refuse():
            raise _refused(verdict, public)
        case Do.NOTHING:
            ctx.reply(ticket, ACCEPTED[action], instance_view(ctx, row))
        case Do.SAGA:
            begin_start(ctx, row, TicketWaits(ticket, ACCEPTED[action]))
        case Do.SEND:
            _send(ctx, ticket, row, active, action)
        case Do.RECORD if action is A.STOP:
            clear_failed(ctx, row, row.state_generation)
            ctx.reply(ticket, ACCEPTED[action], instance_view(ctx, ctx.instance(instance_id)))
        case Do.RECORD:
            _delete(ctx, row)
            ctx.reply(ticket, ACCEPTED[action])


def begin_start(ctx: Context, row: Instance, *waiters: TicketWaits, auto_restart: bool = False) -> Saga:
    saga = Saga(
        ctx.new_id("saga"), SagaKind.START, row.id, read_generation=row.state_generation, auto_restart=auto_restart
    )
    runner.spawn(ctx, saga, *waiters)
    return saga


def clear_failed(ctx: Context, row: Instance, read_generation: int) -> None:
    """Stop of a failed instance (#6652): Failed -> NoVmm, unless the record has moved since it was read (409)."""
    now = ctx.records.instances[row.id]
    if now.state is not InstanceDbState.FAILED or now.state_generation != read_generation:
        raise conflict("instance changed before the request could be completed")
    ctx.records.put_instance(
        attrs.evolve(
            now, state=InstanceDbState.NO_VMM, state_generation=read_generation + 1, time_state_updated=ctx.now_us
        )
    )


def _delete(ctx: Context, row: Instance) -> None:
    """Record only: no sled is called (property 47)."""
    for migration in list(ctx.records.migrations_of(row.id)):
        if migration.time_deleted is None:
            ctx.records.put_migration(attrs.evolve(migration, time_deleted=ctx.now_us))
    for ip in list(ctx.records.external_ips.values()):
        if ip.instance_id == row.id:
            ctx.records.drop_external_ip(ip.address)
    ctx.records.put_instance(
        attrs.evolve(
            row,
            state=InstanceDbState.DESTROYED,
            active_propolis_id=None,
            target_propolis_id=None,
            migration_id=None,
            state_generation=row.state_generation + 1,
            time_state_updated=ctx.now_us,
            time_deleted=ctx.now_us,
        )
    )
    ctx.tell("record", "instance record deleted", row.id)


def _send(ctx: Context, ticket: int, row: Instance, active: Vmm | None, action: Action) -> None:
    if active is None:
        raise internal(f"instance {row.id} has no VMM to send {action.value} to")
    asked = Asked.STOPPED if action is A.STOP else Asked.REBOOT
    ctx.call(
        active.sled_id,
        PutVmmState(active.id, VmmStateRequested(asked)),
        RequestCall(ticket, row.id, active.id, active.state_generation),
    )


def request_answered(ctx: Context, owner: RequestCall, outcome: Outcome) -> None:
    """The sled has answered a stop or reboot (NX 4.4)."""
    refused = refused_request(outcome)
    if refused is None:
        assert isinstance(outcome, Answered)
        news = news_in(outcome)
        if news is not None:
            applied = apply_report(ctx, owner.propolis_id, news)
            if applied.update is not None:
                update.begin(ctx, applied.update)
        row = ctx.records.instances[owner.instance_id]
        ctx.reply(owner.ticket, 202, instance_view(ctx, row))
        return
    if is_gone(outcome):
        applied = mark_failed(ctx, owner.propolis_id, owner.read_gen, FailureReason.NO_SUCH_INSTANCE)
        waits = TicketWaits(owner.ticket, 503, refused.refusal)
        if applied.update is not None and update.begin(ctx, applied.update, waits):
            return
    raise refused


# ---- migrate -------------------------------------------------------------------------------------------------------


def migrate(ctx: Context, ticket: int, instance_id: UUID, dst_sled_id: UUID) -> None:
    """The checks of NX 4.2 in their order, then the saga; answers 200 when it ends."""
    row = ctx.instance(instance_id)
    if row.uses_local_storage:
        raise invalid_request(f"cannot migrate instance {row.id} as it uses local storage")
    active = ctx.records.active_vmm(row)
    if active is None or active.state is not VmmDbState.RUNNING:
        raise invalid_request("instance must be running before it can migrate")
    if active.sled_id == dst_sled_id:
        raise invalid_request("instance is already running on destination sled")
    if row.migration_id is not None:
        raise conflict("instance is already migrating")
    if dst_sled_id not in ctx.records.sleds:
        raise not_found("sled", dst_sled_id)
    saga = Saga(
        ctx.new_id("saga"),
        SagaKind.MIGRATE,
        row.id,
        sled_id=dst_sled_id,
        source_propolis_id=active.id,
        read_generation=row.state_generation,
    )
    runner.spawn(ctx, saga, TicketWaits(ticket, 200))
