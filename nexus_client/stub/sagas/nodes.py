"""Sagas: resumable programs of nodes, each of which may run twice (NX 4.3, 5).

A saga is a row of the saga log (`Saga`, durable) and a program (`Node`s, code). A node acts on the records, or asks a
sled and goes on with the answer, or waits for another saga. A refusal turns the saga round: the undo of every node
that was completed runs, last first. `Boot` after a crash runs the current node again. An undo that cannot work
leaves the saga
stuck in the log until somebody intervenes, as the original's.

Read before: stub/context.py. Read next: stub/sagas/instances.py, stub/sagas/runner.py, stub/sagas/update.py.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias
from uuid import UUID

import attrs

from nexus_client.stub.contract import IpKind, Outcome, SledOp
from nexus_client.stub.records import InstanceDbState, IntendedState
from nexus_client.stub.refusal import Refusal

if TYPE_CHECKING:
    from nexus_client.stub.context import Context

NODES_MAX: Final = 64
"""Nodes and undos of one saga in one go; the longest program has eleven of each."""


class SagaKind(Enum):
    CREATE = "instance-create"
    START = "instance-start"
    MIGRATE = "instance-migrate"
    UPDATE = "instance-update"
    ATTACH = "instance-ip-attach"
    DETACH = "instance-ip-detach"


@attrs.frozen
class Decision:
    """What an update saga will write (NX 5.2); made by update_saga.decide."""

    state: InstanceDbState
    active: UUID | None
    target: UUID | None
    migration: UUID | None
    intended: IntendedState | None = None
    network_to: UUID | None = None
    """NAT goes to this sled; None: as `deprovision` says."""
    deprovision: bool = False
    """No VMM is left: network deleted, counters released."""
    destroy_active: UUID | None = None
    destroy_target: UUID | None = None
    swap: tuple[UUID, UUID] | None = None
    """(source, target) of a migration whose reservations change roles."""


@attrs.define(eq=False)
class Saga:
    """One row of the saga log. The fields below `due_us` are what the nodes of its kind have to remember."""

    id: UUID
    kind: SagaKind
    instance_id: UUID
    node: int = 0
    unwinding: bool = False
    stuck: bool = False
    refusal: Refusal | None = None
    awaits: UUID | None = None
    repeated: bool = False
    place: int = 0
    """In the log: 1 for the first that ever was written."""
    due_us: int | None = None
    # create, start, migrate
    auto_restart: bool = False
    start: bool = False
    child_id: UUID | None = None
    sled_id: UUID | None = None
    propolis_id: UUID | None = None
    propolis_ip: str = ""
    propolis_port: int = 0
    source_propolis_id: UUID | None = None
    migration_id: UUID | None = None
    read_generation: int = 0
    written_generation: int = 0
    registered_gen: int = 0
    # update
    lock_id: UUID | None = None
    lock_gen: int = 0
    decision: Decision | None = None
    # attach, detach
    ip_kind: IpKind | None = None
    address: str = ""


@attrs.frozen
class Ask:
    """A node's wish: ask this sled and come back with the answer."""

    sled_id: UUID
    op: SledOp


@attrs.frozen
class Await:
    """A node's wish: go on when this saga has ended."""

    saga_id: UUID


@attrs.frozen
class End:
    """The saga ends here, successfully."""


Wish: TypeAlias = Ask | Await | End | None
Act: TypeAlias = "Callable[[Context, Saga], Wish]"
OnAnswer: TypeAlias = "Callable[[Context, Saga, Outcome], Wish]"


class Stuck(Exception):
    """An undo cannot do its work; the saga stays in the log as it is."""


@attrs.frozen
class Node:
    """One step of a program; raising `Refused` in `act` or `answered` turns the saga round."""

    name: str
    act: Act
    answered: OnAnswer | None = None
    undo: Act | None = None
    undo_answered: OnAnswer | None = None
