"""When a waiting point ends: the driver's only link to time and chance.

A *waiting point* is a place where the driver waits for something outside itself: the guest, a disk, a peer.
In timed mode the VM asks its `Pacer` at each one; in stepped mode every *milestone* waits for a `Step`.

Points that are passed in the same instant are passed in one `handle`, so that whoever watches by the monitor
sees only the last publication, exactly as a slow monitor client does (PR 1.1, 3.7).

Read next: driver.py, migration/messages.py, presets.py.
"""

from __future__ import annotations

from typing import Final, Protocol
from uuid import UUID

from msgspec import Struct

from nexus_client.dropshot.identity import IdentityEnum
from propolis_stub.guest_events import GuestEvent
from propolis_stub.request_queue import RequestType
from propolis_stub.types import InstanceState, Role


class Point(IdentityEnum):
    """Waiting points of the driver, in the order of a life."""

    WAKE = "wake"  # a request or guest event is queued -> the idle driver picks it up
    CREATE = "create"  # ensure accepted -> objects built (fail: object creation fails, PR 3.2)
    DEVICES = "devices"  # Starting published -> devices started (fail: device start error, no notification)
    BACKENDS = "backends"  # devices started -> all block backends up (fail: backend start error)
    REBOOT = "reboot"  # Rebooting -> Running (cannot fail)
    HALT = "halt"  # Stopping -> Stopped (or, after a migration out, -> rundown)
    RUNDOWN = "rundown"  # driver exited -> Destroyed / Failed published
    RECONFIGURE = "reconfigure"  # a component request executes (fail: 400 from Crucible)
    # migration; each is "this phase was published -> its work is done"; fail: this side fails in this phase
    M_CONNECT = "connect"  # target only: accepted -> negotiated
    M_SYNC = "sync"
    M_RAM_PUSH = "ram_push"
    M_PAUSE = "pause"
    M_RAM_PUSH_DIRTY = "ram_push_dirty"
    M_TIME = "time_data"  # publishes nothing
    M_DEVICE = "device"
    M_RAM_PULL = "ram_pull"
    M_SERVER = "server"
    M_FINISH = "finish"


MILESTONES: Final = frozenset(
    {Point.WAKE, Point.REBOOT, Point.HALT, Point.RUNDOWN, Point.M_CONNECT, Point.M_SYNC, Point.M_FINISH}
)
"""Where a stepped VM waits by default. With these a start is one step (WAKE, then Running at once), a reboot
two (Rebooting, Running), a stop three (Stopping, Stopped, Destroyed), a migration in four (accepted; Sync;
Finish; Running): the step counts that clients of the simulated sled agent know (SA 2.7)."""


class Pace(Struct, frozen=True):
    """What a waiting point does: wait `after_us` microseconds (None: for ever), then go on or fail."""

    after_us: int | None = 0
    fail: bool = False


class Edge(Struct, frozen=True):
    """Where a VM is when it begins to wait, and where the step behind the point leads if it goes well.

    `state` is what its last publication says, or one that is on its way to whoever watches. `leads_to` None: the step
    changes no state. `why`: the request or guest event that is carried out or about to be; None: nobody asked.
    """

    state: InstanceState | None
    leads_to: InstanceState | None = None
    role: Role | None = None
    why: RequestType | GuestEvent | None = None


class Pacer(Protocol):
    """Decides the pace of each waiting point. Pure: the same arguments give the same answer."""

    def pace(self, vm_id: UUID, point: Point, occurrence: int, edge: Edge, /) -> Pace:
        """Asked once when `vm_id` enters `point` for the `occurrence`-th time (counted per VM and point, from 0)."""
        ...


NOW: Final = -1  # due at once, even while held: a point without duration is no waiting point
ON_STEP: Final = -2

_COUNT_BITS: Final = 32
_SHIFT: Final = {point: _COUNT_BITS * index for index, point in enumerate(Point)}
_ONE: Final = {point: 1 << shift for point, shift in _SHIFT.items()}
_COUNT_MASK: Final = (1 << _COUNT_BITS) - 1


class Waiting:
    """What one VM waits for: a point, until when, and whether it will fail there.

    `due_us` is a time, `NOW`, `ON_STEP`, or None: for ever. `point` None: the VM waits for no point.
    """

    __slots__ = ("_counts", "due_us", "fails", "milestones", "pacer", "point", "stepped", "vm_id")

    def __init__(self, vm_id: UUID, pacer: Pacer, *, stepped: bool, milestones: frozenset[Point]) -> None:
        self.vm_id = vm_id
        self.pacer = pacer
        self.stepped = stepped
        self.milestones = milestones
        self._counts = 0  # of every point, `_COUNT_BITS` each: a dict per VM would outweigh the VM
        self.point: Point | None = None
        self.due_us: int | None = None
        self.fails = False

    def enter(self, point: Point, now_us: int, edge: Edge, *, milestone: bool = True) -> None:
        """`milestone` False: not one for a stepped VM: passing it shows nothing of its own."""
        self.point = point
        pace = self.ask(point, edge)
        self.fails = pace.fail
        after_us = pace.after_us
        if after_us is None:
            self.due_us = None
        elif self.stepped:
            self.due_us = ON_STEP if milestone and (point in self.milestones or after_us > 0) else NOW
        else:
            self.due_us = now_us + after_us if after_us > 0 else NOW

    def ask(self, point: Point, edge: Edge) -> Pace:
        """The pace of the next time at `point`; counts that time."""
        counts = self._counts
        self._counts = counts + _ONE[point]
        return self.pacer.pace(self.vm_id, point, counts >> _SHIFT[point] & _COUNT_MASK, edge)

    def leave(self) -> None:
        """The point is behind us, or will never come. Whether it fails stays known until the next one."""
        self.point = None
        self.due_us = None

    def is_over(self, now_us: int, *, held: bool) -> bool:
        """Whether the point is passed by time. `NOW` is, even while held; `ON_STEP` never."""
        due_us = self.due_us
        return due_us is not None and (due_us == NOW or (0 <= due_us <= now_us and not held))

    @property
    def can_step(self) -> bool:
        """Whether a `Step` would pass the point: not what lasts for ever."""
        return self.point is not None and self.due_us is not None
