"""What users may ask of an instance in each public state (NX 4.1, 4.2): the table, and what each verdict does.

Everything is decided before anything is changed, except the intended state: the original writes it before the
checks, so
a refused stop or delete still changes it (a refused delete of a running instance disables auto-restart).

Read before: stub/public_state.py, stub/sagas/migrate.py, stub/sagas/start.py.
Read next: stub/background.py, stub/nexus.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import attrs
from msgspec.structs import replace

from nexus_client.dropshot.identity import IdentityEnum
from nexus_client.stub.contract import Answered, Outcome, PutVmmState
from nexus_client.stub.hazards import Hazard
from nexus_client.stub.ingest import apply_report, mark_failed
from nexus_client.stub.public_state import PublicState
from nexus_client.stub.records import (
    NOT_ON_A_SLED,
    TERMINAL,
    FailureReason,
    Instance,
    InstanceDbState,
    IntendedState,
    Vmm,
    VmmDbState,
)
from nexus_client.stub.refusal import Refused, conflict, internal, invalid_request, unavailable
from nexus_client.stub.rules import Rules
from nexus_client.stub.sagas import update
from nexus_client.stub.sagas.state import MigrateSaga, StartSaga
from nexus_client.stub.scope import Desk, RequestCall, TicketWaits
from nexus_client.stub.sled_answers import is_gone, news_in, refused_request
from nexus_client.stub.views import instance_view
from nexus_client.types import Asked, VmmStateRequested


class Situation(IdentityEnum):
    """The rows of the table: the public state, told apart by what the record still points to."""

    CREATING = "creating"
    STARTING = "starting"
    RUNNING = "running"
    REBOOTING = "rebooting"
    MIGRATING = "migrating"
    STOPPING = "stopping"
    STOPPED = "stopped, no VMM"
    FAILED = "failed, no VMM"
    UNWOUND = "SagaUnwound still linked, failed shows"
    STOPPED_LINKED = "stopped shows, VMM still linked"
    """Only before #6658: a SagaUnwound VMM, and before #5749 a Stopped one."""
    OVER = "VMM over but still linked"
    """Only before #6455, where the VMM's own `destroyed` or `failed` shows."""


class Action(IdentityEnum):
    """What is judged by the public state: a column of the table (NX 4.2)."""

    START = "start"
    STOP = "stop"
    REBOOT = "reboot"
    DELETE = "delete"
    RUN = "run"
    """No user's: what a start saga would ask of a VMM."""
    MIGRATE = "migrate"
    """What was asked of a VMM before #5749; users' migrations have `judge_migration`."""


class Do(IdentityEnum):
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
_CANNOT_FROM_RECORD: Final = Refuse(400, "instance state cannot be changed from <s>")
_NO_VMM: Final = Refuse(400, "cannot <a> an instance in state <s> with no VMM")
_MUST_BE_STOPPED: Final = Refuse(409, "instance is in state <s> but it must be stopped to be started")
_MUST_FINISH: Final = Refuse(409, "instance must finish stopping before it can be started")
_STILL_ACTIVE: Final = Refuse(500, "instance is stopped but still has an active VMM")

S, A = Situation, Action
_ORDER: Final = (A.START, A.STOP, A.REBOOT, A.DELETE, A.RUN, A.MIGRATE)
_BUSY: Final = (Do.NOTHING, Do.SEND, Do.SEND, _NOT_STOPPED, Do.SEND)
_ROWS: Final[Mapping[Situation, tuple[Verdict, ...]]] = {
    S.CREATING: (
        _MUST_BE_STOPPED,
        _BEING_CREATED,
        _BEING_CREATED,
        Refuse(400, 'instance cannot be deleted in state "creating"'),
        _BEING_CREATED,
        _BEING_CREATED,
    ),
    S.STARTING: (*_BUSY, _CANNOT_FROM),
    S.RUNNING: (*_BUSY, Do.SEND),
    S.REBOOTING: (*_BUSY, Do.SEND),
    S.MIGRATING: (*_BUSY, Do.SEND),  # to the active VMM: the source
    # stop: the sled makes it idempotent; reboot: the sled refuses it
    S.STOPPING: (_MUST_FINISH, Do.SEND, Do.SEND, _NOT_STOPPED, Do.SEND, _CANNOT_FROM),
    S.STOPPED: (Do.SAGA, Do.NOTHING, _NO_VMM, Do.RECORD, _NO_VMM, _NO_VMM),
    S.FAILED: (
        Do.SAGA,
        Do.RECORD,
        _CANNOT_FROM_RECORD,
        Do.RECORD,
        _CANNOT_FROM_RECORD,
        _CANNOT_FROM_RECORD,
    ),
    S.UNWOUND: (Do.SAGA, _CANNOT_FROM, _CANNOT_FROM, _NOT_STOPPED, _CANNOT_FROM, _CANNOT_FROM),
    S.STOPPED_LINKED: (Do.SAGA, Do.SEND, Do.SEND, _NOT_STOPPED, Do.SEND, _CANNOT_FROM),
    S.OVER: (_MUST_BE_STOPPED, _CANNOT_FROM, _CANNOT_FROM, _NOT_STOPPED, _CANNOT_FROM, _CANNOT_FROM),
}
TABLE: Final[Mapping[tuple[Situation, Action], Verdict]] = {
    (row, action): verdict
    for row, verdicts in _ROWS.items()
    for action, verdict in zip(_ORDER, verdicts, strict=True)
}
"""NX 4.2 at HEAD, and the two last rows for the older rule sets; `judge` has their other differences."""


@attrs.frozen
class Verb:
    """What else a user's action is: the success status, what its user is then known to want, and what a sled is asked
    for where the table says `SEND`.
    """

    accepted: int
    intends: IntendedState
    sends: Asked | None = None


VERBS: Final[Mapping[Action, Verb]] = {
    A.START: Verb(202, IntendedState.RUNNING),
    A.STOP: Verb(202, IntendedState.STOPPED, Asked.STOPPED),
    A.REBOOT: Verb(202, IntendedState.RUNNING, Asked.REBOOT),
    A.DELETE: Verb(204, IntendedState.DESTROYED),
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
    if active is None or public not in (PublicState.STOPPED, PublicState.FAILED, PublicState.DESTROYED):
        return _BY_PUBLIC[public]
    if public is PublicState.STOPPED:
        return S.STOPPED_LINKED
    return S.UNWOUND if active.state is VmmDbState.SAGA_UNWOUND else S.OVER


def _old_start(active: Vmm | None) -> Verdict:
    """The start precheck of before #6278: it looked at the VMM record alone, whatever the instance's state."""
    if active is None:
        return Do.SAGA
    if active.state in (VmmDbState.STARTING, VmmDbState.RUNNING, VmmDbState.REBOOTING):
        return Do.NOTHING
    if active.state is VmmDbState.STOPPED:
        return _STILL_ACTIVE
    return Refuse(409, f"instance is in state {active.state.value} but must be stopped to be started")


def judge(rules: Rules, action: Action, public: PublicState, active: Vmm | None) -> Verdict:
    """The cell of the table for this rule set."""
    if action is A.START and rules.start_looks_at_vmm:
        return _old_start(active)
    row = situation(public, active)
    if row is S.FAILED:
        if action is A.STOP and not rules.failed_can_stop:
            return _CANNOT_FROM_RECORD
        if action is A.START and not rules.failed_can_start:
            return _MUST_BE_STOPPED
    if row is S.STOPPED_LINKED and action is A.START and active is not None:
        # a SagaUnwound one is replaced; any other would be left running
        return Do.SAGA if active.state is VmmDbState.SAGA_UNWOUND else _STILL_ACTIVE
    return TABLE[row, action]


def refused(refuse: Refuse, action: Action, public: PublicState) -> Refused:
    """The verdict as the answer to a user."""
    message = refuse.message.replace("<s>", public.value).replace("<a>", action.value)
    if refuse.status == 409:
        return conflict(message)
    return invalid_request(message) if refuse.status == 400 else internal(message)


# ---- start, stop, reboot, delete -----------------------------------------------------------------------------------


def act(ctx: Desk, ticket: int, instance_id: UUID, action: Action) -> None:
    """Answers the ticket now, or when the sled or the saga has; raises `Refused` if the action is refused at once."""
    row = ctx.instance(instance_id)
    verb = VERBS[action]
    if row.intended_state is not verb.intends:
        row = replace(row, intended_state=verb.intends)
        ctx.records.put_instance(row)
    public = ctx.public(row)
    active = ctx.records.active_vmm(row)
    verdict = judge(ctx.rules, action, public, active)
    if action is A.DELETE and ctx.behaviour.may_delete(row) and row.state is not InstanceDbState.CREATING:
        verdict = Do.RECORD  # the original asks the record, not the public state
    match verdict:
        case Refuse():
            raise refused(verdict, action, public)
        case Do.NOTHING:
            ctx.reply(ticket, verb.accepted, instance_view(ctx, row))
        case Do.SAGA:
            begin_start(ctx, row, TicketWaits(ticket, verb.accepted))
        case Do.SEND:
            _send(ctx, ticket, row, active, action)
        case Do.RECORD if action is A.STOP:
            clear_failed(ctx, row, row.state_generation)
            ctx.reply(ticket, verb.accepted, instance_view(ctx, ctx.instance(instance_id)))
        case Do.RECORD:
            _delete(ctx, row)
            ctx.reply(ticket, verb.accepted)


def begin_start(ctx: Desk, row: Instance, *waiters: TicketWaits, auto_restart: bool = False) -> StartSaga:
    saga = StartSaga(
        id=ctx.new_id("saga"),
        instance_id=row.id,
        read_generation=row.state_generation,
        auto_restart=auto_restart,
    )
    ctx.spawn(saga, *waiters)
    return saga


def clear_failed(ctx: Desk, row: Instance, read_generation: int) -> None:
    """Stop of a failed instance (#6652): Failed -> NoVmm, unless the record has moved since it was read (409)."""
    now = ctx.records.instances[row.id]
    if now.state is not InstanceDbState.FAILED or now.state_generation != read_generation:
        raise conflict("instance changed before the request could be completed")
    ctx.records.put_instance(
        replace(
            now, state=InstanceDbState.NO_VMM, state_generation=read_generation + 1, time_state_updated=ctx.now_us
        )
    )


def _delete(ctx: Desk, row: Instance) -> None:
    """Record only: no sled is called (property 47)."""
    for migration in list(ctx.records.migrations_of(row.id)):
        if migration.time_deleted is None:
            ctx.records.put_migration(replace(migration, time_deleted=ctx.now_us))
    for ip in ctx.records.external_ips_of(row.id):
        ctx.records.drop_external_ip(ip.address)
    ctx.records.put_instance(
        replace(
            row,
            state=InstanceDbState.DESTROYED,
            active_propolis_id=None,  # already so, but with the variant which deletes what runs
            time_deleted=ctx.now_us,
        )
    )
    ctx.tell("record", "instance record deleted", row.id)


def _send(ctx: Desk, ticket: int, row: Instance, active: Vmm | None, action: Action) -> None:
    if active is None:
        raise internal(f"instance {row.id} has no VMM to send {action.value} to")
    asked = VERBS[action].sends
    assert asked is not None, "its row of VERBS says what the table sends"
    ctx.call(
        active.sled_id,
        PutVmmState(active.id, VmmStateRequested(asked)),
        RequestCall(ticket, row.id, active.id, active.state_generation),
    )


def request_answered(ctx: Desk, owner: RequestCall, outcome: Outcome) -> None:
    """The sled has answered a stop or reboot (NX 4.4)."""
    error = refused_request(outcome)
    if error is None:
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
        vmm = ctx.vmm(owner.propolis_id)
        if vmm.state in NOT_ON_A_SLED | TERMINAL and Hazard.FAILS_UNREGISTERED not in ctx.config.hazards:
            raise unavailable(f"VMM {vmm.id} is {vmm.state.value}")
        applied = mark_failed(ctx, owner.propolis_id, owner.read_gen, FailureReason.NO_SUCH_INSTANCE)
        waits = TicketWaits(owner.ticket, 503, error.refusal)
        if applied.update is not None and update.begin(ctx, applied.update, waits):
            return
    raise error


# ---- migrate -------------------------------------------------------------------------------------------------------


def judge_migration(row: Instance, active: Vmm | None, dst_sled_id: UUID) -> None:
    """The checks of NX 4.2 in their order; raises the first that fails. Whether the destination exists is not asked:
    if it does not, placement finds no candidate (507).
    """
    if row.uses_local_storage:
        raise invalid_request(f"cannot migrate instance {row.id} as it uses local storage")
    if active is None or active.state is not VmmDbState.RUNNING:
        raise invalid_request("instance must be running before it can migrate")
    if active.sled_id == dst_sled_id:
        raise invalid_request("instance is already running on destination sled")
    if row.migration_id is not None:
        raise conflict("instance is already migrating")


def migrate(ctx: Desk, ticket: int, instance_id: UUID, dst_sled_id: UUID) -> None:
    """Judged at once, then the saga; answers 200 when it ends."""
    row = ctx.instance(instance_id)
    active = ctx.records.active_vmm(row)
    judge_migration(row, active, dst_sled_id)
    assert active is not None, "judged"
    saga = MigrateSaga(id=ctx.new_id("saga"), instance_id=row.id, sled_id=dst_sled_id, source_propolis_id=active.id)
    ctx.spawn(saga, TicketWaits(ticket, 200))
