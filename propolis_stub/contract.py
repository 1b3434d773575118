"""Values that cross the edge of one VM: `Input` in, `Effect` out of `Vm.handle(input, now_us)`.

Read before: guest_events.py, migration/script.py, request_queue.py, values.py.
Read next: serial/guest.py, serial/history.py, server/monitor.py, vm.py, wrapper.py.
"""

from __future__ import annotations

from enum import Enum
from uuid import UUID

import attrs

from propolis_stub.guest_events import GuestEvent
from propolis_stub.migration.messages import Message
from propolis_stub.migration.script import NO_BAGGAGE, PROTOCOLS, Baggage
from propolis_stub.request_queue import Disposition
from propolis_stub.types import Level, Publication, RequestKind
from propolis_stub.values import envelope
from propolis_stub.waiting import Point

# --- inputs ---------------------------------------------------------------------------------------------------


@attrs.frozen
class EnsureSpec:
    """`PUT /instance` with a spec. Raises `AlreadyInitialized` while a VM exists.

    `fails`: the host cannot build this VM (too many vCPUs, a disk that is none): as if `Point.CREATE` failed.
    """

    fails: bool = False


@attrs.frozen
class EnsureTarget:
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


@attrs.frozen
class Request:
    """Run, Stop or Reboot. Answered by `Disposed`; raises `RequestDenied` or `NoInstance`."""

    kind: RequestKind


@attrs.frozen
class MigrateOut:
    """A peer asks to migrate this VM out. Answered by `Disposed`; raises `RequestDenied` or `NoInstance`.

    Not scripted: messages of the peer come as `FromPeer` (also before the driver gets to it: they wait), its loss as
    `PeerLost`; the VM's own come out as `ToPeer`, and `PeerClosed` ends the connection.
    """

    migration_id: UUID
    scripted: bool = False
    fails_in: Point | None = None
    baggage: Baggage = NO_BAGGAGE
    protocols: tuple[str, ...] = PROTOCOLS


@attrs.frozen
class Reconfigure:
    """Replace the volume of a Crucible disk: answered later by `ReconfigureDone` with the same ticket."""

    ticket: int
    disk_id: str = ""


@attrs.frozen
class Guest:
    """A guest event. Equal events that still wait are one (PR 3.4): chipset events are equal by kind,
    vCPU events by kind and time, triple faults also by vCPU. `at_us` None: now. Raises `GuestNotRunning`.
    """

    event: GuestEvent
    at_us: int | None = None
    vcpu: int = 0


@envelope
class FromPeer:
    """A message of the peer. `migration_id` None: of the migration that runs, or else of the one that waits."""

    message: Message
    migration_id: UUID | None = None


@attrs.frozen
class PeerLost:
    """The connection of a migration is gone, could not be made, or was refused by the source."""

    why: str = "connection lost"
    migration_id: UUID | None = None


@attrs.frozen
class Tick:
    """Time has come to `next_deadline_us`, or just passed."""


@attrs.frozen
class Step:
    """Pass the current waiting point (not one that lasts for ever) and go on to the next; nothing if none waits."""


@attrs.frozen
class Settle:
    """What is waited for happens now, well or badly, even where the pace says "for ever" (control API)."""

    fail: bool = False


@attrs.frozen
class Hold:
    """The driver pauses: it picks up nothing and passes no waiting point, so that requests pile up."""


@attrs.frozen
class Release:
    """The end of `Hold`; what became due meanwhile happens now."""


@attrs.frozen
class Crash:
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


@envelope
class Published:
    publication: Publication


@attrs.frozen
class LevelChanged:
    level: Level


@attrs.frozen
class EnsureFinished:
    """The waiting `PUT /instance` is answered now: 201, or 500 (then the monitor channel stays open: PR 3.7)."""

    ok: bool


@envelope
class Disposed:
    """What the queue said to the request of this call: `QUEUED` or `IGNORED` (a denial is raised)."""

    disposition: Disposition


@attrs.frozen
class Dial:
    """The target wants its source: connect, then ask it for `MigrateOut`. `ToPeer` may follow at once: the shell
    keeps messages until connected; a refusal or failure comes back as `PeerLost`.
    """

    migration_id: UUID


@envelope
class ToPeer:
    message: Message
    migration_id: UUID


@attrs.frozen
class PeerClosed:
    """Close the connection of this migration: without a frame, or with this close code."""

    migration_id: UUID
    code: int | None = None


class ReconfigureResult(Enum):
    EXECUTED = "executed"  # the shell changes the stored spec now
    FAILED = "failed"  # Crucible refused: 400
    GONE = "gone"  # "VM destroyed before request could be handled": 410


@attrs.frozen
class ReconfigureDone:
    ticket: int
    result: ReconfigureResult


@attrs.frozen
class ConsoleMoved:
    """The source reached the Server phase: console clients go to `destination`, the console task ends for good."""

    destination: str


@attrs.frozen
class Crashed:
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
