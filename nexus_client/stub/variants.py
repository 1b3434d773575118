"""Deliberately wrong variants of Nexus, for testing tests and other people's checkers.

Each differs from `Behaviour` in one judgement; `breaks` names the properties of NX 7 that fail with it. A run with a
variant says so in its start message: nothing that follows is how Nexus behaves.
"""

# A variant overrides a judgement and mostly does not look at what it should have looked at.
# ruff: noqa: ARG002
from __future__ import annotations

from typing import Final

import attrs

from nexus_client.stub.behaviour import Behaviour
from nexus_client.stub.hazards import DEFAULT, Hazard
from nexus_client.stub.public_state import PublicState
from nexus_client.stub.records import (
    Instance,
    InstanceDbState,
    Migration,
    Vmm,
    VmmDbState,
)
from nexus_client.stub.rules import Rules, RuleSet
from nexus_client.stub.sagas.state import Decision
from nexus_client.types import MigrationState


class WrongBehaviour(Behaviour):
    name = "wrong"
    breaks: tuple[int, ...] = ()


class NoWatcher(WrongBehaviour):
    """The health check never asks: a VMM whose sled has lost it lives for ever."""

    name = "no-watcher"
    breaks = (36,)
    checks_vmms = False


class NoUpdater(WrongBehaviour):
    """The updater task finds nothing: an update lost in a crash stays lost."""

    name = "no-updater"
    breaks = (36,)
    runs_updater = False


class SourceWins(WrongBehaviour):
    """After a successful migration the record still points to the source."""

    name = "source-wins"
    breaks = (41, 50)

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
        right = super().decide(rules, instance, active, target, migration, hazards=hazards)
        if right is None or active is None or migration is None or active.id != migration.source_propolis_id:
            return right
        if MigrationState.COMPLETED not in (migration.source_state, migration.target_state):
            return right
        if right.active != migration.target_propolis_id or right.destroy_active is not None:
            return right
        wrong = attrs.evolve(right, active=active.id, network_to=active.sled_id, swap=None)
        same = (wrong.target, wrong.migration) == (instance.target_propolis_id, instance.migration_id)
        return None if same else wrong  # without a change there would be one saga after the other


class ForgetsMigration(WrongBehaviour):
    """The public state is the active VMM's own, migration or not."""

    name = "forgets-migration"
    breaks = (40,)

    def public_state(
        self, rules: RuleSet, state: InstanceDbState, active: VmmDbState | None, *, migrating: bool
    ) -> PublicState:
        return super().public_state(rules, state, active, migrating=False)


class AcceptsEqualGeneration(WrongBehaviour):
    """A repeated report is news."""

    name = "accepts-equal-generation"
    breaks = (32, 33)

    def is_news(self, stored_gen: int, new_gen: int) -> bool:
        return stored_gen <= new_gen


class StoppedTooEarly(WrongBehaviour):
    """A destroyed VMM shows as `stopped` before it is unlinked, as at #5854."""

    name = "stopped-too-early"
    breaks = (38,)

    def public_state(
        self, rules: RuleSet, state: InstanceDbState, active: VmmDbState | None, *, migrating: bool
    ) -> PublicState:
        if state is InstanceDbState.VMM and active in (VmmDbState.DESTROYED, VmmDbState.STOPPED) and not migrating:
            return PublicState.STOPPED
        return super().public_state(rules, state, active, migrating=migrating)


class UnlockedSaga(WrongBehaviour):
    """Update sagas neither lock nor guard their commit."""

    name = "unlocked-saga"
    breaks = (31, 34, 35)
    locks = False


class RestartsStopped(WrongBehaviour):
    """Auto-restart does not ask what the user wants."""

    name = "restarts-stopped"
    breaks = (46,)

    def may_auto_restart(self, instance: Instance, active: Vmm | None, cooldown_us: int, now_us: int) -> bool:
        failed = instance.state is InstanceDbState.FAILED and instance.active_propolis_id is None
        return failed and instance.updater_id is None and instance.time_deleted is None


class DeletesRunning(WrongBehaviour):
    """Delete does not ask whether a VMM is active."""

    name = "deletes-running"
    breaks = (47,)

    def may_delete(self, instance: Instance) -> bool:
        return True


class LazyReaper(WrongBehaviour):
    """SagaUnwound VMMs are never reaped."""

    name = "lazy-reaper"
    breaks = (43,)

    def is_abandoned(self, rules: Rules, vmm: Vmm, instance: Instance | None) -> bool:
        return vmm.state is not VmmDbState.SAGA_UNWOUND and super().is_abandoned(rules, vmm, instance)


class FailedIsStopped(WrongBehaviour):
    """An instance whose VMM failed ends as if the guest had stopped."""

    name = "failed-is-stopped"
    breaks = (37,)

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
        right = super().decide(rules, instance, active, target, migration, hazards=hazards)
        if right is not None and right.state is InstanceDbState.FAILED:
            return attrs.evolve(right, state=InstanceDbState.NO_VMM)
        return right


VARIANTS: Final[dict[str, type[WrongBehaviour]]] = {
    str(variant.name): variant
    for variant in (
        NoWatcher,
        NoUpdater,
        SourceWins,
        ForgetsMigration,
        AcceptsEqualGeneration,
        StoppedTooEarly,
        UnlockedSaga,
        RestartsStopped,
        DeletesRunning,
        LazyReaper,
        FailedIsStopped,
    )
}


def behaviour_of(variant: str | None) -> Behaviour:
    """The right behaviour for None. Raises KeyError with the known names for an unknown one."""
    if variant is None:
        return Behaviour()
    if variant not in VARIANTS:
        raise KeyError(f"no variant {variant!r}; there are: {', '.join(sorted(VARIANTS))}")
    return VARIANTS[variant]()
