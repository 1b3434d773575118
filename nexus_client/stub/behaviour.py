"""The few places in which Nexus's behaviour is a single judgement, collected so that a wrong variant can differ in
one.

`Behaviour` is the right one (NX); variants.py has the deliberately wrong ones.
"""

from __future__ import annotations

from nexus_client.stub import update_decision
from nexus_client.stub.public_state import PublicState, public_state
from nexus_client.stub.records import (
    DESTROYABLE,
    AutoRestartPolicy,
    Instance,
    InstanceDbState,
    IntendedState,
    Migration,
    Vmm,
    VmmDbState,
)
from nexus_client.stub.rules import Rules, RuleSet
from nexus_client.stub.sagas.nodes import Decision


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
        self, rules: Rules, instance: Instance, active: Vmm | None, target: Vmm | None, migration: Migration | None
    ) -> Decision | None:
        return update_decision.decide(rules, instance, active, target, migration)

    def may_delete(self, instance: Instance) -> bool:
        """Nothing may run: no active id (NX 4.1)."""
        return instance.active_propolis_id is None

    def is_abandoned(self, rules: Rules, vmm: Vmm, instance: Instance | None) -> bool:
        """May the reaper delete this undeleted VMM (NX 5.4)?"""
        destroyable = DESTROYABLE if rules.failed_is_terminal else DESTROYABLE - {VmmDbState.FAILED}
        linked = () if instance is None else (instance.active_propolis_id, instance.target_propolis_id)
        return vmm.state in destroyable and vmm.id not in linked

    def may_auto_restart(self, instance: Instance, active: Vmm | None, cooldown_us: int, now_us: int) -> bool:
        """Eligibility of NX 2; `cooldown_us` is the default, the instance's own wins."""
        failed = instance.state is InstanceDbState.FAILED and instance.active_propolis_id is None
        unwound = active is not None and active.state is VmmDbState.SAGA_UNWOUND
        own = instance.auto_restart_cooldown_us
        last = instance.time_last_auto_restarted
        return (
            (failed or unwound)
            and instance.intended_state is IntendedState.RUNNING
            and instance.auto_restart_policy is not AutoRestartPolicy.NEVER
            and (last is None or now_us >= last + (cooldown_us if own is None else own))
            and instance.updater_id is None
            and instance.time_deleted is None
        )
