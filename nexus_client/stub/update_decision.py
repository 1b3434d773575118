"""What an instance-update saga decides to write: the blocks a to e of NX 5.2, as one pure function.

Read before: stub/hazards.py, stub/records.py. Read next: stub/sagas/update.py.
"""

from __future__ import annotations

from nexus_client.stub.hazards import DEFAULT, Hazard, NexusPanicked
from nexus_client.stub.records import (
    TERMINAL,
    Instance,
    InstanceDbState,
    IntendedState,
    Migration,
    Vmm,
    VmmDbState,
)
from nexus_client.stub.rules import Rules
from nexus_client.stub.sagas.state import Decision
from nexus_client.types import MigrationState


def is_terminal(rules: Rules, vmm: Vmm | None) -> bool:
    """Over, as this rule set's update saga sees it. SagaUnwound never is: only the reaper treats it like
    Destroyed.
    """
    if vmm is None:
        return False
    return vmm.state in TERMINAL if rules.failed_is_terminal else vmm.state is VmmDbState.DESTROYED


def decide(
    rules: Rules,
    instance: Instance,
    active: Vmm | None,
    target: Vmm | None,
    migration: Migration | None,
    *,
    hazards: frozenset[Hazard] = DEFAULT,
) -> Decision | None:
    """The update that is due, or None. `active`, `target`: undeleted records; `migration`: by the instance's id.

    Raises `NexusPanicked` where the original does, if that hazard is on.
    """
    active_over = is_terminal(rules, active)
    target_over = is_terminal(rules, target)
    failed = migration is not None and migration.either_side_failed
    completed = migration is not None and not failed and migration.either_side_completed

    # block a: the active VMM is over
    new_active = None if active_over else instance.active_propolis_id
    has_failed = active_over and active is not None and active.state is VmmDbState.FAILED
    intended = None
    if rules.head and active_over and not has_failed and migration is None:
        # the guest shut itself down; with a migration the source going away means nothing
        intended = IntendedState.GUEST_SHUTDOWN if instance.intended_state is IntendedState.RUNNING else None
    # block b: the target VMM is over
    new_target = None if target_over else instance.target_propolis_id
    new_migration = instance.migration_id
    network_to = None
    swap = None
    if failed:  # block c1: failed beats completed
        new_migration = new_target = None
        if not active_over and active is not None:
            network_to = active.sled_id
    elif completed and migration is not None:  # block c2
        if new_active != migration.target_propolis_id:
            if target is None:
                return _without_target(instance, active, active_over, hazards)
            new_active = migration.target_propolis_id
            network_to = target.sled_id
        if target_over:
            new_active = None
        if migration.target_state is MigrationState.COMPLETED:
            # only now: no migration out of the target may begin while the migration in is unfinished
            new_migration = new_target = None
            if rules.head:
                swap = (migration.source_propolis_id, migration.target_propolis_id)

    before = (instance.active_propolis_id, instance.target_propolis_id, instance.migration_id)
    if (new_active, new_target, new_migration) == before:  # block e
        return None
    state = InstanceDbState.VMM
    if new_active is None:  # block d, also if there was no active VMM before
        stays = instance.state is InstanceDbState.FAILED and Hazard.LATE_HALF_STOPS_FAILED not in hazards
        state = InstanceDbState.FAILED if has_failed or stays else InstanceDbState.NO_VMM
    return Decision(
        state=state,
        active=new_active,
        target=new_target,
        migration=new_migration,
        intended=intended,
        network_to=None if new_active is None else network_to,
        deprovision=new_active is None,
        destroy_active=active.id if active_over and active is not None else None,
        destroy_target=target.id if target_over and target is not None else None,
        swap=swap,
    )


def _without_target(
    instance: Instance, active: Vmm | None, active_over: bool, hazards: frozenset[Hazard]
) -> Decision | None:
    """The guest has moved to a VMM whose record is gone: Nexus itself gave that VMM up (NX 5.2, hazard 1).

    Hazard off: a source that still lives goes away by itself, and until then there is nothing to do; then the
    instance has lost its only guest, so it is Failed and may be restarted. Without any VMM the old migration is
    forgotten, or it would show and hinder the next one for ever.
    """
    if Hazard.PANIC_WITHOUT_TARGET in hazards:
        raise NexusPanicked("if we have gotten here, there must be a target VMM")
    if instance.active_propolis_id is not None and not active_over:
        return None
    return Decision(
        state=InstanceDbState.FAILED if active_over else instance.state,
        active=None,
        target=None,
        migration=None,
        deprovision=True,
        destroy_active=active.id if active_over and active is not None else None,
    )
