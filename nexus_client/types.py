"""Wire types shared by the Sled Agent API and Nexus's internal API (openapi: `SledVmmState` and friends).

Classes carry data; `codec.py` carries the wire rules. Everything that crosses a module edge is frozen.
`gc=False`, here and elsewhere: values of which each VMM has some. They refer to nothing that could refer to them, so
the collector need not know them; that saves 16 bytes of each, and its time.
Times are aware UTC datetimes on the wire and integer microseconds since the Unix epoch in every core;
`time_of` is the one conversion.

Read before: dropshot/identity.py. Read next: codec.py, outbox.py, registration.py.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from nexus_client.dropshot.identity import IdentityEnum
from nexus_client.dropshot.text import utc

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

GENERATION_MAX: Final = 2**63 - 1
"""Largest generation on the wire (SA 1.5); a larger one is a 400."""

Generation = Annotated[int, msgspec.Meta(ge=0, le=GENERATION_MAX)]
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]


def time_of(now_us: int) -> datetime:
    """The UTC datetime of `now_us` microseconds since the Unix epoch."""
    return _EPOCH + now_us * _MICROSECOND  # half the time of timedelta(microseconds=now_us)


def stamp(now_us: int) -> str:
    """The same as text: RFC 3339 with microseconds."""
    return time_of(now_us).isoformat(timespec="microseconds").replace("+00:00", "Z")


def brief(us: int) -> str:
    """How long something takes, for people: `43.5ms`, `33.6s`, `9m56s`, `2h5m`. Rounded, to three figures at most;
    the scenario language has the exact spelling (`language.figures.show_duration`).
    """
    if us < 1_000:
        return f"{us}us"
    if us < 999_500:
        return f"{us / 1e3:.3g}ms"
    if us < 59_950_000:
        return f"{us / 1e6:.3g}s"
    whole, big, small, per = round(us / 1e6), "m", "s", 60
    if whole >= 3_600:
        whole, big, small = round(us / 60e6), "h", "m"
    if big == "h" and whole >= 24 * 60:
        whole, big, small, per = round(us / 3_600e6), "d", "h", 24
    many, rest = divmod(whole, per)
    return f"{many}{big}{rest}{small}" if rest else f"{many}{big}"


def us_of(when: datetime) -> int:
    """Microseconds since the Unix epoch of an aware datetime."""
    return (when - _EPOCH) // _MICROSECOND


class VmmState(IdentityEnum):
    """The eight states a sled may publish (NX 1.1). `creating` and `saga_unwound` are Nexus's own."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    REBOOTING = "rebooting"
    MIGRATING = "migrating"
    FAILED = "failed"
    DESTROYED = "destroyed"


TERMINAL: Final = frozenset({VmmState.FAILED, VmmState.DESTROYED})
"""States after which nothing is published any more (NX 7 #6)."""


class MigrationState(IdentityEnum):
    """State of one side of a migration, as a sled tells it."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    FAILED = "failed"
    COMPLETED = "completed"


MIGRATION_TERMINAL: Final = frozenset({MigrationState.FAILED, MigrationState.COMPLETED})


class VmmRuntimeState(Struct, frozen=True, gc=False):
    """Published state of one VMM: what, in which generation, since when."""

    state: VmmState
    gen: Generation
    time_updated: Timestamp

    def __post_init__(self) -> None:
        # the wire may bring any offset
        if self.time_updated.tzinfo is not UTC:
            force_setattr(self, "time_updated", utc(self.time_updated))


class MigrationRuntimeState(Struct, frozen=True, gc=False):
    """One side of a migration as its VMM's sled sees it."""

    migration_id: UUID
    state: MigrationState
    gen: Generation
    time_updated: Timestamp

    def __post_init__(self) -> None:
        # the wire may bring any offset
        if self.time_updated.tzinfo is not UTC:
            force_setattr(self, "time_updated", utc(self.time_updated))


class SledVmmState(Struct, frozen=True, gc=False):
    """All a sled knows of a VMM: body of `PUT NEXUS/vmms/{propolis_id}` and of most answers to Nexus.

    A null migration means "no news", not "no migration" (NX 3.2).
    """

    vmm_state: VmmRuntimeState
    migration_in: MigrationRuntimeState | None = None
    migration_out: MigrationRuntimeState | None = None


class Asked(IdentityEnum):
    """Kinds of `VmmStateRequested`, by their wire tag."""

    RUNNING = "running"
    STOPPED = "stopped"
    REBOOT = "reboot"
    MIGRATION_TARGET = "migration_target"


_MIGRATION_TARGET: Final = Asked.MIGRATION_TARGET
"""Every request is asked for it, and from its class it would cost 0.1 us (CPython 3.11)."""


class InstanceMigrationTargetParams(Struct, frozen=True, gc=False):
    """Where the source's Propolis listens: `ip:port`."""

    src_propolis_addr: str


class VmmStateRequested(Struct, frozen=True, gc=False):
    """Adjacently tagged: `{"type": "running"}` or `{"type": "migration_target", "value": {...}}`."""

    type: Asked
    value: InstanceMigrationTargetParams | None = None

    def __post_init__(self) -> None:
        # ValueError becomes msgspec's ValidationError with the path of this object
        if self.value is None and self.type is _MIGRATION_TARGET:
            raise ValueError("`value` is required for migration_target")


class VmmPutStateBody(Struct, frozen=True, gc=False):
    state: VmmStateRequested


class UpdatedRuntime(Struct, frozen=True, gc=False):
    """Answer to PUT state and to DELETE (`VmmPutStateResponse`, `VmmUnregisterResponse`)."""

    updated_runtime: SledVmmState | None = None


class SledRole(IdentityEnum):
    GIMLET = "gimlet"
    SCRIMLET = "scrimlet"


class SledCpuFamily(IdentityEnum):
    UNKNOWN = "unknown"
    AMD_MILAN = "amd_milan"
    AMD_TURIN = "amd_turin"
    AMD_TURIN_DENSE = "amd_turin_dense"


class Baseboard(Struct, frozen=True):
    serial: str
    part: str
    revision: int


class SledAgentInfo(Struct, frozen=True):
    """Body of `POST NEXUS/sled-agents/{sled_id}` and answer of its GET (NX 3.3). Sizes in bytes."""

    sa_address: str
    repo_depot_port: int
    role: SledRole
    baseboard: Baseboard
    usable_hardware_threads: int
    usable_physical_ram: int
    reservoir_size: int
    cpu_family: SledCpuFamily
    generation: Generation
    decommissioned: bool
