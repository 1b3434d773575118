"""Areas that keep something over a restart (`--state-dir`): what an earlier process left is read of all of them
before a daemon serves anybody.

Read before: core/estate.py, daemon/state_dir.py. Read next: daemon/daemon.py.
"""

from __future__ import annotations

from typing import Final

from sim_sled.core.artifacts.store import Artifacts
from sim_sled.core.bootstore.store import Bootstore
from sim_sled.core.bundles.store import Bundles
from sim_sled.core.companions import Companions
from sim_sled.core.estate import Area, Estate
from sim_sled.core.omicron_config.ledger import Ledger
from sim_sled.core.storage.local import LocalStorage
from sim_sled.core.trust_quorum.node import TrustQuorum

KEPT_AREAS: Final[tuple[type[Area], ...]] = (
    Artifacts, Bootstore, Bundles, Companions, Ledger, LocalStorage, TrustQuorum,
)  # fmt: skip
"""All that have a `kept_as`."""


def take_up(estate: Estate) -> None:
    """Every area of which there is something; what was beside a sled has been, if there is something beside it again.
    Raises whatever an area's `load` raises for what is none of its own.
    """
    for kind in KEPT_AREAS:
        if kind.kept_as in estate.kept and kind is not Companions:
            estate.of(kind)
