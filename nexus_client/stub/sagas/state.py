"""What a saga remembers: one class per kind, all of it durable (NX 4.3, 5).

Each field is set by the node that its comment names, and read by later nodes and by the undos; a node that runs again
finds what it set the first time.

Read before: stub/records.py. Read next: stub/sagas/nodes.py.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias
from uuid import UUID

import attrs

from nexus_client.dropshot.identity import IdentityEnum
from nexus_client.stub.contract import IpKind
from nexus_client.stub.records import InstanceDbState, IntendedState
from nexus_client.stub.refusal import Refusal


class SagaKind(IdentityEnum):
    CREATE = "instance-create"
    START = "instance-start"
    MIGRATE = "instance-migrate"
    UPDATE = "instance-update"
    ATTACH = "instance-ip-attach"
    DETACH = "instance-ip-detach"


@attrs.frozen
class Decision:
    """What an update saga will write (NX 5.2); made by update_decision.decide."""

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


@attrs.define(eq=False, kw_only=True)
class SagaState:
    """One row of the saga log, whatever its kind: where it stands, and what it waits for."""

    kind: ClassVar[SagaKind]
    id: UUID
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

    @property
    def concerns(self) -> UUID | None:
        """The VMM that its lines in the timeline are about."""
        return None


@attrs.define(eq=False, kw_only=True)
class CreateSaga(SagaState):
    kind = SagaKind.CREATE
    start: bool = False
    child_id: UUID | None = None  # the start that it awaits


@attrs.define(eq=False, kw_only=True)
class VmmSaga(SagaState):
    """What start and migrate share: a new VMM on its way to a sled."""

    sled_id: UUID | None = None  # "reserve"; a migration knows it from the beginning
    propolis_id: UUID | None = None  # "reserve"
    propolis_ip: str = ""  # "allocate Propolis address"
    propolis_port: int = 0
    registered_gen: int = 0  # "register": what the sled answered

    @property
    def concerns(self) -> UUID | None:
        return self.propolis_id

    @property
    def ids(self) -> tuple[UUID, UUID]:
        """(propolis id, sled id), known after the first node."""
        assert self.propolis_id is not None
        assert self.sled_id is not None
        return self.propolis_id, self.sled_id


@attrs.define(eq=False, kw_only=True)
class StartSaga(VmmSaga):
    kind = SagaKind.START
    auto_restart: bool = False
    read_generation: int = 0  # of the instance, as the request found it
    written_generation: int = 0  # "link VMM"


@attrs.define(eq=False, kw_only=True)
class MigrateSaga(VmmSaga):
    kind = SagaKind.MIGRATE
    source_propolis_id: UUID
    migration_id: UUID | None = None  # "create migration record"


@attrs.define(eq=False, kw_only=True)
class UpdateSaga(SagaState):
    kind = SagaKind.UPDATE
    lock_id: UUID | None = None  # "lock", then "inherit lock"
    lock_gen: int = 0
    child_id: UUID | None = None  # "inherit lock"
    read_generation: int = 0  # "read and decide"
    decision: Decision | None = None


@attrs.define(eq=False, kw_only=True)
class IpSaga(SagaState):
    ip_kind: IpKind
    address: str

    @property
    def attaches(self) -> bool:
        return self.kind is SagaKind.ATTACH


@attrs.define(eq=False, kw_only=True)
class AttachSaga(IpSaga):
    kind = SagaKind.ATTACH


@attrs.define(eq=False, kw_only=True)
class DetachSaga(IpSaga):
    kind = SagaKind.DETACH


Saga: TypeAlias = CreateSaga | StartSaga | MigrateSaga | UpdateSaga | AttachSaga | DetachSaga
