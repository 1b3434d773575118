"""When a waiting point ends: the driver's only link to time and chance.

A *waiting point* is a place where the driver waits for something outside itself: the guest, a disk, a peer.
In timed mode the VM asks its `Pacer` at each one; in stepped mode every *milestone* waits for a `Step`.

Points that are passed in the same instant are passed in one `handle`, so that whoever watches by the monitor
sees only the last publication, exactly as a slow monitor client does (PR 1.1, 3.7).

Read next: migration/messages.py, pacers.py.
"""

from __future__ import annotations

from typing import Final, Protocol
from uuid import UUID

import attrs

from propolis_stub.types import IdentityEnum, InstanceState


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


@attrs.frozen
class Pace:
    """What a waiting point does: wait `after_us` microseconds (None: for ever), then go on or fail."""

    after_us: int | None = 0
    fail: bool = False


class Pacer(Protocol):
    """Decides the pace of each waiting point. Pure: the same (vm, point, occurrence) gives the same answer."""

    def pace(self, vm_id: UUID, point: Point, occurrence: int, leads_to: InstanceState | None = None, /) -> Pace:
        """Asked once when `vm_id` enters `point` for the `occurrence`-th time (counted per VM and point, from 0).

        `leads_to`: at `WAKE` the state in which what is picked up begins; None: it changes no state.
        """
        ...
