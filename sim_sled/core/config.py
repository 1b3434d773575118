"""Frozen configuration of sleds. Sizes in bytes, times in microseconds. Defaults: SA 1.7.

Read next: play/fleet.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Final
from uuid import UUID, uuid5

import attrs
from msgspec import Struct

from nexus_client.types import SledCpuFamily, SledRole

GIB: Final = 2**30
SECOND_US: Final = 1_000_000


class SimMode(Enum):
    """AUTO: timers carry out what is queued. EXPLICIT: pokes do (SA 2.9)."""

    AUTO = "auto"
    EXPLICIT = "explicit"


def derived_id(sled_id: UUID, what: str) -> UUID:
    """An id that this sled always has for `what`: SA 6 #33. Version 4, because names of pools must have one."""
    return UUID(bytes=uuid5(sled_id, what).bytes, version=4)


class PhysicalDisk(Struct, frozen=True):
    """A U.2 disk. Its identity is what Nexus knows it by; `id` is what a hand-off calls it (SR 3.7)."""

    id: UUID
    vendor: str
    model: str
    serial: str


class Zpool(Struct, frozen=True):
    """A pool that is there from the start, on a disk of its own. Size in bytes."""

    id: UUID
    total_size: int
    disk: PhysicalDisk


class BareDisk(Struct, frozen=True):
    """A disk that nobody has adopted: it gets its pool, of `size` bytes, from a sled configuration (SR 3.7)."""

    disk: PhysicalDisk
    size: int


class CrucibleDataset(Struct, frozen=True):
    """A dataset with a Crucible agent of its own."""

    zpool_id: UUID
    dataset_id: UUID


@attrs.frozen
class Hardware:
    """What the sled says it is made of.

    `zpools`: a number makes as many pools of `zpool_size` with ids and serials that follow from the sled's id; or the
    pools themselves. `disks`: further ones, without pools. `crucible_datasets` None: one per pool.
    """

    hardware_threads: int = 32
    physical_ram: int = 64 * GIB
    reservoir_size: int = 32 * GIB
    zpools: int | tuple[Zpool, ...] = 10
    zpool_size: int = 2**40
    disks: tuple[BareDisk, ...] = ()
    crucible_datasets: tuple[CrucibleDataset, ...] | None = None
    cpu_family: SledCpuFamily = SledCpuFamily.AMD_MILAN
    role: SledRole = SledRole.SCRIMLET
    baseboard_model: str = "i86pc"
    baseboard_revision: int = 3
    baseboard_serial: str | None = None  # None: `sim-<sled id>`, so that a restarted sled is the same sled

    def serial_of(self, sled_id: UUID) -> str:
        """Serial number of the baseboard of sled `sled_id`."""
        return self.baseboard_serial or f"sim-{sled_id}"

    def pools_of(self, sled_id: UUID) -> tuple[Zpool, ...]:
        """The pools that sled `sled_id` has from the start, in the order of their slots (SA 1.7)."""
        if isinstance(self.zpools, tuple):
            return self.zpools
        return tuple(_made_pool(sled_id, slot, self.zpool_size) for slot in range(self.zpools))

    def crucible_datasets_of(self, sled_id: UUID) -> tuple[CrucibleDataset, ...]:
        """The datasets with a Crucible agent, in the order of their ports (SA 1.7)."""
        if self.crucible_datasets is not None:
            return self.crucible_datasets
        return tuple(
            CrucibleDataset(pool.id, derived_id(sled_id, f"crucible/{pool.id}")) for pool in self.pools_of(sled_id)
        )


def _made_pool(sled_id: UUID, slot: int, size: int) -> Zpool:
    pool_id = derived_id(sled_id, f"zpool/{slot}")
    disk = PhysicalDisk(
        derived_id(sled_id, f"disk/{slot}"), "synthetic-vendor", "synthetic-model", f"synthetic-serial-{pool_id}"
    )
    return Zpool(pool_id, size, disk)


@attrs.frozen
class SledConfig:
    """One sled of a rack."""

    sled_id: UUID
    address: str = "[::1]:0"
    mode: SimMode = SimMode.AUTO
    hardware: Hardware = attrs.field(factory=Hardware)
    repo_depot_port: int = 0
    stop_grace_us: int = 600 * SECOND_US
    """After an accepted stop a VMM may take this long; then the agent ends it (SA 2.12)."""
    poke_timeout_us: int = 15 * SECOND_US
    """A poke waits this long for Nexus: the time-out of the only known client (SA 2.10)."""
    recheck_us: int | None = None
    """Pause between two looks whether Nexus still knows this sled; None: it never looks, as the real one (NX 3.3)."""
    max_vcpus: int | None = None
    """Refuse larger VMMs with a 500, as the existing simulator does at 16 (None: no such limit)."""
    refuse_repeated_target: bool = False
    """Refuse a second `migration_target` of a VMM with a 400, as the existing simulator does. The real agent answers
    200: the 409 of its second ensure is swallowed (SA 2.12, PR 3.9)."""
    strict: bool = False
    """Refuse what a real sled refuses and the existing simulator does not: configurations with artifacts that are not
    in the store (SR 3.1), network configurations whose generation does not grow (SR 4.4)."""
    enforce_capacity: bool = False
    """Refuse a registration that exceeds the sled's threads or reservoir (SA 6 #25)."""
    stop_before_start: bool = False
    """Hazard: a stop of a VMM that was never started aborts the agent, and all its VMs are lost (SA 2.12). Nexus
    sends one while `starting` shows. Off: that VMM is destroyed, told and forgotten, as the real agent means it."""


RECHECK_US: Final = 30 * SECOND_US
"""How often a daemon's sled looks whether Nexus still knows it: as often as Nexus's health check looks at VMMs."""

VMMS_MAX: Final = 1_000_000
"""Per sled. Far beyond any rack; it bounds memory at about 2 GB when a client runs wild."""

GENERATIONS_LEFT: Final = 2**32
"""Generations that a VMM must have left when it is registered: each change takes one, and the wire has 63 bits."""

POKES_WAITING_MAX: Final = 32
"""Per VMM, as the real agent's request channel (SA 2.12: 503 INSTANCE_CHANNEL_FULL)."""

DRAIN_STEPS_MAX: Final = 1_000
"""Steps of one drain: a life has fewer than 40 waiting points, guests in a reboot loop are what this stops."""

MIGRATIONS_OUT_MAX: Final = 1_000
"""Migrations out of one VMM; their ids are kept, because none may be tried twice. A real VMM leaves once."""

ASKED_KEPT: Final = 8
"""Requests remembered per VMM for `why`."""
