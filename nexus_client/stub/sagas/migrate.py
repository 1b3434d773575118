"""The instance-migrate saga: a target VMM, a migration record, and the ids that tie them together (NX 4.1, 4.3).

Read before: stub/sagas/start.py, stub/sagas/vmms.py. Read next: stub/actions.py.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from nexus_client.stub.contract import PutVmmState
from nexus_client.stub.records import Migration, VmmDbState, following
from nexus_client.stub.refusal import conflict
from nexus_client.stub.sagas import vmms
from nexus_client.stub.sagas.nodes import Ask, Node, Wish
from nexus_client.stub.sagas.state import MigrateSaga
from nexus_client.stub.scope import Scope
from nexus_client.types import Asked, InstanceMigrationTargetParams, MigrationState, VmmStateRequested


def _create_migration(ctx: Scope, saga: MigrateSaga) -> Wish:
    if saga.migration_id is None:
        saga.migration_id = ctx.new_id("migration")
    if saga.migration_id not in ctx.records.migrations:
        assert saga.source_propolis_id is not None
        ctx.records.put_migration(
            Migration(
                id=saga.migration_id,
                instance_id=saga.instance_id,
                source_propolis_id=saga.source_propolis_id,
                target_propolis_id=saga.ids[0],
                time_created=ctx.now_us,
            )
        )
    return None


def _fail_migration(ctx: Scope, saga: MigrateSaga) -> Wish:
    assert saga.migration_id is not None
    mark_migration_failed(ctx, ctx.records.migrations[saga.migration_id])
    return None


def mark_migration_failed(ctx: Scope, row: Migration) -> bool:
    """Both sides failed, both generations + 1, however often; a deleted record stays as it is (False)."""
    if row.time_deleted is not None:
        return False
    ctx.records.put_migration(
        replace(
            row,
            source_state=MigrationState.FAILED,
            target_state=MigrationState.FAILED,
            source_gen=following(row.source_gen),
            target_gen=following(row.target_gen),
        )
    )
    return True


def _link_target(ctx: Scope, saga: MigrateSaga) -> Wish:
    """Write migration and target id. No undo: the update saga clears them when it sees the failed migration."""
    row = ctx.records.instances[saga.instance_id]
    if row.migration_id == saga.migration_id:
        return None
    source, target = ctx.records.active_vmm(row), ctx.records.target_vmm(row)
    old = ctx.records.migration_of(row)
    no_ids = row.migration_id is None and row.target_propolis_id is None
    replaceable = (
        target is not None
        and target.state is VmmDbState.SAGA_UNWOUND
        and old is not None
        and old.source_state is old.target_state is MigrationState.FAILED
    )
    may = (
        source is not None
        and source.id == saga.source_propolis_id
        and source.state in (VmmDbState.RUNNING, VmmDbState.REBOOTING)
        and (no_ids or replaceable)
    )
    if not may or row.time_deleted is not None:
        raise conflict("another migration is already in progress")
    ctx.records.put_instance(
        replace(
            row,
            migration_id=saga.migration_id,
            target_propolis_id=saga.ids[0],
            state_generation=row.state_generation + 1,
            time_state_updated=ctx.now_us,
        )
    )
    return None


def _move_in(ctx: Scope, saga: MigrateSaga) -> Wish:
    """Only the target sled is called; the source learns of the migration from its Propolis."""
    propolis_id, sled_id = saga.ids
    source = ctx.vmm(saga.source_propolis_id)
    params = InstanceMigrationTargetParams(src_propolis_addr=source.address)
    return Ask(sled_id, PutVmmState(propolis_id, VmmStateRequested(Asked.MIGRATION_TARGET, params)))


PROGRAM: Final[tuple[Node[Scope, MigrateSaga], ...]] = (
    Node("reserve target sled", vmms.reserve, undo=vmms.release),
    Node("allocate Propolis address", vmms.allocate_ip),
    Node("create VMM record", vmms.create_vmm, undo=vmms.unwind_vmm),
    Node("create migration record", _create_migration, undo=_fail_migration),
    Node("set migration ids", _link_target),
    Node(
        "register on target",
        vmms.register,
        answered=vmms.registered,
        undo=vmms.unregister,
        undo_answered=vmms.unregistered,
    ),
    Node("migrate in", _move_in, answered=vmms.put_answered),
)
