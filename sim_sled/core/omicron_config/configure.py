"""A sled is configured: its ledger takes the configuration, and what others have to do with it is asked and told.

Read before: core/artifacts/store.py, core/bundles/store.py, core/omicron_config/ledger.py.
"""

from __future__ import annotations

from sim_sled.core.artifacts.store import Artifacts
from sim_sled.core.bundles.store import Bundles
from sim_sled.core.errors import BadRequest
from sim_sled.core.omicron_config.ledger import Ledger
from sim_sled.core.omicron_config.values import OmicronConfig


def put(ledger: Ledger, config: OmicronConfig) -> None:
    """Take a configuration (SR 3.1). Raises `BadRequest`: one that `Ledger.is_new` refuses, or artifacts that are not
    in the store, where the ledger is strict about them.
    """
    if not ledger.is_new(config):
        return
    if ledger.strict_artifacts:
        missing = sorted(config.artifacts - ledger.estate.of(Artifacts).complete())
        if missing:
            raise BadRequest(f"sled config is invalid: artifacts are not in the store: {', '.join(missing)}")
    left = ledger.take(config)
    if left:  # what is nested in them goes along
        ledger.estate.of(Bundles).datasets_left(left)
