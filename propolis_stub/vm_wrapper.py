"""The wrapper of one Propolis process: its level, its publications, and how it waits (PR 3.1, 3.7).

`Vm` is made of three layers, one file each: this wrapper, `vm_migration.py` (what the driver does while a VM moves),
and `vm.py` (the door, the requests and the rest of the driver; its docstring has the theory of the whole).

Read before: contract.py. Read next: vm_migration.py.
"""

from __future__ import annotations

from enum import Flag, auto
from typing import Final
from uuid import UUID

from propolis_stub import contract, machine
from propolis_stub.contract import Effect, GuestEvent, ReconfigureResult
from propolis_stub.errors import AlreadyInitialized, NoInstance
from propolis_stub.migration.script import Migration
from propolis_stub.request_queue import Queued, RequestQueue
from propolis_stub.table import TERMINAL, Birth, Event
from propolis_stub.types import IdentityEnum, InstanceState, Level, MigrationStatus, Publication
from propolis_stub.waiting import MILESTONES, Pacer, Point


class Hazard(Flag):
    """Where the original hangs or aborts and we do what was intended, unless the hazard is switched on (PR 8)."""

    NONE = 0
    MIGRATE_IN_START = auto()  # a migration popped while backends start aborts the process; else it waits for Running
    RECONFIGURE_AT_HALT = (
        auto()
    )  # a reconfigure left at the halt blocks the rundown for ever; else it is answered 410
    GUEST_EVENT_IN_START = auto()  # a guest event before the vCPUs run aborts the process; else it is refused


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


NOW: Final = -1  # due at once, even while held: a point without duration is no waiting point
ON_STEP: Final = -2

_COUNT_BITS: Final = 32
_SHIFT: Final = {point: _COUNT_BITS * index for index, point in enumerate(Point)}
_ONE: Final = {point: 1 << shift for point, shift in _SHIFT.items()}
_COUNT_MASK: Final = (1 << _COUNT_BITS) - 1

_NO_DRIVER: Final = frozenset({Level.NO_VM, Level.RUNDOWN, Level.RUNDOWN_COMPLETE})
ENSURABLE: Final = frozenset({Level.NO_VM, Level.RUNDOWN_COMPLETE})

_ENSURED: Final = contract.EnsureFinished(ok=True)
_LEVEL_CHANGED: Final = {level: contract.LevelChanged(level) for level in Level}

GuestKey = tuple[GuestEvent, int, int]
"""Event, time, vCPU: what makes two waiting guest events one."""


class VmWrapper:
    """See the module. `state` is None and `gen` 0 until the first publication; only `machine` moves `state`.

    Written by hand instead of attrs: 200,000 of these live in one process, and most of their slots are None.
    """

    state: InstanceState | None

    __slots__ = (
        "_active",
        "_console_ended",
        "_counts",
        "_deferred",
        "_doing",
        "_due_us",
        "_end",
        "_fails",
        "_guest",
        "_held",
        "_item",
        "_point",
        "_waiting",
        "gen",
        "level",
        "migration_in",
        "migration_out",
        "milestones",
        "pacer",
        "queue",
        "state",
        "stepped",
        "strict",
        "vm_id",
    )

    def __init__(
        self,
        vm_id: UUID,
        pacer: Pacer,
        *,
        stepped: bool = False,
        milestones: frozenset[Point] = MILESTONES,
        strict: Hazard = Hazard.NONE,
    ) -> None:
        self.vm_id = vm_id
        self.pacer = pacer
        self.stepped = stepped
        self.milestones = milestones
        self.strict = strict
        self.level = Level.NO_VM
        self._counts = 0  # of every point, `_COUNT_BITS` each: a dict per VM would outweigh the VM
        self._held = False
        self._reset()

    def _reset(self) -> None:
        machine.forget(self)
        self.gen = 0
        self.migration_in: MigrationStatus | None = None
        self.migration_out: MigrationStatus | None = None
        self.queue: RequestQueue | None = None
        self._doing = Doing.NOTHING
        self._point: Point | None = None
        self._due_us: int | None = None
        self._fails = False
        self._item: Queued | None = None  # what the driver executes; None: a guest event
        self._end = Event.RUN_DOWN  # what ends the rundown
        self._guest: tuple[GuestKey, ...] = ()
        self._active: Migration | None = None
        self._waiting: Migration | None = None  # asked for, not yet begun
        self._deferred = False  # the waiting one was popped during a start
        self._console_ended = False

    @property
    def publication(self) -> Publication | None:
        """The newest one; None before the first."""
        if self.gen == 0:
            return None
        assert self.state is not None
        return Publication(self.gen, self.state, self.migration_in, self.migration_out)

    @property
    def can_step(self) -> bool:
        """Whether a `Step` would pass the point where the VM stands: not what lasts for ever, nor a peer's turn."""
        return self._point is not None and self._due_us is not None

    def next_deadline_us(self) -> int | None:
        """When a `Tick` is due; None: nothing to wait for, or not by time."""
        if self._due_us is None or self._due_us < 0 or self._held:
            return None
        return self._due_us

    def _queue(self) -> RequestQueue:
        if self.level in _NO_DRIVER or self.queue is None:
            raise NoInstance(self.level)
        return self.queue

    def _count(self, point: Point) -> int:
        """How often `point` was entered before; counts this time."""
        counts = self._counts
        self._counts = counts + _ONE[point]
        return counts >> _SHIFT[point] & _COUNT_MASK

    def _ensure(self, birth: Birth, out: list[Effect]) -> None:
        if self.level not in ENSURABLE:
            raise AlreadyInitialized(self.level)
        if self.level is not Level.NO_VM:  # else it is as it was made, or as a crash left it
            self._reset()
        self.queue = RequestQueue.new(auto_start=birth is Birth.TARGET)
        self._set_level(Level.WAITING_FOR_INIT, out)

    def _become_active(self, out: list[Effect]) -> None:
        self._set_level(Level.ACTIVE, out)
        out.append(_ENSURED)

    def _init_failed(self, out: list[Effect]) -> None:
        """The ensure that still waits gets its 500; there never was a driver, so no rundown either."""
        self._release_queue(out)
        self._doing = Doing.NOTHING
        self._set_level(Level.RUNDOWN_COMPLETE, out)
        out.append(contract.EnsureFinished(ok=False))

    def _exit(self, end: Event = Event.RUN_DOWN) -> None:
        """The driver is done; `end` is what the wrapper will tell when the objects are gone."""
        self._end = end
        self._doing = Doing.EXITED
        self._guest = ()

    def _stuck(self) -> bool:
        return bool(self.queue and self.queue.component_queue and Hazard.RECONFIGURE_AT_HALT in self.strict)

    def _begin_rundown(self, now_us: int, out: list[Effect]) -> None:
        self._set_level(Level.RUNDOWN, out)
        self._release_queue(out)
        self._wait(Point.RUNDOWN, Doing.RUNDOWN, now_us)

    def _release_queue(self, out: list[Effect]) -> None:
        if self.queue is not None:
            for request in self.queue.drop():
                assert isinstance(request.key, int)
                out.append(contract.ReconfigureDone(request.key, ReconfigureResult.GONE))
        self.queue = None
        if self._waiting is not None and not self._waiting.scripted:
            out.append(contract.PeerClosed(self._waiting.id))
        self._waiting = self._active = self._item = None
        self._deferred = False
        self._guest = ()

    def _run_down(self, out: list[Effect]) -> None:
        self._fire(self._end, out)
        assert self.state in TERMINAL
        self._doing = Doing.NOTHING
        self._end = Event.RUN_DOWN
        self._set_level(Level.RUNDOWN_COMPLETE, out)

    def _crash(self, out: list[Effect]) -> None:
        out.append(contract.Crashed())
        self._reset()
        self._set_level(Level.NO_VM, out)

    def _wait(
        self,
        point: Point,
        doing: Doing,
        now_us: int,
        *,
        milestone: bool = True,
        leads_to: InstanceState | None = None,
    ) -> None:
        """Enters `point`. `milestone` False: not one for a stepped VM: passing it shows nothing of its own."""
        self._doing = doing
        self._point = point
        pace = self.pacer.pace(self.vm_id, point, self._count(point), leads_to)
        self._fails = pace.fail
        after_us = pace.after_us
        if after_us is None:
            self._due_us = None
        elif self.stepped:
            self._due_us = ON_STEP if milestone and (point in self.milestones or after_us > 0) else NOW
        else:
            self._due_us = now_us + after_us if after_us > 0 else NOW

    def _live_queue(self) -> RequestQueue:
        assert self.queue is not None
        return self.queue

    def _fire(self, event: Event, out: list[Effect]) -> None:
        machine.fire(self, event)
        self._publish(out)

    def _publish(self, out: list[Effect]) -> None:
        assert self.state is not None
        self.gen += 1
        out.append(contract.Published(Publication(self.gen, self.state, self.migration_in, self.migration_out)))

    def _set_level(self, level: Level, out: list[Effect]) -> None:
        self.level = level
        out.append(_LEVEL_CHANGED[level])
