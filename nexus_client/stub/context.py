"""What all rooms of the Nexus model share during one call of `handle`: records, saga log, what is in flight, effects.

`records`, `sagas` are durable (they survive `Crash`); everything named volatile below does not.

Read before: stub/records.py, stub/scope.py. Read next: stub/sagas/nodes.py.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha1
from typing import Any, Final, TypeAlias
from uuid import UUID

import attrs

from nexus_client.stub.behaviour import Behaviour
from nexus_client.stub.config import TIMELINE_MAX, Config, SagaMode
from nexus_client.stub.contract import CallSled, CrashPoint, Effect, ErrorBody, Happened, Reply, SledOp, Task
from nexus_client.stub.public_state import PublicState
from nexus_client.stub.records import Instance, InvariantBroken, Records, Row, Sled, Vmm, key_of
from nexus_client.stub.refusal import Refusal, Refused, internal, not_found
from nexus_client.stub.rules import RULES, Rules
from nexus_client.stub.sagas.nodes import Node
from nexus_client.stub.sagas.state import Saga, SagaKind, StartSaga
from nexus_client.stub.scope import CallOwner, Scope, Waiter
from nexus_client.stub.wording import describe_op

NAMESPACE: Final = UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
"""Namespace of all derived ids (RFC 4122's for OIDs; the name carries the seed)."""
_NAMESPACE_BYTES: Final = NAMESPACE.bytes
_VARIANT_AND_VERSION: Final = 0xC000 << 48 | 0xF000 << 64
_OF_RFC_4122_VERSION_5: Final = 0x8000 << 48 | 0x5000 << 64

BROKEN_MAX: Final = 100
"""Broken rules that are kept: the first says what is wrong, the rest follow from it."""
CALLS_MAX: Final = 4096
"""Calls in flight: 16 checks, and one per saga or user request; more means that a shell never answers."""


Program: TypeAlias = "tuple[Node[Scope, Any], ...]"
"""`Any`: each program is over the state of its own kind, which the key says and the type cannot."""


@attrs.frozen
class Changes:
    """What has changed since it was asked last: rows by kind and key (None: gone), and the whole saga log."""

    rows: Mapping[tuple[type[Row], str], Row | None]
    sagas: list[Saga]
    counters: Mapping[str, int]


class ArmedCrash(Exception):
    """An armed crash strikes here; caught by nexus.py."""


@attrs.define(eq=False)
class Watch:
    """The health check's current round (volatile): ids still to check, ids being checked."""

    waiting: deque[UUID] = attrs.field(factory=deque)
    checking: set[UUID] = attrs.field(factory=set)


@attrs.define(eq=False)
class Context:
    """One Nexus: see the module. Times in microseconds since the Unix epoch."""

    config: Config
    behaviour: Behaviour
    programs: Mapping[SagaKind, Program]
    seed: int = 0
    records: Records = attrs.field(factory=Records)
    sagas: dict[UUID, Saga] = attrs.field(factory=dict)
    timelines: dict[UUID, deque[Happened]] = attrs.field(factory=dict)
    # volatile
    now_us: int = 0
    effects: list[Effect] = attrs.field(factory=list)
    calls: dict[int, CallOwner] = attrs.field(factory=dict)
    waiters: dict[UUID, list[Waiter]] = attrs.field(factory=dict)
    tickets: dict[int, None] = attrs.field(factory=dict)
    task_due_us: dict[Task, int | None] = attrs.field(factory=dict)
    tasks_next_us: int | None = None
    """The least of `task_due_us`, which is asked at every step."""
    watch: Watch = attrs.field(factory=Watch)
    armed: set[CrashPoint] = attrs.field(factory=set)
    ready_sagas: deque[UUID] = attrs.field(factory=deque)
    saga_dues: list[tuple[int, int, Saga]] = attrs.field(factory=list)
    """A heap of (due, place in the log, saga); alive while the saga is still due then. One that has ended is not."""
    public_watchers: list[Callable[[Instance, PublicState | None], None]] = attrs.field(factory=list)
    broken: list[InvariantBroken] = attrs.field(factory=list)
    """Rules of the database that would have been broken: bugs of this model, or of a wrong variant of it."""
    journal: dict[tuple[type[Row], str], Row | None] | None = None
    """Rows changed since the last `take_changes`; None: nobody keeps them."""
    _public: dict[UUID, PublicState] = attrs.field(factory=dict)
    _next_call: int = 1
    rules: Rules = attrs.field(init=False)
    queued: bool = attrs.field(init=False)
    """Whether each node of a saga comes at a time of its own."""

    def __attrs_post_init__(self) -> None:
        self.queued = self.config.saga_mode is SagaMode.QUEUED
        self.rules = RULES[self.config.rules]
        self.records.changed = self._row_changed
        self.records.reason_needs_failed = self.rules.reason_needs_failed

    # -- ids and words

    def new_id(self, kind: str) -> UUID:
        """An id derived from seed, kind and a counter: the same run has the same ids."""
        return derived_id(f"{self.seed}/{kind}/{self.records.next_number(kind)}")

    def named_id(self, kind: str, name: str) -> UUID:
        """The id of something that has a name: always the same for a seed."""
        return derived_id(f"{self.seed}/{kind}:{name}")

    def tell(self, what: str, text: str, instance_id: UUID | None = None, propolis_id: UUID | None = None) -> None:
        """A line for the timeline."""
        line = Happened(self.now_us, what, text, instance_id, propolis_id)
        self.effects.append(line)
        if instance_id is not None:
            timeline = self.timelines.get(instance_id)
            if timeline is None:
                timeline = self.timelines[instance_id] = deque(maxlen=TIMELINE_MAX)
            timeline.append(line)

    @contextmanager
    def containing(self, instance_id: UUID | None = None) -> Iterator[None]:
        """What breaks a rule of the database in here is reported and ends in here: other records go on."""
        try:
            yield
        except InvariantBroken as broken:
            self.report_broken(broken, instance_id)

    def report_broken(self, broken: InvariantBroken, instance_id: UUID | None) -> None:
        self.tell("broken", str(broken), instance_id)
        if len(self.broken) < BROKEN_MAX:
            self.broken.append(broken)

    # -- answers

    def reply(self, ticket: int, status: int, body: Any = None) -> None:
        """Answer a ticket; one that Nexus forgot in a crash is answered by nobody."""
        if ticket in self.tickets:
            del self.tickets[ticket]
            self.effects.append(Reply(ticket, status, body))

    def refuse(self, ticket: int, refusal: Refusal) -> None:
        self.reply(ticket, refusal.status, ErrorBody(refusal.error_code, refusal.message, refusal.detail))

    # -- sleds

    def call(self, sled_id: UUID, op: SledOp, owner: CallOwner) -> None:
        """Ask a sled. Raises `Refused` (500) if the sled has no record or if too much is in flight."""
        sled = self.sled(sled_id)
        if len(self.calls) >= CALLS_MAX:
            raise internal(f"{CALLS_MAX} calls to sleds are in flight")
        call_id = self._next_call
        self._next_call += 1
        self.calls[call_id] = owner
        propolis_id: UUID | None = getattr(op, "propolis_id", None)
        vmm = None if propolis_id is None else self.records.vmms.get(propolis_id)
        self.tell("called", describe_op(op), None if vmm is None else vmm.instance_id, propolis_id)
        self.effects.append(CallSled(call_id, sled_id, sled.info.sa_address, op))

    def sled(self, sled_id: UUID) -> Sled:
        sled = self.records.sleds.get(sled_id)
        if sled is None:
            raise internal(f"sled {sled_id} has no record")
        return sled

    # -- reading with errors

    def instance(self, instance_id: UUID) -> Instance:
        """The undeleted instance, or 404."""
        row = self.records.instances.get(instance_id)
        if row is None or row.time_deleted is not None:
            raise not_found("instance", instance_id)
        return row

    def vmm(self, propolis_id: UUID | None) -> Vmm:
        """A VMM the caller knows to exist, deleted or not."""
        assert propolis_id is not None
        return self.records.vmms[propolis_id]

    def public(self, instance: Instance) -> PublicState:
        vmm = self.records.active_vmm(instance)
        return self.behaviour.public_state(
            self.config.rules,
            instance.state,
            None if vmm is None else vmm.state,
            migrating=instance.migration_id is not None,
        )

    # -- sagas and tasks

    def spawn(self, saga: Saga, *waiters: Waiter) -> None:
        """Write the saga into the log and let it run as the mode says; `waiters` hear of its end."""
        self.sagas[saga.id] = saga
        saga.place = self.records.next_number("place in the saga log")
        if waiters:
            self.waiters.setdefault(saga.id, []).extend(waiters)
        self.tell("saga", f"{saga.kind.value} begins", saga.instance_id)
        self.schedule(saga)

    def schedule(self, saga: Saga) -> None:
        """Its next node runs in this call of `handle`, or later, as the mode says."""
        if self.queued:
            saga.due_us = self.now_us + self.config.saga_node_us
            heapq.heappush(self.saga_dues, (saga.due_us, saga.place, saga))
        else:
            self.ready_sagas.append(saga.id)

    def is_starting(self, propolis_id: UUID) -> bool:
        """Whether a start saga is at work on this VMM."""
        return any(isinstance(saga, StartSaga) and saga.propolis_id == propolis_id for saga in self.sagas.values())

    def wake(self, task: Task) -> None:
        """A background task becomes due soon, also one that has no period. Not at once: tasks run beside sagas."""
        self.wake_at(task, self.now_us + self.config.wake_us)

    def wake_at(self, task: Task, due_us: int) -> None:
        """Due at this time, or earlier if it was."""
        due = self.task_due_us.get(task)
        self.task_due_us[task] = due_us if due is None else min(due, due_us)
        if self.tasks_next_us is None or due_us < self.tasks_next_us:
            self.tasks_next_us = due_us

    def crash_if_armed(self, point: CrashPoint) -> None:
        if point in self.armed:
            raise ArmedCrash(point.value)

    def _row_changed(self, row: Row, gone: bool) -> None:
        """Keep what users see: one `public` line for each change, also for those which last no time at all."""
        if self.journal is not None:
            self.journal[type(row), key_of(row)] = None if gone else row
        if isinstance(row, Vmm):
            instance = self.records.instances.get(row.instance_id)
            if instance is None or instance.active_propolis_id != row.id:
                return
        elif isinstance(row, Instance):
            instance = row
        else:
            return
        if instance.time_deleted is not None:
            if self._public.pop(instance.id, None) is not None:
                for watcher in self.public_watchers:
                    watcher(instance, None)
            return
        public = self.public(instance)
        if self._public.get(instance.id) is not public:
            self._public[instance.id] = public
            for watcher in self.public_watchers:
                watcher(instance, public)
            self.tell("public", public.value, instance.id, instance.active_propolis_id)

    def finish(self) -> list[Effect]:
        """The effects since the last `finish`."""
        effects, self.effects = self.effects, []
        return effects


def derived_id(name: str) -> UUID:
    """`uuid5(NAMESPACE, name)`, in half its time: a whole run makes one for every fourth thing that happens."""
    number = int.from_bytes(sha1(_NAMESPACE_BYTES + name.encode(), usedforsecurity=False).digest()[:16], "big")
    return UUID(int=number & ~_VARIANT_AND_VERSION | _OF_RFC_4122_VERSION_5)


__all__ = ["Context", "Refused"]
