"""The instance-create saga: a record, and perhaps a start (NX 4.1).

Read before: stub/sagas/runner.py. Read next: stub/sagas/start.py.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from nexus_client.stub.records import InstanceDbState
from nexus_client.stub.sagas.nodes import Await, Node, Wish
from nexus_client.stub.sagas.state import CreateSaga, StartSaga
from nexus_client.stub.scope import Scope


def _finish_create(ctx: Scope, saga: CreateSaga) -> Wish:
    row = ctx.records.instances[saga.instance_id]
    if row.state is InstanceDbState.CREATING:
        ctx.records.put_instance(
            replace(
                row,
                state=InstanceDbState.NO_VMM,
                state_generation=row.state_generation + 1,
                time_state_updated=ctx.now_us,
            )
        )
    return None


def _start_created(ctx: Scope, saga: CreateSaga) -> Wish:
    """With `start`, a start is attempted; its failure does not fail the create."""
    if not saga.start:
        return None
    if saga.child_id is None:
        row = ctx.records.instances[saga.instance_id]
        if row.time_deleted is not None:
            return None
        child = StartSaga(id=ctx.new_id("saga"), instance_id=row.id, read_generation=row.state_generation)
        saga.child_id = child.id
        ctx.spawn(child)
    return Await(saga.child_id)


PROGRAM: Final[tuple[Node[Scope, CreateSaga], ...]] = (
    Node("record NoVmm", _finish_create),
    Node("start", _start_created),
)
