"""One Propolis process as a pure machine: VM wrapper and state driver (PR 3).

Theory
------
The *driver* does one thing at a time (`Doing`). What it waits for meanwhile is a `Point`; how long, and whether it
fails, the `Pacer` says once at entry. `handle` takes an input and then lets the driver run until nothing is due:
points of no duration are passed in the same call, so that one call may publish several times.

Idle, the driver picks up guest events first, then state requests, then component requests. Each pick-up goes through
the point `WAKE`. Every completion is told to the queue in the same call that publishes it, so nobody can see the one
without the other (the original has windows of microseconds there, PR 3.8).

The *wrapper* around it owns the level: WaitingForInit until the objects exist, Active, then Rundown from the driver's
exit until the last publication. Levels without a driver (NoVm, Rundown, RundownComplete) answer `NoInstance`.

Held (`Hold`) the driver picks up nothing, passes no point that lasts, and does not move on to Rundown: the "window"
of PR 7, between the end of the driver and the rundown, is a held exit.

Read before: contract.py, migration/script.py, vm_migration.py. Read next: sim_sled/core/vmm.py.
"""

from __future__ import annotations

from typing import Final, assert_never

from propolis_stub import contract, machine
from propolis_stub.contract import Effect, GuestEvent, Input, ReconfigureResult
from propolis_stub.errors import GuestNotRunning, RepairingRejected
from propolis_stub.migration.script import Migration, Role
from propolis_stub.request_queue import Disposition, Queued, QueueState, RequestType
from propolis_stub.table import Birth, Event
from propolis_stub.types import InstanceState, RequestKind
from propolis_stub.vm_migration import MigratingVm
from propolis_stub.vm_wrapper import ENSURABLE, NOW, ON_STEP, Doing, Hazard
from propolis_stub.waiting import Point

__all__ = ["Hazard", "Vm"]

_GUEST_EVENTS_MAX: Final = 1024
"""Guest events that wait. A guest raises one or two before its VM stops or reboots; equal ones are dropped already,
so this bounds only a caller that makes up a new time for each. What comes on top is dropped like a duplicate."""

_REQUESTS: Final = {
    RequestKind.RUN: Queued(RequestType.START),
    RequestKind.STOP: Queued(RequestType.STOP),
    RequestKind.REBOOT: Queued(RequestType.REBOOT),
}
_DISPOSED: Final = {disposition: contract.Disposed(disposition) for disposition in Disposition}
_BEGINS: Final = {
    RequestType.START: InstanceState.STARTING,
    RequestType.STOP: InstanceState.STOPPING,
    RequestType.REBOOT: InstanceState.REBOOTING,
    RequestType.MIGRATE_AS_SOURCE: InstanceState.MIGRATING,
}
_ENDING: Final = frozenset({Doing.HALTING, Doing.EXITED, Doing.RUNDOWN})
_HALTS: Final = frozenset({GuestEvent.HALT, GuestEvent.CHIPSET_HALT})
_CHIPSET: Final = frozenset({GuestEvent.CHIPSET_HALT, GuestEvent.CHIPSET_RESET})


class Vm(MigratingVm):
    """`handle(input, now_us) -> effects` (both in contract.py) and `next_deadline_us()`."""

    __slots__ = ()

    @property
    def objects_locked(self) -> bool:
        """Whether the driver has the VM's objects to itself: it reboots, halts, or has paused the guest to migrate.
        Some calls of the API wait for that to end (PR 3.1).
        """
        if self._doing is Doing.MIGRATING:
            return self._active is not None and self._active.paused
        return self._doing in {Doing.REBOOTING, Doing.HALTING}

    def resting_state(self) -> InstanceState:
        """Where the VM will be once everything accepted is done, if nothing fails that has not failed yet."""
        if self.level in ENSURABLE:
            return self.state if self.state is not None else InstanceState.CREATING
        if self.state is InstanceState.FAILED or self._end is not Event.RUN_DOWN:
            return InstanceState.FAILED
        if self._doing in _ENDING or self._waiting is not None:
            return InstanceState.DESTROYED
        if self._active is not None and self._active.role is Role.SOURCE:
            return InstanceState.DESTROYED
        queue = self.queue
        assert queue is not None
        if queue.awaiting_stop or (self._guest and any(event[0] in _HALTS for event in self._guest)):
            return InstanceState.DESTROYED
        return InstanceState.CREATING if queue.state is QueueState.NOT_STARTED else InstanceState.RUNNING

    def waits_for(self) -> str | None:
        """What has to happen next, in words; None: nothing is under way."""
        if self._held and self._doing is not Doing.NOTHING:
            return f"held while {self._doing.value}"
        if self._doing in {Doing.NOTHING, Doing.IDLE}:
            return None
        if self._point is None:
            return "a message of the migration peer" if self._doing is Doing.MIGRATING else self._doing.value
        doing = f"{self._doing.value} ({self._point.value})"
        if self._due_us == ON_STEP:
            return f"a step: {doing}"
        return f"{doing}, for ever" if self._due_us is None else doing

    def handle(self, item: Input, now_us: int) -> list[Effect]:
        """Takes one input. Raises the refusals named in contract.py; a refused input has changed nothing."""
        out: list[Effect] = []
        match item:
            case contract.Tick():
                pass
            case contract.Request(kind):
                self._request(kind, out)
            case contract.Crash():
                self._crash(out)
            case contract.Step():
                self._step(now_us, out)
            case contract.EnsureSpec():
                self._ensure_spec(item, now_us, out)
            case contract.EnsureTarget():
                self._ensure_target(item, now_us, out)
            case contract.MigrateOut():
                self._migrate_out(item, out)
            case contract.FromPeer(message, migration_id):
                migration = self._migration(migration_id)
                if migration is not None:
                    migration.receive(message)
            case contract.PeerLost(why, migration_id):
                migration = self._migration(migration_id)
                if migration is not None:
                    migration.lose(why)
            case contract.Reconfigure(ticket):
                disposition = self._queue().try_queue(Queued(RequestType.RECONFIGURE_CRUCIBLE, ticket))
                out.append(contract.Disposed(disposition))
            case contract.Guest():
                self._guest_event(item, now_us, out)
            case contract.Settle(fail):
                if self._point is not None:
                    self._fails = fail
                    self._pass(now_us, out)
            case contract.Hold():
                self._held = True
            case contract.Release():
                self._held = False
            case _:
                assert_never(item)
        self._run(now_us, out)
        return out

    def _request(self, kind: RequestKind, out: list[Effect]) -> None:
        request = _REQUESTS.get(kind)
        if request is None:  # a caller without type checks, with a state instead of a request
            raise RepairingRejected("it cannot be asked for")
        out.append(_DISPOSED[self._queue().try_queue(request)])

    def _guest_event(self, item: contract.Guest, now_us: int, out: list[Effect]) -> None:
        running = self.state in {InstanceState.RUNNING, InstanceState.REBOOTING} or (
            self.state is InstanceState.MIGRATING and self._item is not None  # outbound: the target has no item
        )
        if not running:
            starting = self._doing in {Doing.DEVICES, Doing.BACKENDS}
            if starting and Hazard.GUEST_EVENT_IN_START in self.strict:
                self._crash(out)
                return
            raise GuestNotRunning(self.state)
        at_us = 0 if item.event in _CHIPSET else now_us if item.at_us is None else item.at_us
        key = (item.event, at_us, item.vcpu if item.event is GuestEvent.TRIPLE_FAULT else 0)
        if key not in self._guest and len(self._guest) < _GUEST_EVENTS_MAX:
            self._guest += (key,)

    def _ensure_spec(self, item: contract.EnsureSpec, now_us: int, out: list[Effect]) -> None:
        self._ensure(Birth.SPEC, out)
        machine.begin(self, Birth.SPEC)
        self._publish(out)
        self._wait(Point.CREATE, Doing.CREATING, now_us)
        self._fails = self._fails or item.fails

    def _ensure_target(self, item: contract.EnsureTarget, now_us: int, out: list[Effect]) -> None:
        self._ensure(Birth.TARGET, out)
        self._active = Migration.of(item, Role.TARGET)
        self._active.unbuildable = item.fails
        if self.stepped:  # the first publication is a step of its own
            self._wait(Point.WAKE, Doing.ARRIVING, now_us)
        else:
            self._arrived(now_us, out)

    def _created(self, out: list[Effect]) -> None:
        if self._fails:
            self._fire(Event.CREATE_FAILED, out)
            self._init_failed(out)
            return
        self._become_active(out)
        self._doing = Doing.IDLE

    def _run(self, now_us: int, out: list[Effect]) -> None:
        """Lets the driver go on until it waits for time, a step, a peer, work, or a release."""
        while True:
            doing, active = self._doing, self._active
            if active is not None and active.broken and doing is Doing.MIGRATING and not self._held:
                self._migration_failed(active.broken, out)
            elif self._point is not None:
                due_us = self._due_us
                # NOW is negative and due even while held; ON_STEP is negative too and never due by time
                if due_us is not None and (due_us == NOW or (0 <= due_us <= now_us and not self._held)):
                    self._pass(now_us, out)
                elif doing is Doing.BACKENDS and self.queue and not self._held and not self.stepped:
                    self._serve_during_start(out)
                else:
                    return
            elif doing is Doing.IDLE:
                if self._held or not self._has_work():
                    return
                self._wake(now_us)
            elif doing is Doing.EXITED:
                if self._held or self._stuck():
                    return
                self._begin_rundown(now_us, out)
            else:
                if doing is not Doing.MIGRATING or self._held or not (active and active.can_go):
                    return
                self._drive_migration(now_us, out)

    def _has_work(self) -> bool:
        return bool(self._guest or self._deferred or self.queue)

    def _pass(self, now_us: int, out: list[Effect]) -> None:
        self._point = None
        self._due_us = None
        match self._doing:
            case Doing.WAKING:
                self._pick_up(now_us, out)
            case Doing.DEVICES:
                self._devices_started(now_us)
            case Doing.BACKENDS:
                self._backends_started(out)
            case Doing.HALTING:
                self._halted(out)
            case Doing.RUNDOWN:
                self._run_down(out)
            case Doing.CREATING:
                self._created(out)
            case Doing.REBOOTING:
                self._rebooted(out)
            case Doing.RECONFIGURING:
                self._reconfigured(out)
            case Doing.MIGRATING:
                self._migration_point_passed(now_us, out)
            case Doing.ARRIVING:
                self._arrived(now_us, out)
            case doing:
                raise AssertionError(f"nothing is waited for while {doing.value}")

    def _step(self, now_us: int, out: list[Effect]) -> None:
        if self._doing is Doing.IDLE:
            if not self._has_work():
                return
            self._wake(now_us)
            if self._due_us is not None:
                self._pass(now_us, out)
        elif self._doing is Doing.EXITED:
            if not self._stuck():
                self._begin_rundown(now_us, out)
        elif self._point is not None:
            shown = len(out)
            while self._doing is Doing.BACKENDS and self.queue and len(out) == shown:
                self._serve_during_start(out)
            if len(out) == shown and self._point is not None and self._due_us is not None:
                self._pass(now_us, out)
        elif self._doing is Doing.MIGRATING and self._active is not None and self._active.can_go:
            self._drive_migration(now_us, out)

    def _wake(self, now_us: int) -> None:
        # A linked source follows its peer by itself: only the target has steps in a migration.
        linked = self._waiting is not None and not self._waiting.scripted and not self._guest
        only_follows = linked and (self._deferred or self._is_next(RequestType.MIGRATE_AS_SOURCE))
        self._wait(Point.WAKE, Doing.WAKING, now_us, milestone=not only_follows, leads_to=self._next_state())

    def _next_state(self) -> InstanceState | None:
        """The state in which the next thing to be picked up begins; None: it changes none."""
        if self._guest:
            return InstanceState.STOPPING if self._guest[0][0] in _HALTS else InstanceState.REBOOTING
        if self._deferred:
            return InstanceState.MIGRATING
        first = self.queue.peek() if self.queue is not None else None
        return None if first is None else _BEGINS.get(first.type)

    def _is_next(self, kind: RequestType) -> bool:
        first = self.queue.peek() if self.queue is not None else None
        return first is not None and first.type is kind

    def _pick_up(self, now_us: int, out: list[Effect]) -> None:
        """Guest events come before state requests, those before component requests."""
        if self._guest:
            event, *rest = self._guest
            self._guest = tuple(rest)
            self._item = None
            if event[0] in _HALTS:
                self._begin_halt(now_us, out)
            else:
                self._begin_reboot(now_us, out)
            return
        if self._deferred:
            assert self._waiting is not None
            self._deferred = False
            self._item = Queued(RequestType.MIGRATE_AS_SOURCE, self._waiting.id)
        else:
            self._item = self.queue.pop() if self.queue is not None else None
        assert self._item is not None, "woken without work"
        match self._item.type:
            case RequestType.START:
                self._fire(Event.START_BEGUN, out)
                self._wait(Point.DEVICES, Doing.DEVICES, now_us)
            case RequestType.STOP:
                self._begin_halt(now_us, out)
            case RequestType.REBOOT:
                self._begin_reboot(now_us, out)
            case RequestType.MIGRATE_AS_SOURCE:
                self._active, self._waiting = self._waiting, None
                self._drive_migration(now_us, out)
            case RequestType.RECONFIGURE_CRUCIBLE:
                self._wait(Point.RECONFIGURE, Doing.RECONFIGURING, now_us)

    def _begin_reboot(self, now_us: int, out: list[Effect]) -> None:
        self._fire(Event.REBOOT_BEGUN, out)
        self._wait(Point.REBOOT, Doing.REBOOTING, now_us)

    def _rebooted(self, out: list[Effect]) -> None:
        self._fire(Event.REBOOTED, out)
        if self._item is not None:  # a guest's reboot neither sets nor clears the flag
            self._live_queue().complete(RequestType.REBOOT)
        self._doing = Doing.IDLE

    def _begin_halt(self, now_us: int, out: list[Effect]) -> None:
        self._fire(Event.HALT_BEGUN, out)
        self._wait(Point.HALT, Doing.HALTING, now_us)

    def _halted(self, out: list[Effect]) -> None:
        migrated = self._item is not None and self._item.type is RequestType.MIGRATE_AS_SOURCE
        if not migrated:
            self._fire(Event.HALTED, out)
            if self._item is not None:
                self._live_queue().complete(RequestType.STOP)
            else:
                self._live_queue().notify_stopped()
        self._exit()

    def _devices_started(self, now_us: int) -> None:
        if self._fails:  # the queue is not told: it stays StartPending until the rundown (PR 2.4)
            self._exit(self._start_failed_event())
            return
        self._wait(Point.BACKENDS, Doing.BACKENDS, now_us)

    def _backends_started(self, out: list[Effect]) -> None:
        self._live_queue().complete(RequestType.START, succeeded=not self._fails)
        if self._fails:
            self._exit(self._start_failed_event())
            return
        self._fire(Event.AUTO_STARTED if self.state is InstanceState.MIGRATING else Event.STARTED, out)
        self._doing = Doing.IDLE

    def _start_failed_event(self) -> Event:
        return Event.AUTO_START_FAILED if self.state is InstanceState.MIGRATING else Event.START_FAILED

    def _serve_during_start(self, out: list[Effect]) -> None:
        """One request while backends are pending: a stop aborts the start, a reconfigure is executed immediately."""
        queue = self._live_queue()
        request = queue.pop()
        assert request is not None
        match request.type:
            case RequestType.STOP:
                self._point = self._due_us = None
                inbound = self.state is InstanceState.MIGRATING
                self._fire(Event.AUTO_START_ABORTED if inbound else Event.START_ABORTED, out)
                queue.notify_stopped()
                self._exit()
            case RequestType.RECONFIGURE_CRUCIBLE:
                self._reconfigured_during_start(request, out)
            case RequestType.MIGRATE_AS_SOURCE:
                if Hazard.MIGRATE_IN_START in self.strict:
                    self._crash(out)
                else:
                    self._deferred = True
            case _:
                raise AssertionError(f"the queue lets no {request.type.value} through during a start")

    def _reconfigured_during_start(self, request: Queued, out: list[Effect]) -> None:
        fails = self.pacer.pace(self.vm_id, Point.RECONFIGURE, self._count(Point.RECONFIGURE)).fail
        self._tell_reconfigured(request, fails=fails, out=out)

    def _reconfigured(self, out: list[Effect]) -> None:
        assert self._item is not None
        self._doing = Doing.IDLE
        self._tell_reconfigured(self._item, fails=self._fails, out=out)

    def _tell_reconfigured(self, request: Queued, *, fails: bool, out: list[Effect]) -> None:
        assert isinstance(request.key, int)
        result = ReconfigureResult.FAILED if fails else ReconfigureResult.EXECUTED
        out.append(contract.ReconfigureDone(request.key, result))
