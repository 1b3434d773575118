"""The few places in which Nexus's behaviour is a single judgement, collected so that a wrong variant can differ in
one.

`Behaviour` is the right one (NX); variants.py has the deliberately wrong ones.

Read before: stub/auto_restart.py.
"""

from __future__ import annotations

from nexus_client.stub import update_decision
from nexus_client.stub.auto_restart import may_restart, needs_restart
from nexus_client.stub.hazards import DEFAULT, Hazard
from nexus_client.stub.public_state import PublicState, public_state
from nexus_client.stub.records import (
    DESTROYABLE,
    Instance,
    InstanceDbState,
    Migration,
    Vmm,
    VmmDbState,
)
from nexus_client.stub.rules import Rules, RuleSet
from nexus_client.stub.sagas.state import Decision


def is_destroyable(rules: Rules, state: VmmDbState) -> bool:
    """The record may be marked deleted once nothing points to it (NX 1.1)."""
    return state in DESTROYABLE and (rules.failed_is_terminal or state is not VmmDbState.FAILED)


class Behaviour:
    """Nexus as NX describes it."""

    name: str | None = None
    checks_vmms: bool = True
    """The health check asks sleds (NX 4.5)."""
    runs_updater: bool = True
    """The updater task finds missed updates (NX 5.4)."""
    locks: bool = True
    """An update saga holds the updater lock and commits only under it (NX 5.3)."""

    def is_news(self, stored_gen: int, new_gen: int) -> bool:
        """The guard of all three generations: strictly newer (NX 3.2)."""
        return stored_gen < new_gen

    def public_state(
        self, rules: RuleSet, state: InstanceDbState, active: VmmDbState | None, *, migrating: bool
    ) -> PublicState:
        return public_state(rules, state, active, migrating=migrating)

    def decide(
        self,
        rules: Rules,
        instance: Instance,
        active: Vmm | None,
        target: Vmm | None,
        migration: Migration | None,
        *,
        hazards: frozenset[Hazard] = DEFAULT,
    ) -> Decision | None:
        return update_decision.decide(rules, instance, active, target, migration, hazards=hazards)

    def may_delete(self, instance: Instance) -> bool:
        """Nothing may run: no active id (NX 4.1)."""
        return instance.active_propolis_id is None

    def is_abandoned(self, rules: Rules, vmm: Vmm, instance: Instance | None) -> bool:
        """May the reaper delete this undeleted VMM (NX 5.4)?"""
        linked = () if instance is None else (instance.active_propolis_id, instance.target_propolis_id)
        return is_destroyable(rules, vmm.state) and vmm.id not in linked

    def may_auto_restart(self, instance: Instance, active: Vmm | None, cooldown_us: int, now_us: int) -> bool:
        """Eligibility of NX 2; `cooldown_us` is the default, the instance's own wins."""
        return (
            needs_restart(instance, active)
            and may_restart(instance, cooldown_us, now_us).now
            and instance.updater_id is None
            and instance.time_deleted is None
        )
