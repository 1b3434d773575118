"""What an instance-update saga decides to write: the blocks a to e of NX 5.2, as one pure function.

Read before: stub/records.py. Read next: stub/sagas/update.py.
"""

from __future__ import annotations

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
from nexus_client.stub.sagas.nodes import Decision
from nexus_client.types import MigrationState


def is_terminal(rules: Rules, vmm: Vmm | None) -> bool:
    """Over, as this rule set's update saga sees it. SagaUnwound never is: only the reaper treats it like
    Destroyed.
    """
    if vmm is None:
        return False
    return vmm.state in TERMINAL if rules.failed_is_terminal else vmm.state is VmmDbState.DESTROYED


def decide(
    rules: Rules, instance: Instance, active: Vmm | None, target: Vmm | None, migration: Migration | None
) -> Decision | None:
    """The update that is due, or None. `active`, `target`: undeleted records; `migration`: by the instance's id."""
    active_over = is_terminal(rules, active)
    target_over = is_terminal(rules, target)
    failed = migration is not None and MigrationState.FAILED in (migration.source_state, migration.target_state)
    completed = (
        migration is not None
        and not failed
        and MigrationState.COMPLETED in (migration.source_state, migration.target_state)
    )

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
        # A target that an earlier saga has destroyed (no sled kept property 10, or Nexus itself failed the VMM) has
        # no
        # record left to point to: the active id stays what block a made of it.
        if target is not None and new_active != migration.target_propolis_id:
            new_active = migration.target_propolis_id
            network_to = target.sled_id
        if target_over:
            new_active = network_to = None
        if migration.target_state is MigrationState.COMPLETED:
            # only now: no migration out of the target may begin while the migration in is unfinished
            new_migration = new_target = None
            if rules.head and not target_over and target is not None:
                swap = (migration.source_propolis_id, migration.target_propolis_id)

    state = InstanceDbState.VMM if new_active is not None else instance.state
    if new_active is None and instance.active_propolis_id is not None:  # block d
        state = InstanceDbState.FAILED if has_failed else InstanceDbState.NO_VMM
        network_to = None
    changed = (
        new_active != instance.active_propolis_id
        or new_target != instance.target_propolis_id
        or new_migration != instance.migration_id
        or target_over
    )
    if not changed:  # block e
        return None
    return Decision(
        state=state,
        active=new_active,
        target=new_target,
        migration=new_migration,
        intended=intended,
        network_to=network_to,
        deprovision=new_active is None and instance.active_propolis_id is not None,
        destroy_active=active.id if active_over and active is not None else None,
        destroy_target=target.id if target_over and target is not None else None,
        swap=swap,
    )
