"""The driver of one VM: it executes requests and guest events, one at a time (PR 3.2 to 3.6).

Theory
------
The driver does one thing at a time (`Doing`). From each it may go to few others: `WAYS` is that table, `Driver._go`
takes no way that is not in it, and `propolis-stub diagram` draws it. What a point of each doing leads to when it is
passed stands in `_PASSED`, one function each.

Rule 1: idle, it picks up guest events first, then state requests, then component requests (PR 2.1, 3.4). Each pick-up
        goes through the point `WAKE`.
Rule 2: what it waits for meanwhile is a `Point`; how long, and whether it fails, the `Pacer` says once at entry.
        `run` goes on until it waits for time, a step, a peer, work or a release: points of no duration are passed in
        the same call, so that one call may publish several times.
Rule 3: every completion is told to the queue in the same call that publishes it, so nobody can see the one without
        the other (the original has windows of microseconds there, PR 3.8).
Rule 4: held, it picks up nothing, passes no point that lasts, and does not move on to the rundown: the "window" of
        PR 7, between the end of the driver and the rundown, is a held exit.
Rule 5: a migration is a script (migration/script.py); here its actions become publications, waits and completions.

When a way changes, check again: the diagram in docs/propolis.md (`propolis-stub diagram --write docs/propolis.md`),
the cases of PR 7, and `resting_state`. Over 500 lines: all that one driver does, in the order of PR 3.

Read before: guest_events.py, migration/script.py, publisher.py, waiting.py, wrapper.py. Read next: vm.py.
"""

# ruff: noqa: SLF001 -- the table of what is passed stands below the class and names its methods

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Flag, auto
from types import MappingProxyType
from typing import Final, assert_never
from uuid import UUID

from nexus_client.dropshot.identity import IdentityEnum
from propolis_stub import contract
from propolis_stub.contract import Effect, ReconfigureResult
from propolis_stub.errors import GuestNotRunning
from propolis_stub.guest_events import GuestEvent, GuestEvents
from propolis_stub.migration.messages import Error
from propolis_stub.migration.script import (
    Await,
    ErrorKind,
    Failure,
    Mark,
    Migration,
    Pause,
    Publish,
    Redirect,
    Send,
)
from propolis_stub.publisher import Publisher
from propolis_stub.request_queue import Queued, QueueState, RequestType
from propolis_stub.table import TERMINAL, TRANSITIONS, Birth, Event
from propolis_stub.types import InstanceState, Level, MigrationPhase, MigrationStatus, Role
from propolis_stub.waiting import ON_STEP, Edge, Point, Waiting
from propolis_stub.wrapper import ENSURABLE, Wrapper


class Hazard(Flag):
    """Where the original hangs or aborts and we do what was intended, unless the hazard is switched on (PR 8)."""

    NONE = 0
    MIGRATE_IN_START = auto()
    """A migration popped while backends start aborts the process; else it waits for Running."""
    RECONFIGURE_AT_HALT = auto()
    """A reconfigure left at the halt blocks the rundown for ever; else it is answered 410."""
    GUEST_EVENT_IN_START = auto()
    """A guest event before the vCPUs run aborts the process; else it is refused."""


class Doing(IdentityEnum):
    """What the driver (or, at the ends of a life, the wrapper) is at."""

    NOTHING = "nothing"
    ARRIVING = "arriving"  # a stepped target before its first publication
    CREATING = "creating the VM's objects"
    IDLE = "idle"
    WAKING = "picking up work"
    DEVICES = "starting devices"
    BACKENDS = "starting block backends"
    REBOOTING = "rebooting"
    HALTING = "halting"
    RECONFIGURING = "reconfiguring a volume"
    MIGRATING = "migrating"
    EXITED = "driver exited"
    RUNDOWN = "running down"


# A member of an enum, taken from its class, costs 0.1 us (CPython 3.11): these are asked for all the time.
_IDLE: Final = Doing.IDLE
_BACKENDS: Final = Doing.BACKENDS
_MIGRATING: Final = Doing.MIGRATING
_EXITED: Final = Doing.EXITED
_RUNNING: Final = InstanceState.RUNNING
_FAILED: Final = InstanceState.FAILED
_NOT_STARTED: Final = QueueState.NOT_STARTED
_RUN_DOWN: Final = Event.RUN_DOWN

_D = Doing
WAYS: Final[Mapping[tuple[Doing, Doing], str]] = MappingProxyType(
    {
        (_D.NOTHING, _D.CREATING): "ensure with a spec",
        (_D.NOTHING, _D.ARRIVING): "ensure with a target, stepped",
        (_D.NOTHING, _D.MIGRATING): "ensure with a target",
        (_D.ARRIVING, _D.MIGRATING): "the first step",
        (_D.CREATING, _D.IDLE): "created",
        (_D.CREATING, _D.NOTHING): "not created: no driver, no rundown",
        (_D.IDLE, _D.WAKING): "work waits",
        (_D.WAKING, _D.DEVICES): "Run",
        (_D.WAKING, _D.REBOOTING): "Reboot, or the guest resets",
        (_D.WAKING, _D.HALTING): "Stop, or the guest halts",
        (_D.WAKING, _D.MIGRATING): "a target asks for the VM",
        (_D.WAKING, _D.RECONFIGURING): "a volume is to be replaced",
        (_D.DEVICES, _D.BACKENDS): "devices started",
        (_D.DEVICES, _D.EXITED): "a device failed",
        (_D.BACKENDS, _D.IDLE): "running",
        (_D.BACKENDS, _D.EXITED): "a backend failed, or a stop came first",
        (_D.REBOOTING, _D.IDLE): "running again",
        (_D.HALTING, _D.EXITED): "halted",
        (_D.RECONFIGURING, _D.IDLE): "replaced or refused",
        (_D.MIGRATING, _D.DEVICES): "arrived: auto-start",
        (_D.MIGRATING, _D.HALTING): "migrated out",
        (_D.MIGRATING, _D.IDLE): "out failed: runs on",
        (_D.MIGRATING, _D.EXITED): "in failed, its objects were there",
        (_D.MIGRATING, _D.NOTHING): "in failed before that",
        (_D.EXITED, _D.RUNDOWN): "released",
        (_D.RUNDOWN, _D.NOTHING): "the end is told",
    }
)
"""Where the driver may go from where, and why. A crash leads from everywhere to nothing."""

_ENDING: Final = frozenset({Doing.HALTING, Doing.EXITED, Doing.RUNDOWN})
_STARTING: Final = frozenset({Doing.DEVICES, Doing.BACKENDS})
_BEGINS: Final = {
    RequestType.START: InstanceState.STARTING,
    RequestType.STOP: InstanceState.STOPPING,
    RequestType.REBOOT: InstanceState.REBOOTING,
    RequestType.MIGRATE_AS_SOURCE: InstanceState.MIGRATING,
}


class Driver:
    """See the module. Written by hand instead of attrs: 200,000 of these live in one process."""

    __slots__ = (
        "_active",
        "_asked",
        "_console_ended",
        "_deferred",
        "_end",
        "_item",
        "_work",
        "doing",
        "guest",
        "held",
        "publisher",
        "strict",
        "waiting",
        "wrapper",
    )

    def __init__(self, waiting: Waiting, strict: Hazard) -> None:
        self.waiting = waiting
        self.strict = strict
        self.wrapper = Wrapper()
        self.publisher = Publisher()
        self.guest = GuestEvents()
        self.held = False
        self._reset()

    def _reset(self) -> None:
        self.publisher.forget()
        self.guest.clear()
        self.waiting.leave()
        self.waiting.fails = False
        self.wrapper.queue = None
        self.doing = Doing.NOTHING
        self._item: Queued | None = None  # what is executed; None: a guest event
        self._end = Event.RUN_DOWN  # what ends the rundown
        self._active: Migration | None = None
        self._asked: Migration | None = None  # asked for, not yet begun
        self._deferred = False  # the one asked for was popped during a start
        self._console_ended = False

    def _go(self, doing: Doing) -> None:
        assert (self.doing, doing) in WAYS, f"no way leads from {self.doing.value} to {doing.value}"
        self.doing = doing

    def _wait(
        self,
        point: Point,
        doing: Doing,
        now_us: int,
        leads_to: InstanceState | None = None,
        why: RequestType | GuestEvent | None = None,
        *,
        milestone: bool = True,
    ) -> None:
        if doing is not self.doing:
            self._go(doing)
        if why is None and self._item is not None:
            why = self._item.type
        role = None if self._active is None else self._active.role
        self.waiting.enter(point, now_us, Edge(self.publisher.state, leads_to, role, why), milestone=milestone)

    def _fire(
        self,
        event: Event,
        out: list[Effect],
        *,
        came: MigrationStatus | None = None,
        goes: MigrationStatus | None = None,
    ) -> None:
        out.append(contract.Published(self.publisher.fire(event, into=came, out=goes)))

    # --- what is seen of it ----------------------------------------------------------------------------------------

    @property
    def locks_objects(self) -> bool:
        """Whether the driver has the VM's objects to itself: it reboots, halts, or paused the guest to migrate."""
        if self.doing is Doing.MIGRATING:
            return self._active is not None and self._active.paused
        return self.doing in {Doing.REBOOTING, Doing.HALTING}

    def resting_state(self) -> InstanceState:
        """Where the VM will be once everything accepted is done, if nothing fails that has not failed yet."""
        state = self.publisher.state
        if self.wrapper.level in ENSURABLE:
            return state if state is not None else InstanceState.CREATING
        if state is _FAILED or self._end is not _RUN_DOWN:
            return _FAILED
        if self.doing in _ENDING or self._asked is not None:
            return InstanceState.DESTROYED
        if self._active is not None and self._active.role is Role.SOURCE:
            return InstanceState.DESTROYED
        queue = self.wrapper.live_queue()
        if queue.awaiting_stop or (self.guest.waiting and self.guest.will_halt):
            return InstanceState.DESTROYED
        return InstanceState.CREATING if queue.state is _NOT_STARTED else _RUNNING

    def waits_for(self) -> str | None:
        """What has to happen next, in words; None: nothing is under way."""
        doing, waiting = self.doing, self.waiting
        if self.held and doing is not Doing.NOTHING:
            return f"held while {doing.value}"
        if doing in {Doing.NOTHING, Doing.IDLE}:
            return None
        if waiting.point is None:
            return "a message of the migration peer" if doing is Doing.MIGRATING else doing.value
        words = f"{doing.value} ({waiting.point.value})"
        if waiting.due_us == ON_STEP:
            return f"a step: {words}"
        return f"{words}, for ever" if waiting.due_us is None else words

    # --- what it is told -------------------------------------------------------------------------------------------

    def ensure_spec(self, item: contract.EnsureSpec, now_us: int, out: list[Effect]) -> None:
        self._ensure(Birth.SPEC, out)
        out.append(contract.Published(self.publisher.begin(Birth.SPEC)))
        self._wait(Point.CREATE, Doing.CREATING, now_us, InstanceState.STARTING)
        self.waiting.fails = self.waiting.fails or item.fails

    def ensure_target(self, item: contract.EnsureTarget, now_us: int, out: list[Effect]) -> None:
        self._ensure(Birth.TARGET, out)
        self._active = Migration.of(item, Role.TARGET)
        self._active.unbuildable = item.fails
        if self.waiting.stepped:  # the first publication is a step of its own
            self._wait(Point.WAKE, Doing.ARRIVING, now_us)
        else:
            self._arrived(now_us, out)

    def _ensure(self, birth: Birth, out: list[Effect]) -> None:
        self.wrapper.require_ensurable()
        if self.wrapper.level is not Level.NO_VM:  # else it is as it was made, or as a crash left it
            self._reset()
        self.wrapper.ensure(birth, out)

    def ask_migration(self, item: contract.MigrateOut, out: list[Effect]) -> None:
        """A peer wants this VM. Raises what the queue raises."""
        queue = self.wrapper.require_queue()
        out.append(contract.Disposed(queue.try_queue(Queued(RequestType.MIGRATE_AS_SOURCE, item.migration_id))))
        self._asked = Migration.of(item, Role.SOURCE)

    def migration(self, migration_id: UUID | None) -> Migration | None:
        """The one with this id; without one, the one that runs, or else the one asked for."""
        if migration_id is None:
            return self._active or self._asked
        for migration in (self._active, self._asked):
            if migration is not None and migration.id == migration_id:
                return migration
        return None  # an old connection's last words

    def guest_event(self, item: contract.Guest, now_us: int, out: list[Effect]) -> None:
        """Lets it wait. Raises `GuestNotRunning`."""
        state = self.publisher.state
        running = state in {InstanceState.RUNNING, InstanceState.REBOOTING} or (
            state is InstanceState.MIGRATING and self._item is not None  # outbound: the target has no item
        )
        if not running:
            if self.doing in _STARTING and Hazard.GUEST_EVENT_IN_START in self.strict:
                self.crash(out)
                return
            raise GuestNotRunning(state)
        self.guest.add(item.event, now_us if item.at_us is None else item.at_us, item.vcpu)

    def settle(self, fail: bool, now_us: int, out: list[Effect]) -> None:
        if self.waiting.point is not None:
            self.waiting.fails = fail
            self._pass(now_us, out)

    def crash(self, out: list[Effect]) -> None:
        out.append(contract.Crashed())
        self._reset()
        self.wrapper.set_level(Level.NO_VM, out)

    # --- how it goes on --------------------------------------------------------------------------------------------

    def run(self, now_us: int, out: list[Effect]) -> None:
        """Goes on until it waits for time, a step, a peer, work, or a release."""
        waiting = self.waiting
        while True:
            doing, active = self.doing, self._active
            if active is not None and active.broken and doing is _MIGRATING and not self.held:
                self._migration_failed(active.broken, out)
            elif waiting.point is not None:
                if waiting.is_over(now_us, held=self.held):
                    self._pass(now_us, out)
                elif doing is _BACKENDS and self.wrapper.queue and not self.held and not waiting.stepped:
                    self._serve_during_start(out)
                else:
                    return
            elif doing is _IDLE:
                if self.held or not self._has_work():
                    return
                self._wake(now_us)
            elif doing is _EXITED:
                if self.held or self._stuck():
                    return
                self._begin_rundown(now_us, out)
            else:
                if doing is not _MIGRATING or self.held or not (active and active.can_go):
                    return
                self._drive_migration(now_us, out)

    def step(self, now_us: int, out: list[Effect]) -> None:
        """Passes the point where it stands, or does what waits to be done; nothing else."""
        waiting = self.waiting
        if self.doing is Doing.IDLE:
            if not self._has_work():
                return
            self._wake(now_us)
            if waiting.due_us is not None:
                self._pass(now_us, out)
        elif self.doing is Doing.EXITED:
            if not self._stuck():
                self._begin_rundown(now_us, out)
        elif waiting.point is not None:
            shown = len(out)
            while self.doing is Doing.BACKENDS and self.wrapper.queue and len(out) == shown:
                self._serve_during_start(out)
            if len(out) == shown and waiting.can_step:
                self._pass(now_us, out)
        elif self.doing is Doing.MIGRATING and self._active is not None and self._active.can_go:
            self._drive_migration(now_us, out)

    def _pass(self, now_us: int, out: list[Effect]) -> None:
        self.waiting.leave()
        _PASSED[self.doing](self, now_us, out)

    def _has_work(self) -> bool:
        return bool(self.guest.waiting or self._deferred or self.wrapper.queue)

    def _wake(self, now_us: int) -> None:
        # A linked source follows its peer by itself: only the target has steps in a migration.
        linked = self._asked is not None and not self._asked.scripted and not self.guest.waiting
        only_follows = linked and (self._deferred or self._is_next(RequestType.MIGRATE_AS_SOURCE))
        leads_to, why = self._next()
        self._wait(Point.WAKE, Doing.WAKING, now_us, leads_to, why, milestone=not only_follows)

    def _next(self) -> tuple[InstanceState | None, RequestType | GuestEvent | None]:
        """The state in which the next thing to be picked up begins (None: it changes none), and what that is."""
        if self.guest.waiting:
            first = self.guest.first
            return InstanceState.STOPPING if first.halts else InstanceState.REBOOTING, first
        if self._deferred:
            return InstanceState.MIGRATING, RequestType.MIGRATE_AS_SOURCE
        queued = self.wrapper.live_queue().peek()
        return (None, None) if queued is None else (_BEGINS.get(queued.type), queued.type)

    def _is_next(self, kind: RequestType) -> bool:
        first = self.wrapper.live_queue().peek()
        return first is not None and first.type is kind

    def _pick_up(self, now_us: int, out: list[Effect]) -> None:
        """Guest events come before state requests, those before component requests."""
        if self.guest.waiting:
            self._item = None
            event = self.guest.pop()
            if event.halts:
                self._begin_halt(now_us, out, event)
            else:
                self._begin_reboot(now_us, out, event)
            return
        if self._deferred:
            assert self._asked is not None
            self._deferred = False
            self._item = Queued(RequestType.MIGRATE_AS_SOURCE, self._asked.id)
        else:
            self._item = self.wrapper.live_queue().pop()
        assert self._item is not None, "woken without work"
        match self._item.type:
            case RequestType.START:
                self._fire(Event.START_BEGUN, out)
                self._wait(Point.DEVICES, Doing.DEVICES, now_us, InstanceState.RUNNING)
            case RequestType.STOP:
                self._begin_halt(now_us, out)
            case RequestType.REBOOT:
                self._begin_reboot(now_us, out)
            case RequestType.MIGRATE_AS_SOURCE:
                self._active, self._asked = self._asked, None
                self._go(Doing.MIGRATING)
                self._drive_migration(now_us, out)
            case RequestType.RECONFIGURE_CRUCIBLE:
                self._wait(Point.RECONFIGURE, Doing.RECONFIGURING, now_us)

    # --- birth, start, reboot, halt (PR 3.1 to 3.3) ----------------------------------------------------------------

    def _created(self, _now_us: int, out: list[Effect]) -> None:
        if self.waiting.fails:
            self._fire(Event.CREATE_FAILED, out)
            self._init_failed(out)
            return
        self.wrapper.become_active(out)
        self._go(Doing.IDLE)

    def _init_failed(self, out: list[Effect]) -> None:
        """The ensure that still waits gets its 500; there never was a driver, so no rundown either."""
        self._release(out)
        self._go(Doing.NOTHING)
        self.wrapper.set_level(Level.RUNDOWN_COMPLETE, out)
        out.append(contract.EnsureFinished(ok=False))

    def _devices_started(self, now_us: int, _out: list[Effect]) -> None:
        if self.waiting.fails:  # the queue is not told: it stays StartPending until the rundown (PR 2.4)
            self._exit(self._start_failed_event())
            return
        self._wait(Point.BACKENDS, Doing.BACKENDS, now_us, InstanceState.RUNNING)

    def _backends_started(self, _now_us: int, out: list[Effect]) -> None:
        self.wrapper.live_queue().complete(RequestType.START, succeeded=not self.waiting.fails)
        if self.waiting.fails:
            self._exit(self._start_failed_event())
            return
        self._fire(Event.AUTO_STARTED if self._inbound else Event.STARTED, out)
        self._go(Doing.IDLE)

    def _start_failed_event(self) -> Event:
        return Event.AUTO_START_FAILED if self._inbound else Event.START_FAILED

    @property
    def _inbound(self) -> bool:
        """Asked during a start: whether it is the auto-start of a target, which never says Starting."""
        return self.publisher.state is InstanceState.MIGRATING

    def _serve_during_start(self, out: list[Effect]) -> None:
        """One request while backends are pending: a stop aborts the start, a reconfigure is executed immediately."""
        queue = self.wrapper.live_queue()
        request = queue.pop()
        assert request is not None
        match request.type:
            case RequestType.STOP:
                self.waiting.leave()
                self._fire(Event.AUTO_START_ABORTED if self._inbound else Event.START_ABORTED, out)
                queue.notify_stopped()
                self._exit()
            case RequestType.RECONFIGURE_CRUCIBLE:
                pace = self.waiting.ask(Point.RECONFIGURE, Edge(self.publisher.state, why=request.type))
                self._tell_reconfigured(request, fails=pace.fail, out=out)
            case RequestType.MIGRATE_AS_SOURCE:
                if Hazard.MIGRATE_IN_START in self.strict:
                    self.crash(out)
                else:
                    self._deferred = True
            case _:
                raise AssertionError(f"the queue lets no {request.type.value} through during a start")

    def _begin_reboot(self, now_us: int, out: list[Effect], why: GuestEvent | None = None) -> None:
        self._fire(Event.REBOOT_BEGUN, out)
        self._wait(Point.REBOOT, Doing.REBOOTING, now_us, InstanceState.RUNNING, why)

    def _rebooted(self, _now_us: int, out: list[Effect]) -> None:
        self._fire(Event.REBOOTED, out)
        if self._item is not None:  # a guest's reboot neither sets nor clears the flag
            self.wrapper.live_queue().complete(RequestType.REBOOT)
        self._go(Doing.IDLE)

    def _begin_halt(self, now_us: int, out: list[Effect], why: GuestEvent | None = None) -> None:
        self._fire(Event.HALT_BEGUN, out)
        self._wait(Point.HALT, Doing.HALTING, now_us, InstanceState.STOPPED, why)

    def _halted(self, _now_us: int, out: list[Effect]) -> None:
        migrated = self._item is not None and self._item.type is RequestType.MIGRATE_AS_SOURCE
        if not migrated:
            self._fire(Event.HALTED, out)
            if self._item is not None:
                self.wrapper.live_queue().complete(RequestType.STOP)
            else:
                self.wrapper.live_queue().notify_stopped()
        self._exit()

    def _reconfigured(self, _now_us: int, out: list[Effect]) -> None:
        assert self._item is not None
        self._go(Doing.IDLE)
        self._tell_reconfigured(self._item, fails=self.waiting.fails, out=out)

    def _tell_reconfigured(self, request: Queued, *, fails: bool, out: list[Effect]) -> None:
        assert isinstance(request.key, int)
        result = ReconfigureResult.FAILED if fails else ReconfigureResult.EXECUTED
        out.append(contract.ReconfigureDone(request.key, result))

    # --- the end (PR 3.1) ------------------------------------------------------------------------------------------

    def _exit(self, end: Event = Event.RUN_DOWN) -> None:
        """The driver is done; `end` is what the wrapper will tell when the objects are gone."""
        self._end = end
        self._go(Doing.EXITED)
        self.guest.clear()

    def _stuck(self) -> bool:
        queue = self.wrapper.queue
        return bool(queue and queue.component_queue and Hazard.RECONFIGURE_AT_HALT in self.strict)

    def _begin_rundown(self, now_us: int, out: list[Effect]) -> None:
        self.wrapper.set_level(Level.RUNDOWN, out)
        self._release(out)
        state = self.publisher.state
        leads_to = None if state is None else TRANSITIONS.get((state, self._end))
        self._wait(Point.RUNDOWN, Doing.RUNDOWN, now_us, leads_to)

    def _release(self, out: list[Effect]) -> None:
        self.wrapper.release_queue(out)
        if self._asked is not None and not self._asked.scripted:
            out.append(contract.PeerClosed(self._asked.id))
        self._asked = self._active = self._item = None
        self._deferred = False
        self.guest.clear()

    def _run_down(self, _now_us: int, out: list[Effect]) -> None:
        self._fire(self._end, out)
        assert self.publisher.state in TERMINAL
        self._go(Doing.NOTHING)
        self._end = Event.RUN_DOWN
        self.wrapper.set_level(Level.RUNDOWN_COMPLETE, out)

    # --- migration, in and out (PR 3.5, 3.6) -----------------------------------------------------------------------

    def _arrived(self, now_us: int, out: list[Effect]) -> None:
        assert self._active is not None
        status = MigrationStatus(self._active.id, MigrationPhase.SYNC)
        out.append(contract.Published(self.publisher.begin(Birth.TARGET, status)))
        self._go(Doing.MIGRATING)
        self._drive_migration(now_us, out)

    def _drive_migration(self, now_us: int, out: list[Effect]) -> None:
        """Goes through the script of the active migration until it waits for time or for the peer."""
        migration = self._active
        assert migration is not None
        while True:
            action = migration.step()
            match action:
                case Publish(phase):
                    self._publish_phase(phase, out)
                case Send(message):
                    out.append(contract.ToPeer(message, migration.id))
                case Await(point):
                    shows = migration.scripted or migration.role is Role.TARGET
                    self._wait(point, Doing.MIGRATING, now_us, milestone=shows)
                    return
                case Mark.CREATE:
                    self._wait(Point.CREATE, Doing.MIGRATING, now_us)
                    if migration.unbuildable or migration.baggage.unbuildable():
                        self.waiting.fails = True
                    return
                case Failure():
                    self._migration_failed(action, out)
                    return
                case Mark.HANDED_OVER:
                    self._migrated_out(migration, now_us, out)
                    return
                case Pause.FINISHED:
                    self._imported(migration, now_us, out)
                    return
                case Pause.BLOCKED:
                    return
                case Redirect(destination):
                    if self._console_ended:  # it ended in an earlier attempt, for good (PR 3.5)
                        self._migration_failed(Failure(ErrorKind.PHASE, "the console has moved away"), out)
                        return
                    self._console_ended = True
                    out.append(contract.ConsoleMoved(destination))
                case Mark.DIAL:
                    out.append(contract.Dial(migration.id))
                case Mark.NEGOTIATED:
                    status = MigrationStatus(migration.id, MigrationPhase.SYNC)
                    self._fire(Event.MIGRATION_OUT_BEGUN, out, goes=status)
                case Mark.CREATED:
                    self.wrapper.become_active(out)
                case Mark.PAUSED:
                    pass  # `migration.paused` says it: the guest stands still
                case _:
                    assert_never(action)

    def _migration_point_passed(self, now_us: int, out: list[Effect]) -> None:
        migration = self._active
        assert migration is not None
        failure = None
        if not migration.at_wait:  # the target's objects
            if self.waiting.fails:
                failure = Failure(ErrorKind.TARGET_INIT, "the target's objects could not be created")
        elif self.waiting.fails:
            failure = Failure(ErrorKind.PHASE, "failed on request of the pacer")
        else:
            failure = migration.passed()
        if failure is not None:
            self._migration_failed(failure, out)
        else:
            self._drive_migration(now_us, out)

    def _publish_phase(self, phase: MigrationPhase, out: list[Effect]) -> None:
        migration = self._active
        assert migration is not None
        status = MigrationStatus(migration.id, phase)
        if migration.role is Role.TARGET:
            self._fire(Event.IN_PHASE, out, came=status)
        else:
            self._fire(Event.OUT_PHASE, out, goes=status)

    def _migrated_out(self, migration: Migration, now_us: int, out: list[Effect]) -> None:
        self.wrapper.live_queue().complete(RequestType.MIGRATE_AS_SOURCE, succeeded=True)
        self._fire(Event.MIGRATED_OUT, out)
        self._hang_up(migration, None, out)
        self._active = None
        self.guest.clear()  # they were the guest's, and the guest has left
        self._wait(Point.HALT, Doing.HALTING, now_us, milestone=False)

    def _imported(self, migration: Migration, now_us: int, out: list[Effect]) -> None:
        self._hang_up(migration, None, out)
        self._active = None
        self._wait(Point.DEVICES, Doing.DEVICES, now_us, InstanceState.RUNNING)

    def _hang_up(self, migration: Migration, code: int | None, out: list[Effect]) -> None:
        if not migration.scripted:
            out.append(contract.PeerClosed(migration.id, code))

    def _migration_failed(self, failure: Failure, out: list[Effect]) -> None:
        migration = self._active
        assert migration is not None
        migration.over = True
        self.waiting.leave()
        if failure.tell and not migration.scripted:
            out.append(contract.ToPeer(Error(str(failure)), migration.id))
        self._hang_up(migration, failure.close_code, out)
        if migration.role is Role.SOURCE:
            self._source_failed(migration, out)
        else:
            self._target_failed(migration, failure, out)
        self._active = None

    def _source_failed(self, migration: Migration, out: list[Effect]) -> None:
        if self.publisher.state is InstanceState.RUNNING:  # while negotiating: nobody tells the queue, its flag stays
            status = MigrationStatus(migration.id, MigrationPhase.ERROR)
            self._fire(Event.NEGOTIATION_FAILED, out, goes=status)
        else:
            self._publish_phase(MigrationPhase.ERROR, out)
            self.wrapper.live_queue().complete(RequestType.MIGRATE_AS_SOURCE, succeeded=False)
            self._fire(Event.MIGRATION_OUT_FAILED, out)
        self._go(Doing.IDLE)

    def _target_failed(self, migration: Migration, failure: Failure, out: list[Effect]) -> None:
        if migration.negotiated and failure.kind is not ErrorKind.TARGET_INIT:
            self._publish_phase(MigrationPhase.ERROR, out)
        self._fire(Event.MIGRATION_IN_FAILED, out)
        if self.wrapper.level is Level.ACTIVE:
            self._exit()
        else:
            self._init_failed(out)


_PASSED: Final[Mapping[Doing, Callable[[Driver, int, list[Effect]], None]]] = {
    Doing.ARRIVING: Driver._arrived,
    Doing.CREATING: Driver._created,
    Doing.WAKING: Driver._pick_up,
    Doing.DEVICES: Driver._devices_started,
    Doing.BACKENDS: Driver._backends_started,
    Doing.REBOOTING: Driver._rebooted,
    Doing.HALTING: Driver._halted,
    Doing.RECONFIGURING: Driver._reconfigured,
    Doing.MIGRATING: Driver._migration_point_passed,
    Doing.RUNDOWN: Driver._run_down,
}
"""What a point of each doing leads to. Nothing is waited for while there is nothing to do, idle, or exited."""
