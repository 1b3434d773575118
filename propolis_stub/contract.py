"""Values that cross the edge of one VM: `Input` in, `Effect` out of `Vm.handle(input, now_us)`.

Read before: guest_events.py, migration/script.py, request_queue.py.
Read next: serial/guest.py, serial/history.py, server/monitor.py, vm.py, wrapper.py.
"""

from __future__ import annotations

from enum import Enum
from uuid import UUID

from msgspec import Struct

from propolis_stub.guest_events import GuestEvent
from propolis_stub.migration.messages import Message
from propolis_stub.migration.script import NO_BAGGAGE, PROTOCOLS, Baggage
from propolis_stub.request_queue import Disposition
from propolis_stub.types import Level, Publication, RequestKind
from propolis_stub.waiting import Point

# --- inputs ---------------------------------------------------------------------------------------------------


class EnsureSpec(Struct, frozen=True):
    """`PUT /instance` with a spec. Raises `AlreadyInitialized` while a VM exists.

    `fails`: the host cannot build this VM (too many vCPUs, a disk that is none): as if `Point.CREATE` failed.
    """

    fails: bool = False


class EnsureTarget(Struct, frozen=True):
    """`PUT /instance` with a migration target. Raises `AlreadyInitialized` while a VM exists.

    `scripted`: the source does not exist; this VM plays its side alone and the peer is imagined to answer.
    `fails_in`: only with `scripted`: the imagined peer fails in that phase. `fails`: as with `EnsureSpec`.
    """

    migration_id: UUID
    scripted: bool = False
    fails_in: Point | None = None
    baggage: Baggage = NO_BAGGAGE
    protocols: tuple[str, ...] = PROTOCOLS
    fails: bool = False


class Request(Struct, frozen=True):
    """Run, Stop or Reboot. Answered by `Disposed`; raises `RequestDenied` or `NoInstance`."""

    kind: RequestKind


class MigrateOut(Struct, frozen=True):
    """A peer asks to migrate this VM out. Answered by `Disposed`; raises `RequestDenied` or `NoInstance`.

    Not scripted: messages of the peer come as `FromPeer` (also before the driver gets to it: they wait), its loss as
    `PeerLost`; the VM's own come out as `ToPeer`, and `PeerClosed` ends the connection.
    """

    migration_id: UUID
    scripted: bool = False
    fails_in: Point | None = None
    baggage: Baggage = NO_BAGGAGE
    protocols: tuple[str, ...] = PROTOCOLS


class Reconfigure(Struct, frozen=True):
    """Replace the volume of a Crucible disk: answered later by `ReconfigureDone` with the same ticket."""

    ticket: int
    disk_id: str = ""


class Guest(Struct, frozen=True):
    """A guest event. Equal events that still wait are one (PR 3.4): chipset events are equal by kind,
    vCPU events by kind and time, triple faults also by vCPU. `at_us` None: now. Raises `GuestNotRunning`.
    """

    event: GuestEvent
    at_us: int | None = None
    vcpu: int = 0


class FromPeer(Struct, frozen=True):
    """A message of the peer. `migration_id` None: of the migration that runs, or else of the one that waits."""

    message: Message
    migration_id: UUID | None = None


class PeerLost(Struct, frozen=True):
    """The connection of a migration is gone, could not be made, or was refused by the source."""

    why: str = "connection lost"
    migration_id: UUID | None = None


class Tick(Struct, frozen=True):
    """Time has come to `next_deadline_us`, or just passed."""


class Step(Struct, frozen=True):
    """Pass the current waiting point (not one that lasts for ever) and go on to the next; nothing if none waits."""


class Settle(Struct, frozen=True):
    """What is waited for happens now, well or badly, even where the pace says "for ever" (control API)."""

    fail: bool = False


class Hold(Struct, frozen=True):
    """The driver pauses: it picks up nothing and passes no waiting point, so that requests pile up."""


class Release(Struct, frozen=True):
    """The end of `Hold`; what became due meanwhile happens now."""


class Crash(Struct, frozen=True):
    """The process dies: connections drop, the VM is forgotten, the next one to ask finds NoVm."""


Input = (
    EnsureSpec
    | EnsureTarget
    | Request
    | MigrateOut
    | Reconfigure
    | Guest
    | FromPeer
    | PeerLost
    | Tick
    | Step
    | Settle
    | Hold
    | Release
    | Crash
)


# --- effects --------------------------------------------------------------------------------------------------


class Published(Struct, frozen=True):
    publication: Publication


class LevelChanged(Struct, frozen=True):
    level: Level


class EnsureFinished(Struct, frozen=True):
    """The waiting `PUT /instance` is answered now: 201, or 500 (then the monitor channel stays open: PR 3.7)."""

    ok: bool


class Disposed(Struct, frozen=True):
    """What the queue said to the request of this call: `QUEUED` or `IGNORED` (a denial is raised)."""

    disposition: Disposition


class Dial(Struct, frozen=True):
    """The target wants its source: connect, then ask it for `MigrateOut`. `ToPeer` may follow at once: the shell
    keeps messages until connected; a refusal or failure comes back as `PeerLost`.
    """

    migration_id: UUID


class ToPeer(Struct, frozen=True):
    message: Message
    migration_id: UUID


class PeerClosed(Struct, frozen=True):
    """Close the connection of this migration: without a frame, or with this close code."""

    migration_id: UUID
    code: int | None = None


class ReconfigureResult(Enum):
    EXECUTED = "executed"  # the shell changes the stored spec now
    FAILED = "failed"  # Crucible refused: 400
    GONE = "gone"  # "VM destroyed before request could be handled": 410


class ReconfigureDone(Struct, frozen=True):
    ticket: int
    result: ReconfigureResult


class ConsoleMoved(Struct, frozen=True):
    """The source reached the Server phase: console clients go to `destination`, the console task ends for good."""

    destination: str


class Crashed(Struct, frozen=True):
    """Drop every connection."""


Effect = (
    Published
    | LevelChanged
    | EnsureFinished
    | Disposed
    | Dial
    | ToPeer
    | PeerClosed
    | ReconfigureDone
    | ConsoleMoved
    | Crashed
)
