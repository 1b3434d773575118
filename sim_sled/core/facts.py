"""What may be wrong with a sled beside its VMMs, as one value that is set at once (SR 8).

`SetFacts` is a call on a sled's estate like any other (`contract.CallArea`): rules make it in every world. What
is None stays as it is. The reconciler runs again after each change that it depends on, as the real one does.

Read before: core/artifacts/store.py, core/bootstore/store.py, core/bundles/store.py, core/companions.py,
core/inventory.py, core/storage/local.py, core/trust_quorum/node.py.
Read next: engine/act/estate.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Final
from uuid import UUID

import attrs

from sim_sled.core.artifacts.store import Artifacts
from sim_sled.core.bootstore.store import Bootstore
from sim_sled.core.bundles.store import Bundles
from sim_sled.core.companions import Companions, Server
from sim_sled.core.crucible.values import RegionState
from sim_sled.core.errors import BadRequest
from sim_sled.core.estate import Estate, OnEstate
from sim_sled.core.inventory import FMD_WELL, Inventory
from sim_sled.core.mishaps import Adjust, BreakDownstairs, SetRegion
from sim_sled.core.omicron_config.ledger import Ledger
from sim_sled.core.storage.local import LocalStorage
from sim_sled.core.trust_quorum.node import TrustQuorum

WELL: Final = "ok"
"""As a text of `disks`, `datasets`, `zones`, `slots`, `boot_disk`, `fmd`: nothing is wrong with these any more."""

NONE: Final = "none"
"""As `override`: there is none."""


@attrs.frozen
class SetFacts(OnEstate[None]):
    """Kinds of datasets and zones are those of the API (`debug`, `internal_ntp`, ...); disks and pools are
    numbered from 1 in the order of the inventory; delays in microseconds.

    `pool_sizes` in bytes. `boot_slot`: `a` or `b`, from which M.2 disk the sled booted; `boot_disk`: why that is not
    known; `slots`: why a host phase 2 slot cannot be read or written. `override`: id of the MUPdate override on disk,
    or NONE. `services`: SMF services that are enabled and not online, by name, with their state: all there are.
    `fmd`: why the fault manager says nothing. `strict_artifacts`: configurations with artifacts that are not in the
    store are refused.

    `m2_disks`: on how many M.2 disks artifacts are written. `unmounted`: kinds of datasets whose bundles cannot be
    reached. `crucible`, `pantry`, `depot`: knobs of the servers beside the sled, by their names. `regions`: the state
    that all regions of the sled take; `some_regions`: that of single ones, by id or by number from 1 in the order of
    the datasets, then of their making. `broken_downstairs`: those whose downstairs stops now, named the same way, and
    how long their repair takes in microseconds; None: it is given up, and the region fails.
    """

    reconcile_us: int | None = None
    time_synchronized: bool | None = None
    missing_disks: tuple[int, ...] | None = None
    pool_health: Mapping[int, str] | None = None
    disks: Mapping[int, str] | None = None
    datasets: Mapping[str, str] | None = None
    zones: Mapping[str, str] | None = None
    keeps_orphans: bool | None = None
    m2_disks: int | None = None
    unmounted: tuple[str, ...] | None = None
    pool_sizes: Mapping[int, int] | None = None
    boot_slot: str | None = None
    boot_disk: str | None = None
    slots: Mapping[str, str] | None = None
    override: str | None = None
    services: Mapping[str, str] | None = None
    fmd: str | None = None
    strict_artifacts: bool | None = None
    hash_mismatches: int | None = None
    local_storage_errors: int | None = None
    trust_quorum_silent: bool | None = None
    trust_quorum_pending: bool | None = None
    bootstore_strict: bool | None = None
    crucible: Mapping[str, object] | None = None
    regions: RegionState | None = None
    some_regions: Mapping[str, RegionState] | None = None
    broken_downstairs: Mapping[str, int | None] | None = None
    pantry: Mapping[str, object] | None = None
    volumes_taken_over: bool | None = None
    depot_broken: bool | None = None

    def on(self, estate: Estate) -> None:
        """Raises `BadRequest` for a disk that the sled has not, or a knob of no server."""
        self._check(estate)
        self._reconciler(estate)
        self._stores(estate)
        self._beside(estate)

    def _check(self, estate: Estate) -> None:
        """Nothing is changed by what cannot be set."""
        ledger = estate.of(Ledger)
        for what, there, meant in (
            ("disks", len(ledger.disks()), (*(self.missing_disks or ()), *(self.disks or {}))),
            ("pools", len(ledger.pools()), (*(self.pool_health or {}), *(self.pool_sizes or {}))),
        ):
            for number in meant:
                if not 1 <= number <= there:
                    raise BadRequest(f"the sled has {there} {what}, none with the number {number}")
        if self._needs_servers and estate.sled.regions is None:
            raise BadRequest("there are no servers beside this sled")
        self._meant_regions(estate)
        for dataset, region_id, _ in self._broken(estate):
            region = estate.of(Companions).agents.agent(dataset).get(str(region_id))
            if region.state is not RegionState.CREATED:
                raise BadRequest(f"region {region_id} is {region.state.value}, nobody writes to it")

    @property
    def _needs_servers(self) -> bool:
        beside = (
            self.crucible, self.regions, self.some_regions, self.broken_downstairs, self.pantry,
            self.volumes_taken_over, self.depot_broken,
        )  # fmt: skip
        return any(each is not None for each in beside)

    def _meant_regions(self, estate: Estate) -> list[tuple[UUID, UUID, RegionState]]:
        """Dataset, id and new state of the regions that are to change. Raises `BadRequest` for one that is not there,
        or whose port another one has by now.
        """
        if self.regions is None and self.some_regions is None:
            return []
        there = _regions(estate)
        meant = {where: self.regions for where in there if self.regions is not None}
        for name, state in (self.some_regions or {}).items():
            meant[_named(there, name)] = state
        by_dataset: dict[UUID, dict[str, RegionState]] = {}
        for (dataset, region), state in meant.items():
            by_dataset.setdefault(dataset, {})[str(region)] = state
        for dataset, states in by_dataset.items():
            estate.of(Companions).agents.agent(dataset).check_states(states)
        return [(*where, state) for where, state in meant.items()]

    def _broken(self, estate: Estate) -> list[tuple[UUID, UUID, int | None]]:
        """Dataset and id of the regions whose downstairs stop, and how long their repair takes."""
        if self.broken_downstairs is None:
            return []
        there = _regions(estate)
        return [(*_named(there, name), repair_us) for name, repair_us in self.broken_downstairs.items()]

    def _reconciler(self, estate: Estate) -> None:
        ledger = estate.of(Ledger)
        faults = ledger.faults
        before = deepcopy(faults)
        serials = {number: key[2] for number, key in enumerate(ledger.disks(), 1)}
        pools = list(ledger.pools())
        if self.reconcile_us is not None:
            ledger.takes_us = self.reconcile_us
        if self.time_synchronized is not None:
            faults.time_synchronized = self.time_synchronized
        if self.missing_disks is not None:
            faults.missing_disks = {serials[number] for number in self.missing_disks}
        for number, why in (self.disks or {}).items():
            _set(faults.serials, serials[number], why)
        for kind, why in (*(self.datasets or {}).items(), *(self.zones or {}).items()):
            _set(faults.kinds, kind, why)
        if self.keeps_orphans is not None:
            faults.keeps_orphans = self.keeps_orphans
        for number, health in (self.pool_health or {}).items():
            estate.of(Inventory).pool_health[pools[number - 1]] = health
        for number, size in (self.pool_sizes or {}).items():
            ledger.resized[pools[number - 1]] = size
            ledger.world_changed()
        if self.boot_disk is not None:
            faults.boot_disk = None if self.boot_disk == WELL else self.boot_disk
        for slot, why in (self.slots or {}).items():
            _set(faults.slots, slot, why)
        if self.boot_slot is not None:
            ledger.boot_slot = self.boot_slot
        if self.override is not None:
            ledger.override = None if self.override == NONE else self.override
            ledger.world_changed()
        if self.strict_artifacts is not None:
            ledger.strict_artifacts = self.strict_artifacts
        if self.boot_slot is not None or self.override is not None:
            ledger.changed()
        if faults != before:
            ledger.world_changed()

    def _stores(self, estate: Estate) -> None:
        inventory = estate.of(Inventory)
        if self.services is not None:
            inventory.services = [
                {"fmri": name, "zone": "global", "state": state} for name, state in self.services.items()
            ]
        if self.fmd is not None:
            inventory.fmd = FMD_WELL if self.fmd == WELL else {"err": self.fmd}
        if self.m2_disks is not None:
            estate.of(Artifacts).disks = self.m2_disks
        if self.unmounted is not None:
            estate.of(Bundles).unmounted_kinds = frozenset(self.unmounted)
        if self.hash_mismatches is not None:
            estate.of(Bundles).mismatches_left = self.hash_mismatches
        if self.local_storage_errors is not None:
            estate.of(LocalStorage).errors_left = self.local_storage_errors
        if self.trust_quorum_silent is not None:
            estate.of(TrustQuorum).silent = self.trust_quorum_silent
        if self.trust_quorum_pending is not None:
            estate.of(TrustQuorum).pending = self.trust_quorum_pending
        if self.bootstore_strict is not None:
            estate.of(Bootstore).strict = self.bootstore_strict

    def _beside(self, estate: Estate) -> None:
        if not self._needs_servers:
            return
        companions = estate.of(Companions)
        for dataset in companions.datasets() if self.crucible is not None else ():
            companions.suffer(Adjust(Server.CRUCIBLE.value, tuple((self.crucible or {}).items()), dataset))
        for dataset_id, region_id, repair_us in self._broken(estate):
            mishap = BreakDownstairs(dataset_id, region_id, repair_us or 0, aborted=repair_us is None)
            companions.suffer(mishap)
        for dataset_id, region_id, state in self._meant_regions(estate):
            companions.suffer(SetRegion(dataset_id, region_id, state))
        if self.pantry is not None:
            companions.suffer(Adjust(Server.PANTRY.value, tuple(self.pantry.items())))
        if self.volumes_taken_over:
            for volume_id in list(companions.pantry.volumes):
                companions.pantry.take_over(volume_id)
        if self.depot_broken is not None:
            companions.suffer(Adjust(Server.REPO_DEPOT.value, (("broken", self.depot_broken),)))


def _regions(estate: Estate) -> list[tuple[UUID, UUID]]:
    """Dataset and id of all regions of the sled, as they are numbered."""
    companions = estate.of(Companions)
    return [
        (dataset, UUID(region_id))
        for dataset in companions.datasets()
        for region_id in companions.agents.agent(dataset).regions
    ]


def _named(there: list[tuple[UUID, UUID]], name: str) -> tuple[UUID, UUID]:
    """The region of this number or id. Raises `BadRequest`."""
    for number, where in enumerate(there, 1):
        if name.lower() in {str(number), str(where[1])}:
            return where
    raise BadRequest(f"the sled has {len(there)} regions, none is {name}")


def _set(where: dict[str, str], key: str, why: str) -> None:
    if why == WELL:
        where.pop(key, None)
    else:
        where[key] = why
