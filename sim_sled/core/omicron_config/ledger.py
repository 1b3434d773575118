"""The ledgered sled configuration and the reconciler that works towards it (SR 3.1, 3.2).

    PUT --> ledgered at once --> a run that takes its time --> last reconciled
                 ^                        |
                 +--- a PUT during a run is taken up by another run after it

A run's outcome depends on nothing but the configuration and the sled, so a failed one is not tried again and again,
as the real reconciler does: it is tried when something has changed (`world_changed`). The answers are the same.

Read before: core/estate.py, core/omicron_config/reconcile.py.
Read next: core/bundles/store.py, core/identity/small.py, core/inventory.py, core/omicron_config/configure.py,
core/storage/local.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import attrs

from sim_sled.core.contract import DropFiles, ServeZones, ZoneServer
from sim_sled.core.errors import BadRequest
from sim_sled.core.estate import Area, Estate, SledPoint
from sim_sled.core.omicron_config.reconcile import Faults, HasDisk, Identity, Image, Reconciled, World, reconcile
from sim_sled.core.omicron_config.values import ZONE_OWNED, DatasetWanted, OmicronConfig

FIRST_IMAGES: Final[Mapping[str, Image]] = {
    name: Image(f"{digit}" * 32, 1000, bytes([byte]) * 32, "fake from debug_assume_success()", data_size=1000)
    for name, digit, byte in (("a", "0a", 0x1A), ("b", "0b", 0x1B))
}
"""What both host phase 2 slots hold at first: the existing simulator's two fakes (SR 3.2)."""

RAN_FOR_US: Final = 3_000_000
"""The existing simulator's figure for a run that was never seen (SR 3.2)."""


@attrs.frozen
class Run:
    """A run in progress; `due_us` None: it ends when somebody lets it."""

    config: OmicronConfig
    started_us: int
    due_us: int


@attrs.define
class Ended:
    """The last run that has ended."""

    completed_us: int
    ran_for_us: int


class Ledger(Area):
    """One sled's configuration.

    `ledgered`: what was accepted last. `last`: what the last run made of what was then ledgered. `strict_artifacts`:
    refuse a configuration whose artifacts are not in the store, as the real agent does (SR 3.1 c).
    """

    kept_as = "omicron-config"

    def __init__(self, estate: Estate) -> None:
        super().__init__(estate)
        self.ledgered: OmicronConfig | None = None
        self.last: Reconciled | None = None
        self.run: Run | None = None
        self.ended: Ended | None = None
        self.faults = Faults()
        self.takes_us: int | None = None
        """How long a run takes, if somebody wants that to be other than the sled's pace (SR 8)."""
        self.strict_artifacts = estate.sled.config.strict
        self.override: str | None = None
        self.boot_slot = "a"
        self.images: dict[str, Image] = {}
        """Artifacts of the store that a host phase 2 slot can be written with; who stores them tells them."""
        self.slots: dict[str, Image] = dict(FIRST_IMAGES)
        self.pool_of: dict[Identity, str] = {}
        """Pools that were made on bare disks: they stay when the disk is not managed any more."""
        self.resized: dict[str, int] = {}
        """Sizes that somebody gave to pools, by id (SR 8)."""
        self.runs = 0
        self._serving: tuple[ZoneServer, ...] = ()

    # --- calls ------------------------------------------------------------------------------------------------------

    def is_new(self, config: OmicronConfig) -> bool:
        """False for the one that is ledgered. Raises `BadRequest`: an older one, or another one of the same
        generation, or one that contradicts itself.
        """
        old = self.ledgered
        if old is not None:
            if config.generation < old.generation:
                raise BadRequest("Generation number too old")
            if config.generation == old.generation:
                if config != old:
                    raise BadRequest("Generation number unchanged but data is different")
                self.changed()  # is written again, as by the agent: the first time may have failed
                return False
        self._check(config)
        return True

    def take(self, config: OmicronConfig) -> set[str]:
        """Ledger a new one and reconcile. Returns the ids of datasets that have left, with all that was in them."""
        left = self._leaving(config)
        self.ledgered = config
        self.changed()
        if self.run is None:
            self._start()
        return left

    def _check(self, config: OmicronConfig) -> None:
        """SR 3.1 (c). A MUPdate override may only go where nothing comes from artifacts."""
        if config.remove_mupdate_override is not None:
            if any(zone.artifact is not None for zone in config.zones.values()):
                raise BadRequest("sled config is invalid: remove_mupdate_override is set beside zones from artifacts")
            if config.slot("a") is not None or config.slot("b") is not None:
                raise BadRequest(
                    "sled config is invalid: remove_mupdate_override is set beside host phase 2 artifacts"
                )

    def world_changed(self) -> None:
        """Something that a run depends on is different now: disks, faults, artifacts. Try again."""
        if self.ledgered is not None and self.run is None:
            self._start()

    # --- runs -------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        assert self.ledgered is not None, "nothing to reconcile"
        took_us = self.takes_us
        if took_us is None:
            took_us = self.estate.pace_us(SledPoint.RECONCILE, self.runs)
        self.runs += 1
        self.run = Run(self.ledgered, self.estate.now_us, self.estate.now_us + took_us)
        if took_us == 0:
            self._finish()

    def _finish(self) -> None:
        assert self.run is not None, "no run to finish"
        run, self.run = self.run, None
        self.last = reconcile(run.config, self._world())
        for disk in run.config.disks.values():
            if self.last.disks[disk.id] is None:
                self.pool_of[disk.vendor, disk.model, disk.serial] = disk.pool_id
        for name, content in self.last.slots.items():
            if isinstance(content, Image):
                self.slots[name] = content
        self.override = self.last.override_left
        ran_us = run.due_us - run.started_us
        if ran_us == 0:
            # the existing simulator's figure, but never before this sled existed
            ran_us = min(RAN_FOR_US, self.estate.now_us)
        self.ended = Ended(run.due_us, ran_us)
        self.changed()
        self._serve()
        if self.ledgered is not run.config:
            self._start()

    def next_deadline_us(self) -> int | None:
        return None if self.run is None else self.run.due_us

    def tick(self) -> None:
        if self.run is not None and self.run.due_us <= self.estate.now_us:
            self._finish()

    # --- what the sled has ------------------------------------------------------------------------------------------

    def _world(self) -> World:
        there: dict[str, DatasetWanted] = {}
        if self.last is not None:
            made = self.last.config.datasets
            there = {key: made[key] for key, why in self.last.datasets.items() if why is None}
            there |= self.last.orphans
        return World(self.disks(), self.images, self.slots, self.boot_slot, self.override, self.faults, there)

    def disks(self) -> dict[Identity, HasDisk]:
        """All disks of this sled, the ones with pools first, in the order of their slots."""
        hardware, sled_id = self.estate.hardware, self.estate.sled_id
        found: dict[Identity, HasDisk] = {}
        for pool in hardware.pools_of(sled_id):
            disk, key = pool.disk, str(pool.id)
            found[disk.vendor, disk.model, disk.serial] = HasDisk(key, self._size(key, pool.total_size))
        for bare in hardware.disks:
            identity = (bare.disk.vendor, bare.disk.model, bare.disk.serial)
            there = self.pool_of.get(identity)
            found[identity] = HasDisk(there, self._size(there, bare.size))
        return found

    def pools(self) -> dict[str, int]:
        """Sizes of all pools by id: those that were there from the start, and those of adopted disks (SR 3.3)."""
        found = {str(pool.id): pool.total_size for pool in self.estate.hardware.pools_of(self.estate.sled_id)}
        if self.last is not None:
            found |= {key: disk.size for key, disk in self.last.pools.items()}
        return {key: self._size(key, size) for key, size in found.items()}

    def _size(self, pool: str | None, size: int) -> int:
        return size if pool is None else self.resized.get(pool, size)

    def has_dataset(self, pool: str, kind: str) -> bool:
        """Whether the last run made a dataset of this kind on this pool."""
        if self.last is None:
            return False
        return any(
            self.last.datasets[each.id] is None and each.kind == kind and each.pool_name.partition("_")[2] == pool
            for each in self.last.config.datasets.values()
        )

    def running_zones(self) -> list[str]:
        """Names of the zones that the last run started, sorted (SR 4.6)."""
        if self.last is None:
            return []
        return sorted(self.last.config.zones[key].name for key, why in self.last.zones.items() if why is None)

    def zone_servers(self) -> tuple[ZoneServer, ...]:
        """Crucible agents and pantries in the zones that the last run started. Nexus looks for them at the addresses
        that it gave to the zones, whatever the sled has from the start (SR 3.7).
        """
        if self.last is None:
            return ()
        config, started = self.last.config, (key for key, why in self.last.zones.items() if why is None)
        datasets = {each.pool_name: UUID(each.id) for each in config.datasets.values() if each.kind == "crucible"}
        found = []
        for zone in map(config.zones.__getitem__, started):
            if zone.address is None:
                continue
            if zone.kind == "crucible" and (dataset := datasets.get(str(zone.durable_pool))) is not None:
                found.append(ZoneServer(zone.address, dataset))
            elif zone.kind == "crucible_pantry":
                found.append(ZoneServer(zone.address, None))
        return tuple(found)

    def _serve(self) -> None:
        """Say whose addresses are to be listened at, if that has changed and there are servers beside this sled."""
        servers = self.zone_servers()
        if servers != self._serving and self.estate.sled.regions is not None:
            self._serving = servers
            self.estate.effects.append(ServeZones(self.estate.sled_id, servers))

    def _leaving(self, new: OmicronConfig) -> set[str]:
        """Datasets that a new configuration has no more, or elsewhere."""
        return {
            each.id
            for each in (() if self.ledgered is None else self.ledgered.datasets.values())
            if each.kind not in ZONE_OWNED
            and (each.id not in new.datasets or new.datasets[each.id].pool_name != each.pool_name)
        }

    # --- restarts ---------------------------------------------------------------------------------------------------

    def dump(self) -> Any:
        return {
            "ledgered": None if self.ledgered is None else self.ledgered.wire,
            "pool_of": [[*identity, pool] for identity, pool in sorted(self.pool_of.items())],
            "override": self.override,
            "boot_slot": self.boot_slot,
            "slots": _dump_images(self.slots),
            "images": _dump_images(self.images),
        }

    def load(self, kept: Any) -> None:
        self.pool_of = {(vendor, model, serial): pool for vendor, model, serial, pool in kept["pool_of"]}
        self.override = kept["override"]
        self.boot_slot = kept["boot_slot"]
        self.slots = _load_images(kept["slots"])
        self.images = _load_images(kept["images"])
        if kept["ledgered"] is not None:
            self.ledgered = OmicronConfig(kept["ledgered"])
            self._start()  # a sled that starts again reconciles what it has ledgered


def _dump_images(images: Mapping[str, Image]) -> dict[str, Any]:
    return {name: attrs.asdict(image) | {"data_sha256": image.data_sha256.hex()} for name, image in images.items()}


def _load_images(kept: Mapping[str, Any]) -> dict[str, Image]:
    return {
        name: Image(**{**image, "data_sha256": bytes.fromhex(image["data_sha256"])}) for name, image in kept.items()
    }


def drop_files(estate: Estate, *keys: str) -> None:
    """Say that nobody refers to the stored bytes of these keys any more."""
    estate.effects.append(DropFiles(estate.sled_id, keys))
