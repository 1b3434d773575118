"""Actions on what a sled has beside its VMMs (SR 8).

Read before: core/facts.py, engine/act/firing.py. Read next: daemon/sled_facts.py, engine/act/__init__.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sim_sled.core import contract
from sim_sled.core.crucible.values import RegionState
from sim_sled.core.estate import ESTATE
from sim_sled.engine.act.firing import NOBODY, Firing, Needs, does
from sim_sled.language.actions import SetFacts
from sim_sled.language.figures import FOREVER

if TYPE_CHECKING:
    from sim_sled.core import facts

K = TypeVar("K", int, str)


@does(SetFacts, needs=Needs.SLED)
def set_facts(firing: Firing, action: SetFacts) -> None:
    """One call on the sled's estate; what of it cannot be set is told, and nothing is."""
    assert firing.sled is not None, "needed"
    firing.inject(contract.CallArea(NOBODY, firing.sled.id, ESTATE, wanted(action)), action)


def wanted(action: SetFacts) -> facts.SetFacts:
    """What the language says, as a call on a sled's estate."""
    from sim_sled.core import facts  # noqa: PLC0415 -- it brings every area of a sled along, and few rules need one

    return facts.SetFacts(
        reconcile_us=action.reconciler,
        time_synchronized=action.time_synchronized,
        missing_disks=action.missing_disks,
        pool_health=_mapping(action.pools),
        disks=_mapping(action.disks),
        datasets=_mapping(action.datasets),
        zones=_mapping(action.zones),
        keeps_orphans=action.orphans,
        pool_sizes=None if action.pool_sizes is None else dict(action.pool_sizes),
        boot_slot=action.boot_slot,
        boot_disk=action.boot_disk,
        slots=_mapping(action.slots),
        override=action.mupdate_override,
        services=_mapping(action.services),
        fmd=action.fmd,
        strict_artifacts=action.strict_artifacts,
        m2_disks=action.m2_disks,
        unmounted=action.unmounted,
        hash_mismatches=action.hash_mismatches,
        local_storage_errors=action.local_storage_errors,
        trust_quorum_silent=action.trust_quorum_silent,
        trust_quorum_pending=action.trust_quorum_pending,
        bootstore_strict=action.bootstore_strict,
        crucible=None if action.crucible is None else action.crucible.knobs(),
        regions=RegionState(action.regions) if isinstance(action.regions, str) else None,
        some_regions={name: RegionState(state) for name, state in action.regions}
        if isinstance(action.regions, tuple)
        else None,
        broken_downstairs=None
        if action.broken_downstairs is None
        else {name: None if us == FOREVER else us for name, us in action.broken_downstairs},
        pantry=None if action.pantry is None else action.pantry.knobs(),
        volumes_taken_over=action.volumes_taken_over,
        depot_broken=action.depot_broken,
    )


def _mapping(pairs: tuple[tuple[K, str], ...] | None) -> dict[K, str] | None:
    return None if pairs is None else dict(pairs)
