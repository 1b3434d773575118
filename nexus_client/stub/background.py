"""The background tasks: health check, updater, reaper, reincarnation (NX 4.5, 5.4).

Read before: stub/sagas/update.py, stub/actions.py. Read next: stub/nexus.py.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from nexus_client.stub import actions
from nexus_client.stub.config import Config
from nexus_client.stub.context import Context
from nexus_client.stub.contract import Answered, GetVmmState, NoConnection, Outcome, Task, TimedOut
from nexus_client.stub.hazards import Hazard
from nexus_client.stub.ingest import Applied, apply_report, mark_failed
from nexus_client.stub.records import NOT_ON_A_SLED, TERMINAL, FailureReason, Instance, Sled, VmmDbState
from nexus_client.stub.refusal import Refused
from nexus_client.stub.sagas import update as update_saga
from nexus_client.stub.sagas.state import StartSaga
from nexus_client.stub.scope import WatchCall, WatchWaits
from nexus_client.stub.sled_answers import is_gone
from nexus_client.stub.wording import describe_outcome
from nexus_client.types import MIGRATION_TERMINAL, SledVmmState


def period_us(config: Config, task: Task) -> int | None:
    """How long a task rests between two rounds; None: it only comes when it is woken."""
    match task:
        case Task.WATCHER:
            return config.watcher_period_us
        case Task.UPDATER:
            return config.updater_period_us
        case Task.REAPER:
            return config.reaper_period_us
        case Task.REINCARNATION:
            return config.reincarnation_period_us


def arm(ctx: Context) -> None:
    """Every task is due one period from now."""
    for task in Task:
        period = period_us(ctx.config, task)
        ctx.task_due_us[task] = None if period is None else ctx.now_us + period
    _look_again(ctx)


def _look_again(ctx: Context) -> None:
    """A task may be due later than it was: which is the next?"""
    ctx.tasks_next_us = min((due for due in ctx.task_due_us.values() if due is not None), default=None)


def run_due(ctx: Context) -> bool:
    """Run the tasks whose time has come; True if any ran."""
    ran = False
    least = ctx.tasks_next_us
    if least is None or least > ctx.now_us:
        return False  # nearly always
    for task in Task:
        due = ctx.task_due_us.get(task)
        if due is not None and due <= ctx.now_us:
            period = period_us(ctx.config, task)
            ctx.task_due_us[task] = None if period is None else ctx.now_us + period
            _look_again(ctx)
            with ctx.containing():
                RUNS[task](ctx)
            ran = True
    return ran


# ---- instance_watcher ----------------------------------------------------------------------------------------------


def watch(ctx: Context) -> None:
    """Begin a round, unless the last one is still under way."""
    if not ctx.behaviour.checks_vmms or ctx.watch.waiting or ctx.watch.checking:
        return
    for vmm in ctx.records.live_vmms():
        if vmm.state not in NOT_ON_A_SLED and vmm.sled_id in ctx.records.sleds:
            ctx.watch.waiting.append(vmm.id)
    check_more(ctx)


def check_more(ctx: Context) -> None:
    """Fill the free slots: at most so many checks at once."""
    if not ctx.watch.waiting:
        return  # nearly always
    while ctx.watch.waiting and len(ctx.watch.checking) < ctx.config.watcher_checks_max:
        propolis_id = ctx.watch.waiting.popleft()
        vmm = ctx.records.vmms[propolis_id]
        if vmm.state in TERMINAL and Hazard.CHECKS_WHAT_IS_OVER not in ctx.config.hazards:
            continue  # asked here and not when the round was listed: it may be over since
        sled = ctx.records.sleds[vmm.sled_id]
        ctx.watch.checking.add(propolis_id)
        unasked = judge_unasked(sled)
        if unasked is not None:
            _fail(ctx, propolis_id, vmm.state_generation, unasked)
            continue
        ctx.call(vmm.sled_id, GetVmmState(propolis_id), WatchCall(propolis_id, vmm.state_generation))


def judge_unasked(sled: Sled) -> FailureReason | None:
    """The verdict on a sled's VMMs that needs no question (NX 4.5)."""
    return FailureReason.SLED_EXPUNGED if sled.policy == "expunged" else None


def judge_answer(sled: Sled, outcome: Outcome) -> FailureReason | SledVmmState | None:
    """What a health check makes of an answer (NX 4.5): a verdict, news, or nothing that could be concluded."""
    match outcome:
        case Answered(SledVmmState() as body):
            return body
        case _ if is_gone(outcome):
            return FailureReason.NO_SUCH_INSTANCE
        case NoConnection() | TimedOut() if sled.power not in ("a0", "unknown"):
            return FailureReason.SLED_OFF
        case _:
            return None


def checked(ctx: Context, owner: WatchCall, outcome: Outcome) -> None:
    """A sled has answered a health check."""
    vmm = ctx.records.vmms[owner.propolis_id]
    match judge_answer(ctx.sled(vmm.sled_id), outcome):
        case SledVmmState() as body:
            try:
                applied = apply_report(ctx, owner.propolis_id, body)
            except Refused as refused:
                ctx.tell("task", f"health check cannot be applied: {refused}", vmm.instance_id, vmm.id)
                ctx.watch.checking.discard(owner.propolis_id)
            else:
                _await_update(ctx, owner.propolis_id, applied)
        case FailureReason() as reason:
            _fail(ctx, owner.propolis_id, owner.read_gen, reason)
        case None:
            ctx.tell("task", f"health check is inconclusive: {describe_outcome(outcome)}", vmm.instance_id, vmm.id)
            ctx.watch.checking.discard(owner.propolis_id)
    check_more(ctx)


def _fail(ctx: Context, propolis_id: UUID, read_gen: int, reason: FailureReason) -> None:
    """A VMM is lost: Failed, in the generation after the one read; its update saga is awaited in this slot."""
    vmm = ctx.records.vmms[propolis_id]
    if not ctx.rules.watcher_fails_vmms:
        ctx.tell("task", f"health check finds {reason.value}; this rule set does nothing", vmm.instance_id, vmm.id)
        ctx.watch.checking.discard(propolis_id)
        return
    ctx.tell("task", f"health check: {reason.value}", vmm.instance_id, vmm.id)
    try:
        applied = mark_failed(ctx, propolis_id, read_gen, reason)
    except Refused as refused:
        ctx.tell("task", f"health check cannot be applied: {refused}", vmm.instance_id, vmm.id)
        ctx.watch.checking.discard(propolis_id)
        return
    _await_update(ctx, propolis_id, applied)


def _await_update(ctx: Context, propolis_id: UUID, applied: Applied) -> None:
    if applied.update is None or not update_saga.begin(ctx, applied.update, WatchWaits(propolis_id)):
        ctx.watch.checking.discard(propolis_id)


# ---- instance_updater ----------------------------------------------------------------------------------------------


def update(ctx: Context) -> None:
    """Start a saga for every unlocked instance that seems to need one; some find nothing to do (NX 5.4)."""
    if not ctx.behaviour.runs_updater:
        return
    for row in ctx.records.suspects():
        if row.updater_id is None and seems_due(ctx, row):
            update_saga.begin(ctx, row.id, reported=False)


def seems_due(ctx: Context, row: Instance) -> bool:
    """Whether the updater finds this instance: its active VMM is over, or a side of its migration is (NX 5.4 #3)."""
    active = ctx.records.active_vmm(row)
    if active is not None:
        if active.state is VmmDbState.DESTROYED:
            return True
        if active.state is VmmDbState.FAILED and ctx.rules.failed_is_terminal:
            return True
    migration = ctx.records.migration_of(row)
    return migration is not None and not MIGRATION_TERMINAL.isdisjoint(
        (migration.source_state, migration.target_state)
    )


# ---- abandoned_vmm_reaper ------------------------------------------------------------------------------------------


def reap(ctx: Context) -> None:
    """Delete the records of VMMs which are over and which no instance points to."""
    for listed in ctx.records.suspect_vmms():
        vmm = ctx.records.vmms[listed.id]  # as it is now: reaping another may have changed it
        instance = ctx.records.instances.get(vmm.instance_id)
        if vmm.time_deleted is None and ctx.behaviour.is_abandoned(ctx.rules, vmm, instance):
            ctx.tell("task", "abandoned VMM is reaped", vmm.instance_id, vmm.id)
            with ctx.containing(vmm.instance_id):
                update_saga.destroy_vmm(ctx, vmm.id)


# ---- instance_reincarnation ----------------------------------------------------------------------------------------


def reincarnate(ctx: Context) -> None:
    """Restart what has failed and may be restarted, at most so many at once; a conflict only means "changed
    meanwhile".
    """
    if not ctx.rules.head:
        return
    starting = {saga.instance_id for saga in ctx.sagas.values() if isinstance(saga, StartSaga)}
    running = sum(1 for saga in ctx.sagas.values() if isinstance(saga, StartSaga) and saga.auto_restart)
    for row in ctx.records.suspects():
        if running >= ctx.config.reincarnation_max:
            ctx.wake(Task.REINCARNATION)
            return
        if row.id in starting:
            continue  # its saga has not written the active id yet
        if ctx.behaviour.may_auto_restart(row, ctx.records.active_vmm(row), ctx.config.cooldown_us, ctx.now_us):
            ctx.tell("task", "auto-restart", row.id)
            actions.begin_start(ctx, row, auto_restart=True)
            running += 1


RUNS: Final = {
    Task.WATCHER: watch,
    Task.UPDATER: update,
    Task.REAPER: reap,
    Task.REINCARNATION: reincarnate,
}
