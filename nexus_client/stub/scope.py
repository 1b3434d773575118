"""What the rooms of the Nexus model may see of it: as much as each needs, and no more.

    Facts   records and rules, ids, words for the timeline: what reports, registrations, placement and views work with
    Scope   and begins sagas and wakes tasks: what a node of a saga works with
    Desk    and answers tickets, and calls sleds: what users ask (actions.py)
    Context (context.py) and what is in flight, the saga log, the tasks' clocks: for the runner, the tasks, nexus.py

Read before: stub/records.py. Read next: stub/context.py, stub/sagas/nodes.py.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias
from uuid import UUID

from msgspec import Struct

from nexus_client.stub.behaviour import Behaviour
from nexus_client.stub.config import Config
from nexus_client.stub.contract import CrashPoint, SledOp, Task
from nexus_client.stub.public_state import PublicState
from nexus_client.stub.records import Instance, Records, Sled, Vmm
from nexus_client.stub.refusal import Refusal
from nexus_client.stub.rules import Rules
from nexus_client.stub.sagas.state import Saga


class SagaCall(Struct, frozen=True):
    """The answer belongs to this saga."""

    saga_id: UUID


class RequestCall(Struct, frozen=True):
    """The answer belongs to a user's stop or reboot; the VMM as read before the call."""

    ticket: int
    instance_id: UUID
    propolis_id: UUID
    read_gen: int


class WatchCall(Struct, frozen=True):
    """The answer belongs to the health check of this VMM, read in this generation."""

    propolis_id: UUID
    read_gen: int


class NobodysCall(Struct, frozen=True):
    """Nobody waits for the answer."""


CallOwner: TypeAlias = SagaCall | RequestCall | WatchCall | NobodysCall


class TicketWaits(Struct, frozen=True):
    """A ticket is answered when a saga ends: with the refusal given here, or the saga's own, or this status."""

    ticket: int
    status: int
    refusal: Refusal | None = None


class WatchWaits(Struct, frozen=True):
    """A health check's slot is free again when the saga ends (NX 4.5: started and awaited)."""

    propolis_id: UUID


Waiter: TypeAlias = TicketWaits | WatchWaits


class Facts(Protocol):
    """Records are changed through `records` alone; `tell` and the ids are part of what is written."""

    @property
    def config(self) -> Config: ...
    @property
    def behaviour(self) -> Behaviour: ...
    @property
    def rules(self) -> Rules: ...
    @property
    def records(self) -> Records: ...
    @property
    def now_us(self) -> int: ...

    def new_id(self, kind: str) -> UUID: ...
    def named_id(self, kind: str, name: str) -> UUID: ...
    def tell(
        self, what: str, text: str, instance_id: UUID | None = None, propolis_id: UUID | None = None
    ) -> None: ...
    def sled(self, sled_id: UUID) -> Sled: ...
    def instance(self, instance_id: UUID) -> Instance: ...
    def vmm(self, propolis_id: UUID | None) -> Vmm: ...
    def public(self, instance: Instance) -> PublicState: ...


class Scope(Facts, Protocol):
    """What a node wishes of sleds and of other sagas' ends it returns (`Wish`)."""

    def spawn(self, saga: Saga, *waiters: Waiter) -> None: ...
    def is_starting(self, propolis_id: UUID) -> bool: ...
    def wake(self, task: Task) -> None: ...
    def crash_if_armed(self, point: CrashPoint) -> None: ...


class Desk(Scope, Protocol):
    """Where users are answered: with a body as it goes on the wire, or when a sled has answered `call`."""

    def reply(self, ticket: int, status: int, body: Any = None) -> None: ...
    def call(self, sled_id: UUID, op: SledOp, owner: CallOwner) -> None: ...
