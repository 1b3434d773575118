"""Support bundles of one sled: which there are and how far each is (SR 4.1). The bytes are the shell's.

A bundle lies in a dataset of the ledgered configuration. What a client transfers goes to the bytes of
`temporary_key`; a bundle that is finalised is those of `complete_key`.

Read before: core/omicron_config/ledger.py.
Read next: core/facts.py, core/omicron_config/configure.py, http/bundles.py.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import attrs

from sim_sled.core.errors import BadRequest, Internal, Missing, NoNestedDataset, TooMany
from sim_sled.core.estate import Area, Estate
from sim_sled.core.omicron_config.ledger import Ledger, drop_files
from sim_sled.core.omicron_config.values import ZONE_OWNED

BUNDLES_MAX: Final = 10_000
"""In one dataset: Nexus keeps a handful; it bounds a client that runs wild."""

QUOTA: Final = 100 * 2**30
"""Bytes of one bundle: the quota of a debug dataset (SR 4.1)."""


@attrs.frozen
class Where:
    """A dataset of a pool, as the path says."""

    zpool_id: UUID
    dataset_id: UUID

    @property
    def key(self) -> str:
        """Beginning of the keys of all bytes in it."""
        return f"bundles/{self.dataset_id}/"


def temporary_key(where: Where, bundle: UUID) -> str:
    return f"{where.key}{bundle}.zip.tmp"


def complete_key(where: Where, bundle: UUID) -> str:
    return f"{where.key}{bundle}.zip"


@attrs.define
class Bundle:
    """`sha256`: of the complete bundle, None until it is; `temporary`: a transfer may go on.

    `round` counts starts, `writes` transfers: what takes time says which of them it belongs to when it ends.
    """

    temporary: bool = False
    sha256: str | None = None
    round: int = 0
    writes: int = 0

    @property
    def state(self) -> str:
        return "incomplete" if self.sha256 is None else "complete"


class Bundles(Area):
    """The support bundles, by dataset. `mismatches_left`: so many finalisations find another hash (SR 8)."""

    kept_as = "support-bundles"

    def __init__(self, estate: Estate) -> None:
        super().__init__(estate)
        self.of_dataset: dict[str, dict[UUID, Bundle]] = {}
        self.mismatches_left = 0
        self.unmounted: set[str] = set()
        """Datasets that are in the configuration and all the same not there (SR 8)."""
        self.unmounted_kinds: frozenset[str] = frozenset()
        """The same, for all of a kind."""

    def list(self, where: Where) -> list[tuple[UUID, str]]:
        """Bundles by id, with their states."""
        there = self._in(where)
        return [(key, there[key].state) for key in sorted(there)]

    def start(self, where: Where, bundle_id: UUID) -> str:
        """Begin a bundle, or begin it again; a complete one stays as it is. Returns its state."""
        there = self._in(where)
        bundle = there.get(bundle_id)
        if bundle is None:
            if len(there) >= BUNDLES_MAX:
                raise TooMany(f"more than {BUNDLES_MAX} support bundles in one dataset")
            bundle = self.of_dataset.setdefault(str(where.dataset_id), there)[bundle_id] = Bundle()
        if bundle.sha256 is None:
            bundle.temporary = True
            bundle.round += 1
            drop_files(self.estate, temporary_key(where, bundle_id))
        self.changed()
        return bundle.state

    def check_transfer(self, where: Where, bundle_id: UUID) -> int:
        """Whether bytes may be written now, and in which round. Raises `Missing`, `Internal`."""
        bundle = self._bundle(where, bundle_id)
        if not bundle.temporary:
            raise Internal(f"bundle {bundle_id} was not started, or its transfer broke off")
        bundle.writes += 1
        return bundle.round

    def transferred(self, where: Where, bundle_id: UUID, of_round: int) -> str:
        """All bytes of one transfer are there."""
        bundle = self._bundle(where, bundle_id)
        if not bundle.temporary or bundle.round != of_round:
            raise Internal(f"bundle {bundle_id} was given up in the meantime")
        return "incomplete"

    def broke_off(self, where: Where, bundle_id: UUID, of_round: int) -> None:
        """A transfer ended half way: what came of it is worthless.

        One that was started again since is not touched: the end of a connection may be noticed late.
        """
        bundle = self.of_dataset.get(str(where.dataset_id), {}).get(bundle_id)
        if bundle is None or not bundle.temporary or bundle.round != of_round:
            return
        bundle.temporary = False
        drop_files(self.estate, temporary_key(where, bundle_id))
        self.changed()

    def check_finalize(self, where: Where, bundle_id: UUID, sha256: str) -> tuple[int, int] | None:
        """Which bytes are to be hashed; None: the bundle is complete already, with this hash.

        Raises `Missing`, `BadRequest` for another hash, `Internal` where there is nothing to finalise.
        """
        bundle = self._bundle(where, bundle_id)
        if bundle.temporary:
            return bundle.round, bundle.writes
        if bundle.sha256 is None:
            raise Internal(f"bundle {bundle_id} has nothing to be finalised")
        if bundle.sha256 != sha256:
            raise BadRequest("Hash mismatch")
        return None  # a repeated finalise is no error (SA 6 #32)

    def finalize(self, where: Where, bundle_id: UUID, wanted: str, found: str, which: tuple[int, int]) -> None:
        """The bytes of `check_finalize` have the hash `found`.

        Raises `BadRequest` if that is not the one that was announced, and the transfer may go on; `Internal` if they
        are not the same bytes any more.
        """
        bundle = self._bundle(where, bundle_id)
        if not bundle.temporary or which != (bundle.round, bundle.writes):
            raise Internal(f"bundle {bundle_id} was given up or written to in the meantime")
        if self.mismatches_left > 0:
            self.mismatches_left -= 1
            raise BadRequest("Hash mismatch")
        if wanted != found:
            raise BadRequest("Hash mismatch")
        bundle.temporary, bundle.sha256 = False, found
        self.changed()

    def check_read(self, where: Where, bundle_id: UUID) -> None:
        """Whether the bundle can be read. Raises `Missing`, `Internal` for one that is not complete."""
        if self._bundle(where, bundle_id).sha256 is None:
            raise Internal(f"bundle {bundle_id} is not complete")

    def delete(self, where: Where, bundle_id: UUID) -> None:
        """Raises `NoNestedDataset` for an unknown bundle: Nexus takes that, and that alone, for gone."""
        there = self._in(where)
        if bundle_id not in there:
            raise NoNestedDataset(f"no bundle {bundle_id}")
        del there[bundle_id]
        drop_files(self.estate, temporary_key(where, bundle_id), complete_key(where, bundle_id))
        self.changed()

    def datasets_left(self, dataset_ids: set[str]) -> None:
        """These datasets are not in the configuration any more: their bundles go with them."""
        for dataset_id in sorted(dataset_ids & self.of_dataset.keys()):
            del self.of_dataset[dataset_id]
            drop_files(self.estate, f"bundles/{dataset_id}/")
            self.changed()

    # --- checks that come first -------------------------------------------------------------------------------------

    def _in(self, where: Where) -> dict[UUID, Bundle]:
        """Bundles of a dataset. Raises, in this order: `Missing` without a configuration or dataset, `Internal` for
        another pool, `Missing` for a zone's own dataset, `Internal` for one that is not mounted.
        """
        ledgered = self.estate.of(Ledger).ledgered
        if ledgered is None:
            raise Missing("no sled configuration")
        dataset = ledgered.datasets.get(str(where.dataset_id))
        if dataset is None:
            raise Missing(f"no dataset {where.dataset_id} in the sled configuration")
        if dataset.pool_name.partition("_")[2] != str(where.zpool_id):
            raise Internal(f"dataset {where.dataset_id} is on {dataset.pool_name}")
        if dataset.kind in ZONE_OWNED:
            raise Missing(f"dataset {where.dataset_id} belongs to a zone")
        if str(where.dataset_id) in self.unmounted or dataset.kind in self.unmounted_kinds:
            raise Internal(f"dataset {where.dataset_id} is not mounted")
        return self.of_dataset.get(str(where.dataset_id), {})

    def _bundle(self, where: Where, bundle_id: UUID) -> Bundle:
        bundle = self._in(where).get(bundle_id)
        if bundle is None:
            raise Missing(f"no bundle {bundle_id}")
        return bundle

    # --- restarts ---------------------------------------------------------------------------------------------------

    def dump(self) -> Any:
        return {
            dataset_id: {str(key): [each.temporary, each.sha256] for key, each in sorted(there.items())}
            for dataset_id, there in sorted(self.of_dataset.items())
        }

    def load(self, kept: Any) -> None:
        self.of_dataset = {
            dataset_id: {UUID(key): Bundle(temporary, sha256) for key, (temporary, sha256) in there.items()}
            for dataset_id, there in kept.items()
        }
