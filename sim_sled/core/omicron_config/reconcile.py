"""One run of the config reconciler: what of a configuration came about, and why not the rest (SR 3.2).

`reconcile` is a function of the configuration, of what the sled has and of the faults that somebody set: the same in
gives the same out. It remembers nothing; ledger.py does.

Read before: core/omicron_config/values.py. Read next: core/omicron_config/ledger.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from sim_sled.core.omicron_config.values import DatasetWanted, DiskWanted, Json, OmicronConfig, ZoneWanted, pool_id

Identity = tuple[str, str, str]
"""Vendor, model, serial of a disk."""

Results = Mapping[str, str | None]
"""By id: None is ok, a text says what went wrong."""

NOT_IN_TIME: Final = "Time not yet synchronized"


@attrs.frozen
class HasDisk:
    """A disk that is in the sled. `pool_id` None: no pool on it yet. `size` of a pool in bytes."""

    pool_id: str | None
    size: int


@attrs.frozen
class Image:
    """Content of a host phase 2 slot (SR 3.8). `size` with the header, in bytes."""

    hash: str
    size: int
    data_sha256: bytes
    image_name: str
    flags: int = 0
    data_size: int | None = None  # None: what follows the header
    target_size: int | None = None  # None: the same as the data


HEADER_BYTES: Final = 4096
"""Of the header in front of a host phase 2 image (SR 3.8)."""


@attrs.define
class Faults:
    """What somebody wants to go wrong (SR 8). Texts by id; `serials`: by serial number of a disk; `kinds`: by kind of
    dataset or zone. `missing_disks` are serial numbers. `keeps_orphans`: datasets that left cannot be destroyed.
    """

    disks: dict[str, str] = attrs.field(factory=dict)
    datasets: dict[str, str] = attrs.field(factory=dict)
    zones: dict[str, str] = attrs.field(factory=dict)
    missing_disks: set[str] = attrs.field(factory=set)
    time_synchronized: bool = True
    boot_disk: str | None = None
    slots: dict[str, str] = attrs.field(factory=dict)
    serials: dict[str, str] = attrs.field(factory=dict)
    kinds: dict[str, str] = attrs.field(factory=dict)
    keeps_orphans: bool = False


@attrs.frozen
class World:
    """What a run finds. `images`: artifacts of the store that a slot could be written with, by hash.

    `slots`: content of both host phase 2 slots. `override`: id of a MUPdate override on disk (SR 3.9).
    """

    disks: Mapping[Identity, HasDisk]
    images: Mapping[str, Image]
    slots: Mapping[str, Image]
    boot_slot: str
    override: str | None
    faults: Faults
    there: Mapping[str, DatasetWanted] = attrs.field(factory=dict)
    """Datasets that earlier runs made, by id."""


@attrs.frozen
class Reconciled:
    """The outcome of a run."""

    config: OmicronConfig
    disks: Results
    datasets: Results
    zones: Results
    pools: Mapping[str, HasDisk]
    """Pools of the disks that are managed, by id."""
    slots: Mapping[str, Image | str]
    boot_disk: str | None
    """Why the boot disk is unknown; None: it is known."""
    override_result: str | None
    """`removed`, `no_override`, or why it could not be removed; None: nobody asked."""
    override_left: str | None
    orphans: Mapping[str, DatasetWanted] = attrs.field(factory=dict)
    """Datasets that are there, are in no configuration any more, and could not be destroyed."""


def reconcile(config: OmicronConfig, world: World) -> Reconciled:
    """Order: MUPdate override, boot partitions, disks, datasets, zones (SR 3.2)."""
    result, left = _override(config.remove_mupdate_override, world.override)
    slots = {name: _slot(name, config.slot(name), left, world) for name in ("a", "b")}
    disks: dict[str, str | None] = {}
    pools: dict[str, HasDisk] = {}
    for disk in config.disks.values():
        disks[disk.id] = why = _disk(disk, world)
        if why is None:
            pools[disk.pool_id] = world.disks[disk.vendor, disk.model, disk.serial]
    datasets = {each.id: _dataset(each, pools, world.faults) for each in config.datasets.values()}
    failed = {config.datasets[key].name: why for key, why in datasets.items() if why is not None}
    zones = {zone.id: _zone(zone, pools, failed, world.faults) for zone in config.zones.values()}
    orphans = {
        key: each
        for key, each in world.there.items()
        if world.faults.keeps_orphans and key not in config.datasets and pool_id(each.pool_name) in pools
    }
    return Reconciled(config, disks, datasets, zones, pools, slots, world.faults.boot_disk, result, left, orphans)


def _override(wanted: str | None, there: str | None) -> tuple[str | None, str | None]:
    if wanted is None:
        return None, there
    if there is None:
        return "no_override", None
    if there == wanted:
        return "removed", None
    return f"mupdate override on disk is {there}, not {wanted}", there


def _slot(name: str, wanted: str | None, override: str | None, world: World) -> Image | str:
    there = world.slots[name]
    if (fault := world.faults.slots.get(name)) is not None:
        return fault
    # after a MUPdate nobody writes to the slots: the install dataset rules
    if wanted is None or override is not None or there.hash == wanted:
        return there
    image = world.images.get(wanted)
    return f"could not find desired artifact {wanted}" if image is None else image


def _disk(disk: DiskWanted, world: World) -> str | None:
    has = world.disks.get((disk.vendor, disk.model, disk.serial))
    if has is None or disk.serial in world.faults.missing_disks:
        return "Disk requested by control plane, but not found on device"
    if has.pool_id is not None and has.pool_id != disk.pool_id:
        return f"Expected zpool UUID of {disk.pool_id}, but saw {has.pool_id}"
    return world.faults.disks.get(disk.id, world.faults.serials.get(disk.serial))


def _dataset(dataset: DatasetWanted, pools: Mapping[str, HasDisk], faults: Faults) -> str | None:
    if pool_id(dataset.pool_name) not in pools:
        return f"could not find matching zpool {dataset.pool_name}"
    return faults.datasets.get(dataset.id, faults.kinds.get(dataset.kind))


def _zone(zone: ZoneWanted, pools: Mapping[str, HasDisk], failed: Mapping[str, str], faults: Faults) -> str | None:
    """A dataset that the configuration does not name is taken to be there, as in the existing simulator: its tapes
    have zones without a root of their own.
    """
    if (fault := faults.zones.get(zone.id, faults.kinds.get(zone.kind))) is not None:
        return fault
    if zone.needs_time and not faults.time_synchronized:
        return NOT_IN_TIME
    if zone.filesystem_pool is None:
        return "zone config is missing a filesystem pool"
    for what, pool_name, name in (
        ("transient root", zone.filesystem_pool, zone.transient),
        ("durable", zone.durable_pool, zone.durable),
    ):
        if name is not None and pool_name is not None and (name in failed or pool_id(pool_name) not in pools):
            return f"zone's {what} dataset is not available: {name}"
    return None


def as_wire(results: Results) -> Json:
    """By id, as the API tells results."""
    return {
        key: {"result": "ok"} if why is None else {"result": "err", "message": why} for key, why in results.items()
    }
