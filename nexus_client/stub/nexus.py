"""A model of Nexus: the pure core. This is not Nexus; it is what NX says of it, for tests and demonstrations.

How to drive it::

    nexus = Nexus(Config(rules=RuleSet.HEAD), seed=7)
    effects = nexus.handle(CreateInstance(ticket=1, name="web", hostname="web"), now_us)

`handle(input, now_us)` takes one input (contract.py) and returns all its effects, in order. `next_deadline_us()` is
when the core wants a `Tick` next (background tasks, paced sagas); None: never. There is no I/O, no clock and no dice
here: the same inputs at the same times give the same effects, and every id is a UUID version 5 of (seed, kind,
counter).

* Each input with a ticket gets exactly one `Reply` (or `Dropped`) with that ticket, at once or in a later call.
* Each `CallSled` wants one `SledAnswered` with its call id; a time-out is the caller's to notice (`TimedOut`).
* `Happened` lines are the timeline, also kept per instance: `nexus.timeline(instance_id)`.
* `Crash` forgets tickets, calls and task rounds; records and the saga log stay. Until `Boot` every input that
  has a ticket is `Dropped` and everything else is ignored. An armed crash (`ArmCrash`) does this in mid-call.

Reading without a ticket: `instances()`, `find(name)`, `public_state(id)`, `view(id)`, `quiet` (nothing in flight),
`records` (rows are frozen; do not write).

Read before: stub/actions.py, stub/background.py, stub/contract.py, stub/records.py, stub/sagas/ip.py, stub/sizes.py.
Read next: stub/properties.py, stub/server/host.py, stub/server/serve.py, stub/server/store.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, assert_never
from uuid import UUID

from msgspec.structs import replace

from nexus_client.stub import actions, background, networking, placement, registration_rules
from nexus_client.stub.actions import Action
from nexus_client.stub.behaviour import Behaviour
from nexus_client.stub.config import Config, UnknownVmm
from nexus_client.stub.context import ArmedCrash, Changes, Context, Program
from nexus_client.stub.contract import (
    ArmCrash,
    AttachIp,
    Boot,
    CheckConsole,
    Crash,
    Crashed,
    CrashPoint,
    CreateInstance,
    Delete,
    DetachIp,
    Dropped,
    Effect,
    GetInstance,
    Happened,
    Input,
    ListInstances,
    ListSleds,
    Migrate,
    Outcome,
    ReadInventory,
    Reboot,
    RunTask,
    SetSled,
    SledAnswered,
    SledGot,
    SledPosted,
    Start,
    Stop,
    Tick,
    VmmReported,
)
from nexus_client.stub.hazards import PANICS, NexusPanicked
from nexus_client.stub.ingest import adopt, apply_report
from nexus_client.stub.public_state import PublicState
from nexus_client.stub.records import (
    POWERS,
    AutoRestartPolicy,
    Instance,
    IntendedState,
    InvariantBroken,
    Records,
    Row,
    Sled,
)
from nexus_client.stub.refusal import Refused, already_exists, internal, invalid_request, not_found
from nexus_client.stub.sagas import create, ip, migrate, runner, start, update
from nexus_client.stub.sagas.state import AttachSaga, CreateSaga, DetachSaga, Saga, SagaKind
from nexus_client.stub.scope import NobodysCall, RequestCall, SagaCall, TicketWaits, WatchCall
from nexus_client.stub.sizes import check_hostname, check_name, check_sizes
from nexus_client.stub.variants import behaviour_of
from nexus_client.stub.views import full_view, instance_view, sled_view
from nexus_client.stub.wording import describe_outcome, describe_report

PROGRAMS: Final[Mapping[SagaKind, Program]] = {
    SagaKind.CREATE: create.PROGRAM,
    SagaKind.START: start.PROGRAM,
    SagaKind.MIGRATE: migrate.PROGRAM,
    SagaKind.UPDATE: update.PROGRAM,
    SagaKind.ATTACH: ip.PROGRAM,
    SagaKind.DETACH: ip.PROGRAM,
}
ROUNDS_MAX: Final = 100
"""Rounds of tasks and sagas in one call; each ends in fewer than four (a task wakes a saga wakes a task)."""


class Nexus:
    """The core. `behaviour` replaces the one which `config.variant` names (variants.py)."""

    def __init__(self, config: Config | None = None, seed: int = 0, behaviour: Behaviour | None = None) -> None:
        config = Config() if config is None else config
        self._ctx = Context(config, behaviour or behaviour_of(config.variant), PROGRAMS, seed)
        self._up = True
        self._armed = False
        self._next_us: int | None = None
        self._next_known = False
        """Whether nothing was taken since `_next_us` was found: it is asked more often than it moves."""
        self._behind_us = 0
        """What the caller's clock lags behind the time here: it was set back."""

    # -- the one door

    def handle(self, item: Input, now_us: int) -> list[Effect]:
        """One input, all its effects. No input raises: what would break a rule of the database is in `broken`."""
        ctx = self._ctx
        self._next_known = False
        if now_us + self._behind_us < ctx.now_us:  # the caller's clock was set back: here time goes on
            self._behind_us = ctx.now_us - now_us
        ctx.now_us = now_us + self._behind_us
        if not self._up and not isinstance(item, Boot):
            return [Dropped(item.ticket)] if hasattr(item, "ticket") else []
        if not self._armed and not isinstance(item, Boot):
            background.arm(ctx)
            self._armed = True
        try:
            self._take(item)
            for _ in range(ROUNDS_MAX):
                runner.run_ready(ctx)
                background.check_more(ctx)
                if not background.run_due(ctx) and not ctx.ready_sagas:
                    break
            else:
                raise AssertionError(f"no rest after {ROUNDS_MAX} rounds")
        except ArmedCrash as struck:
            ctx.tell("crash", f"armed crash: {struck}")
            self._crash()
        except NexusPanicked as panic:
            ctx.tell("crash", f"{PANICS}{panic}")
            self._crash()
        return ctx.finish()

    def next_deadline_us(self) -> int | None:
        """When to send the next `Tick`."""
        if not self._up or not self._armed:
            return None
        if not self._next_known:
            due_us, other_us = self._ctx.tasks_next_us, runner.next_due_us(self._ctx)
            if due_us is None or (other_us is not None and other_us < due_us):
                due_us = other_us
            self._next_us = None if due_us is None else due_us - self._behind_us
            self._next_known = True
        return self._next_us

    # -- reading

    @property
    def up(self) -> bool:
        return self._up

    @property
    def broken(self) -> list[InvariantBroken]:
        """Rules of the database that would have been broken: a bug, or a wrong variant. Each has been told, too."""
        return self._ctx.broken

    @property
    def config(self) -> Config:
        return self._ctx.config

    @property
    def records(self) -> Records:
        return self._ctx.records

    @property
    def sagas(self) -> list[Saga]:
        """The saga log: what runs, waits or is stuck."""
        return list(self._ctx.sagas.values())

    def stands_at(self, saga: Saga) -> str:
        """The name of the node that it is at; "" if it is about to end."""
        return runner.node_name(self._ctx, saga)

    @property
    def quiet(self) -> bool:
        """No saga runs, no call is in flight, no ticket is open. Background tasks may still find work."""
        ctx = self._ctx
        busy = any(not saga.stuck for saga in ctx.sagas.values())
        return not (busy or ctx.calls or ctx.tickets or ctx.watch.waiting)

    def instances(self) -> list[Instance]:
        """Undeleted instances in order of creation."""
        return self._ctx.records.live_instances()

    def find(self, name: str) -> Instance | None:
        return self._ctx.records.named(name)

    def watch_public(self, watcher: Callable[[Instance, PublicState | None], None]) -> None:
        """`watcher` is told each change of what users see of an instance; None: it is deleted."""
        self._ctx.public_watchers.append(watcher)

    def public_state(self, instance_id: UUID) -> PublicState:
        """Raises `Refused` (404) for a deleted or unknown instance."""
        return self._ctx.public(self._ctx.instance(instance_id))

    def view(self, instance_id: UUID) -> dict[str, Any]:
        """Everything about one instance, deleted ones included. Raises KeyError if there never was one."""
        return full_view(self._ctx, self._ctx.records.instances[instance_id])

    def timeline(self, instance_id: UUID) -> list[Happened]:
        return list(self._ctx.timelines.get(instance_id, ()))

    def would_start(self, instance_id: UUID) -> bool:
        """Would a start be accepted now (NX 7 #38)? Changes nothing."""
        ctx = self._ctx
        row = ctx.instance(instance_id)
        verdict = actions.judge(ctx.rules, Action.START, ctx.public(row), ctx.records.active_vmm(row))
        return isinstance(verdict, actions.Do) and not placement.lags(ctx, row)

    # -- what survives the process

    def restore(self, rows: Iterable[Row], sagas: Iterable[Saga], counters: Mapping[str, int]) -> None:
        """Before the first input: the records and the saga log of an earlier process. From now on changes are kept.

        rows: VMMs before the instances that point to them. Raises `InvariantBroken` for rows that cannot be.
        """
        ctx = self._ctx
        ctx.records.counters.update(counters)
        for row in rows:
            ctx.records.put(row)
        ctx.sagas.update((saga.id, saga) for saga in sagas)
        ctx.finish()  # what became public by this is no news
        ctx.timelines.clear()
        ctx.journal = {}

    def take_changes(self) -> Changes:
        """What has changed since the last call; only after `restore` are changes kept."""
        ctx = self._ctx
        rows, ctx.journal = ctx.journal or {}, {}
        return Changes(rows, list(ctx.sagas.values()), ctx.records.counters)

    # -- inputs

    def _take(self, item: Input) -> None:
        match item:
            case Tick():
                return
            case SledAnswered(call_id, outcome):
                self._answered(call_id, outcome)
            case Crash():
                self._ctx.tell("crash", "Nexus dies")
                self._crash()
            case Boot():
                self._boot()
            case _:
                self._ctx.tickets[item.ticket] = None
                try:
                    self._ask(item)
                except Refused as refused:
                    self._ctx.refuse(item.ticket, refused.refusal)
                except InvariantBroken as broken:
                    self._ctx.report_broken(broken, None)
                    self._ctx.refuse(item.ticket, internal(str(broken)).refusal)

    def _ask(self, item: Any) -> None:
        """An input with a ticket; `Refused` becomes its answer."""
        match item:
            case VmmReported():
                self._report(item)
            case SledPosted() | SledGot() | SetSled() | ListSleds():
                self._sled_input(item)
            case CreateInstance():
                self._create(item)
            case Start(ticket, instance_id):
                self._act(ticket, instance_id, Action.START)
            case Stop(ticket, instance_id):
                self._act(ticket, instance_id, Action.STOP)
            case Reboot(ticket, instance_id):
                self._act(ticket, instance_id, Action.REBOOT)
            case Delete(ticket, instance_id):
                self._act(ticket, instance_id, Action.DELETE)
            case Migrate(ticket, instance_id, dst_sled_id):
                self._ctx.tell("asked", f"migrate to {dst_sled_id}", instance_id)
                actions.migrate(self._ctx, ticket, instance_id, dst_sled_id)
            case AttachIp() | DetachIp():
                self._change_ip(item)
            case CheckConsole(ticket, instance_id):
                self._console(ticket, instance_id)
            case GetInstance(ticket, instance_id):
                self._ctx.instance(instance_id)
                self._ctx.reply(ticket, 200, self.view(instance_id))
            case ListInstances(ticket):
                rows = [instance_view(self._ctx, row) for row in self.instances()]
                self._ctx.reply(ticket, 200, {"items": rows})
            case RunTask(ticket, task):
                self._ctx.wake_at(task, self._ctx.now_us)
                self._ctx.reply(ticket, 204)
            case ArmCrash(ticket, point):
                self._ctx.armed.add(point)
                self._ctx.reply(ticket, 204)
            case _:
                assert_never(item)

    def _act(self, ticket: int, instance_id: UUID, action: Action) -> None:
        self._ctx.tell("asked", action.value, instance_id)
        try:
            actions.act(self._ctx, ticket, instance_id, action)
        except Refused as refused:
            self._ctx.tell("refused", f"{action.value}: {refused.refusal.message}", instance_id)
            raise

    def _report(self, item: VmmReported) -> None:
        ctx = self._ctx
        unknown = item.propolis_id not in ctx.records.vmms
        if unknown and ctx.config.unknown_vmm is UnknownVmm.IGNORE:
            ctx.reply(item.ticket, 204)
            return
        moves = item.state.migration_in is not None or item.state.migration_out is not None
        if unknown and ctx.config.unknown_vmm is UnknownVmm.ADOPT and not moves:
            adopt(ctx, item.propolis_id, item.state)
        vmm = ctx.records.vmms.get(item.propolis_id)
        instance_id = None if vmm is None else vmm.instance_id
        ctx.tell("reported", describe_report(item.state), instance_id, item.propolis_id)
        applied = apply_report(ctx, item.propolis_id, item.state)
        if applied.update is not None:
            ctx.crash_if_armed(CrashPoint.AFTER_COMMIT)
            update.begin(ctx, applied.update)  # spawned: the answer does not wait
        ctx.reply(item.ticket, 204)

    def _sled_input(self, item: SledPosted | SledGot | SetSled | ListSleds) -> None:
        ctx = self._ctx
        match item:
            case SledPosted(ticket, sled_id, info):
                changed = registration_rules.post(ctx, sled_id, info)
                ctx.reply(ticket, 204)
                if changed and ctx.config.collect_inventory:
                    ctx.call(sled_id, ReadInventory(), NobodysCall())
            case SledGot(ticket, sled_id):
                ctx.reply(ticket, 200, registration_rules.get(ctx, sled_id))
            case SetSled():
                ctx.reply(item.ticket, 200, sled_view(ctx, self._set_sled(item)))
            case ListSleds(ticket):
                rows = [sled_view(ctx, row) for row in ctx.records.sleds.values()]
                ctx.reply(ticket, 200, {"items": rows})

    def _set_sled(self, item: SetSled) -> Sled:
        sled = self._ctx.records.sleds.get(item.sled_id)
        if sled is None:
            raise not_found("sled", item.sled_id)
        known: dict[str, tuple[str, ...]] = {
            "policy": ("in_service", "expunged"),
            "state": ("active", "decommissioned"),
            "power": POWERS,
        }
        for name, values in known.items():
            value = getattr(item, name)
            if value is not None and value not in values:
                raise invalid_request(f"{name} must be one of {', '.join(values)}, not {value!r}")
        sled = replace(
            sled, policy=item.policy or sled.policy, state=item.state or sled.state, power=item.power or sled.power
        )
        self._ctx.records.put_sled(sled)
        self._ctx.tell("sled", f"{sled.id}: {sled.policy}, {sled.state}, power {sled.power}")
        return sled

    def _create(self, item: CreateInstance) -> None:
        ctx = self._ctx
        if item.auto_restart_policy not in (None, "never", "best_effort"):
            raise invalid_request("auto_restart_policy must be null, never or best_effort")
        check_name(item.name)
        check_hostname(item.hostname)
        check_sizes(ctx.rules, item.ncpus, item.memory)
        if self.find(item.name) is not None:
            raise already_exists("instance", item.name)
        policy = None if item.auto_restart_policy is None else AutoRestartPolicy(item.auto_restart_policy)
        row = Instance(
            id=ctx.new_id("instance"),
            ordinal=ctx.records.next_number("ordinal"),
            name=item.name,
            description=item.description,
            hostname=item.hostname,
            ncpus=item.ncpus,
            memory=item.memory,
            project_id=ctx.named_id("project", item.project),
            silo_id=ctx.named_id("silo", item.silo),
            time_created=ctx.now_us,
            time_state_updated=ctx.now_us,
            intended_state=IntendedState.RUNNING if item.start else IntendedState.STOPPED,
            auto_restart_policy=policy,
            auto_restart_cooldown_us=item.auto_restart_cooldown_us,
            uses_local_storage=item.uses_local_storage,
            pinned_sled_id=item.sled_id,
            then_sled_ids=item.then_sled_ids,
        )
        ctx.tell("asked", "create and start" if item.start else "create", row.id)
        ctx.records.put_instance(row)
        saga = CreateSaga(id=ctx.new_id("saga"), instance_id=row.id, start=item.start)
        ctx.spawn(saga, TicketWaits(item.ticket, 201))

    def _change_ip(self, item: AttachIp | DetachIp) -> None:
        """Judge the gate at once, so that a refusal changes nothing; the saga judges again when it runs."""
        ctx = self._ctx
        row = ctx.instance(item.instance_id)
        attach = isinstance(item, AttachIp)
        verb = "attach" if attach else "detach"
        ctx.tell("asked", f"{verb} {item.kind.value} {item.address or ''}".strip(), row.id)
        address = networking.address_for(ctx, row, item)
        status = 202 if attach else 204
        if not networking.gate(row, networking.resource(ctx, row, item.kind, address), attach=attach):
            ctx.reply(item.ticket, status, instance_view(ctx, row) if attach else None)
            return
        kind = AttachSaga if attach else DetachSaga
        saga = kind(id=ctx.new_id("saga"), instance_id=row.id, ip_kind=item.kind, address=address)
        ctx.spawn(saga, TicketWaits(item.ticket, status))

    def _console(self, ticket: int, instance_id: UUID) -> None:
        ctx = self._ctx
        row = ctx.instance(instance_id)
        vmm = ctx.records.active_vmm(row)
        state = None if vmm is None else vmm.state
        refused = networking.console_refusal(ctx.rules, row, state, ctx.public(row).value)
        if refused is not None:
            raise refused
        assert vmm is not None
        ctx.reply(ticket, 200, {"propolis_id": vmm.id, "propolis_addr": vmm.address})

    # -- answers of sleds, dying and rising

    def _answered(self, call_id: int, outcome: Outcome) -> None:
        ctx = self._ctx
        owner = ctx.calls.pop(call_id, None)
        match owner:
            case None | NobodysCall():
                return
            case SagaCall(saga_id):
                saga = ctx.sagas.get(saga_id)
                if saga is not None:
                    undo = "undo of " if saga.unwinding else ""
                    name = undo + ctx.programs[saga.kind][saga.node].name
                    ctx.tell("returned", f"{name}: {describe_outcome(outcome)}", saga.instance_id, saga.concerns)
                runner.answered(ctx, saga_id, outcome)
            case RequestCall():
                ctx.tell("returned", describe_outcome(outcome), owner.instance_id, owner.propolis_id)
                try:
                    actions.request_answered(ctx, owner, outcome)
                except Refused as refused:
                    ctx.refuse(owner.ticket, refused.refusal)
                except InvariantBroken as broken:
                    ctx.report_broken(broken, owner.instance_id)
                    ctx.refuse(owner.ticket, internal(str(broken)).refusal)
            case WatchCall():
                try:
                    background.checked(ctx, owner, outcome)
                except InvariantBroken as broken:
                    ctx.report_broken(broken, None)
                    ctx.watch.checking.discard(owner.propolis_id)

    def _crash(self) -> None:
        """Forget everything volatile."""
        ctx = self._ctx
        ctx.effects.extend(Dropped(ticket) for ticket in ctx.tickets)
        ctx.effects.append(Crashed())
        for volatile in (ctx.tickets, ctx.calls, ctx.waiters, ctx.armed, ctx.ready_sagas):
            volatile.clear()
        ctx.watch.waiting.clear()
        ctx.watch.checking.clear()
        self._up = False

    def _boot(self) -> None:
        ctx = self._ctx
        if self._up and self._armed:  # a restart; the very first `Boot` finds nothing to forget
            self._crash()
        self._up = self._armed = True
        ctx.tell("crash", "Nexus starts")
        background.arm(ctx)
        runner.resume_all(ctx)
