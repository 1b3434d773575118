"""Types of the Propolis API that the core shares with its shells (PR 1, 3.7; PascalCase on the wire).

Read before: nexus_client/dropshot/identity.py. Read next: errors.py, guest_events.py, spec/types.py, table.py.
"""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from nexus_client.dropshot.identity import IdentityEnum


class Role(StrEnum):
    """A VM's side in a migration."""

    SOURCE = "source"
    TARGET = "target"


class InstanceState(IdentityEnum):
    """The ten names on the wire. `REPAIRING` is never published: see `errors.RepairingRejected`."""

    CREATING = "Creating"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    REBOOTING = "Rebooting"
    MIGRATING = "Migrating"
    REPAIRING = "Repairing"
    FAILED = "Failed"
    DESTROYED = "Destroyed"


class MigrationPhase(IdentityEnum):
    """Propolis's `MigrationState` (PR 3.7). `RESUME` is never published; `RAM_PULL` only by targets."""

    SYNC = "Sync"
    RAM_PUSH = "RamPush"
    PAUSE = "Pause"
    RAM_PUSH_DIRTY = "RamPushDirty"
    DEVICE = "Device"
    RESUME = "Resume"
    RAM_PULL = "RamPull"
    SERVER = "Server"
    FINISH = "Finish"
    ERROR = "Error"


class MigrationStatus(Struct, frozen=True, gc=False):
    """Last published status of a migration in one direction."""

    id: UUID
    state: MigrationPhase


class Publication(Struct, frozen=True, gc=False):
    """One atomic update of what the monitor tells (PR 3.7). `gen` starts at 1 and grows by exactly 1.

    Both migration fields are cumulative: once set they are never cleared for the life of the VM.
    """

    gen: int
    state: InstanceState
    migration_in: MigrationStatus | None = None
    migration_out: MigrationStatus | None = None


class Level(IdentityEnum):
    """VM-level states of PR 3.1."""

    NO_VM = "NoVm"
    WAITING_FOR_INIT = "WaitingForInit"
    ACTIVE = "Active"
    RUNDOWN = "Rundown"
    RUNDOWN_COMPLETE = "RundownComplete"


class RequestKind(IdentityEnum):
    """Bodies of `PUT /instance/state`."""

    RUN = "Run"
    STOP = "Stop"
    REBOOT = "Reboot"
