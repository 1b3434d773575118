"""Actions on what a sled has beside its VMMs (SR 8).

Read before: core/facts.py, engine/act/firing.py. Read next: engine/act/__init__.py.
"""

from __future__ import annotations

from typing import TypeVar

from sim_sled.core import contract
from sim_sled.core.crucible.values import RegionState
from sim_sled.core.estate import ESTATE
from sim_sled.engine.act.firing import NOBODY, Firing, Needs, does
from sim_sled.language.actions import SetFacts

K = TypeVar("K", int, str)


@does(SetFacts, needs=Needs.SLED)
def set_facts(firing: Firing, action: SetFacts) -> None:
    """One call on the sled's estate; what of it cannot be set is told, and nothing is."""
    from sim_sled.core import facts  # noqa: PLC0415 -- it brings every area of a sled along, and few rules need one

    assert firing.sled is not None, "needed"
    wanted = facts.SetFacts(
        reconcile_us=action.reconciler,
        time_synchronized=action.time_synchronized,
        missing_disks=action.missing_disks,
        pool_health=_mapping(action.pools),
        disks=_mapping(action.disks),
        datasets=_mapping(action.datasets),
        zones=_mapping(action.zones),
        keeps_orphans=action.orphans,
        m2_disks=action.m2_disks,
        unmounted=action.unmounted,
        hash_mismatches=action.hash_mismatches,
        local_storage_errors=action.local_storage_errors,
        trust_quorum_silent=action.trust_quorum_silent,
        bootstore_strict=action.bootstore_strict,
        crucible=None if action.crucible is None else action.crucible.knobs(),
        regions=None if action.regions is None else RegionState(action.regions),
        pantry=None if action.pantry is None else action.pantry.knobs(),
        volumes_taken_over=action.volumes_taken_over,
        depot_broken=action.depot_broken,
    )
    firing.inject(contract.CallArea(NOBODY, firing.sled.id, ESTATE, wanted), action)


def _mapping(pairs: tuple[tuple[K, str], ...] | None) -> dict[K, str] | None:
    return None if pairs is None else dict(pairs)
