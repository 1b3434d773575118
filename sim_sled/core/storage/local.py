"""Local storage: datasets with a volume in a pool, for disks of VMs that are not Crucible's (SR 3.4).

Read before: core/omicron_config/ledger.py. Read next: core/facts.py.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import attrs

from sim_sled.core.errors import Internal, NotSupported, NotYetThere, TooMany
from sim_sled.core.estate import Area, Estate
from sim_sled.core.omicron_config.ledger import Ledger

DATASETS_MAX: Final = 100_000
"""Of one sled: far more than its VMs could attach, twelve each (SR 7.7); it bounds a client that runs wild."""


@attrs.frozen
class LocalDataset:
    """Sizes in bytes."""

    dataset_size: int
    volume_size: int


class LocalStorage(Area):
    """The local storage of one sled. `errors_left`: so many calls are answered 503 (SR 8)."""

    kept_as = "local-storage"

    def __init__(self, estate: Estate) -> None:
        super().__init__(estate)
        self.datasets: dict[tuple[str, str], LocalDataset] = {}  # by pool and id
        self.errors_left = 0

    def ensure(self, pool: UUID, dataset: UUID, wanted: LocalDataset, encrypted: bool) -> None:
        """Make a dataset and its volume, or find them there.

        Raises, in this order: `NotSupported` for an encrypted one, `NotYetThere` for a pool without a place for it,
        `Internal` for a volume of another size.
        """
        if encrypted:
            raise NotSupported("using encrypted local storage not supported")
        self._place(pool, "local_storage_unencrypted", "local storage unencrypted dataset")
        key = (str(pool), str(dataset))
        there = self.datasets.get(key)
        if there is not None and there.volume_size != wanted.volume_size:
            raise Internal(f"volume of {dataset} has {there.volume_size} bytes, not {wanted.volume_size}")
        if there is None and len(self.datasets) >= DATASETS_MAX:
            raise TooMany(f"more than {DATASETS_MAX} local storage datasets")
        self.datasets[key] = wanted  # the parent's quota follows, the volume stays
        self.changed()

    def delete(self, pool: UUID, dataset: UUID, encrypted: bool) -> None:
        """Remove a dataset; one that is not there is no error: somebody else was quicker."""
        if encrypted:
            # may be deleted although nobody could make one: an agent of an older release could
            self._place(pool, "local_storage", "local storage dataset")
            return
        self._place(pool, "local_storage_unencrypted", "local storage unencrypted dataset")
        self.datasets.pop((str(pool), str(dataset)), None)
        self.changed()  # also if it has gone before: see Ledger.is_new

    def _place(self, pool: UUID, kind: str, what: str) -> None:
        """Raises `NotYetThere` if the pool has no dataset of this kind. A sled that nobody has configured takes what
        concerns its own pools: set-ups without a hand-off need no more.
        """
        if self.errors_left > 0:
            self.errors_left -= 1
            raise TooMany("somebody wants local storage to fail")
        ledger = self.estate.of(Ledger)
        if ledger.has_dataset(str(pool), kind):
            return
        if ledger.ledgered is None and str(pool) in ledger.pools():
            return
        raise NotYetThere(f"{what} for pool {pool} missing!")

    def dump(self) -> Any:
        return [[*key, each.dataset_size, each.volume_size] for key, each in sorted(self.datasets.items())]

    def load(self, kept: Any) -> None:
        self.datasets = {(pool, dataset): LocalDataset(size, volume) for pool, dataset, size, volume in kept}
