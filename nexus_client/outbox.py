"""What to tell Nexus next about each VMM: ordered, one at a time, retried until acknowledged (nexus.md 3.2).

    Submit --> [ waiting ] --Send--> [ in flight ] --Delivered / Permanent--> Settled, then what waits behind
                   ^                      |
                   +---- retry timer <----+ Transient

Rules, each a property of nexus.md 7:

* At most one publication per VMM is in flight (23). What waits behind it is one state: the newest.
* A retry carries the newest state (23); what it replaced is never sent and never settled.
* A transient failure is retried without limit, with the policy's delays (24, 26).
* A permanent one settles this publication; later ones go on (25).
* Another VMM's trouble delays nobody: there is no queue across VMMs in here.

Memory: one small entry per VMM that has something to tell, whatever the length of an outage; none for others.

Read before: types.py, backoff.py. Read next: client.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final, assert_never
from uuid import UUID

import attrs

from nexus_client.backoff import INTERNAL_SERVICE, Policy, delay_us
from nexus_client.draw import draw
from nexus_client.types import SledVmmState
from nexus_client.values import envelope

_HEAP_SLACK: Final = 64
"""Cancelled timers kept before the heap is rebuilt, beyond as many as live ones: rebuilding stays amortised O(1)."""


@attrs.frozen
class Delivered:
    """Nexus acknowledged (204)."""


@attrs.frozen
class Transient:
    """Not now: connection refused or lost, timeout, any 5xx. Will be tried again."""

    why: str


@attrs.frozen
class Permanent:
    """Never: any 4xx, or an answer that is none of the API. `status` is the HTTP status code."""

    why: str
    status: int | None = None


Outcome = Delivered | Transient | Permanent
"""How one attempt ended."""


@envelope
class Submit:
    """The VMM's state is now `body`: Nexus shall hear it."""

    propolis_id: UUID
    body: SledVmmState


@envelope
class Replied:
    """How the attempt `serial` of a `Send` ended. Exactly one per `Send`."""

    propolis_id: UUID
    serial: int
    outcome: Outcome


@attrs.frozen
class Tick:
    """Time has passed."""


@envelope
class Forget:
    """Nothing more about this VMM shall be sent or heard, not even the answer to what is in flight."""

    propolis_id: UUID


@attrs.frozen
class Hurry:
    """Whatever waits for its retry is tried now (shutdown, or Nexus is known to be back)."""


OutboxInput = Submit | Replied | Tick | Forget | Hurry


@envelope
class Send:
    """Please PUT `body`; answer with `Replied(propolis_id, serial, outcome)`.

    `serial` is unique in this outbox, so that an answer that comes after `Forget` cannot be taken for the
    answer to a later VMM with the same id. `attempt` counts from 0 within one series of failures.
    """

    propolis_id: UUID
    body: SledVmmState
    attempt: int
    serial: int


@envelope
class Settled:
    """`body` is done with: Nexus has it, or has finally refused it."""

    propolis_id: UUID
    body: SledVmmState
    outcome: Delivered | Permanent


OutboxEffect = Send | Settled


@attrs.frozen
class Pending:
    """What Nexus has not acknowledged of one VMM. `why` is the last failure, empty if there was none."""

    propolis_id: UUID
    body: SledVmmState
    in_flight: bool
    attempt: int
    due_us: int | None
    why: str


@attrs.define(eq=False)
class _Entry:
    """One VMM with something to tell. In flight: `sent` is set. Waiting for a retry: it is not."""

    newest: SledVmmState
    sent: SledVmmState | None  # what is on the wire
    behind: bool  # `newest` came after `sent` went out
    attempt: int
    serial: int  # of what is in flight, else of what failed last
    due_us: int  # of the retry, while nothing is in flight
    why: str


@attrs.define(eq=False)
class Outbox:
    """All publications of one Nexus endpoint; `handle` is the only door.

    `seed` decides the jitter, together with the VMM's id, its generation and the attempt.
    """

    policy: Policy = INTERNAL_SERVICE
    seed: int = 0
    _entries: dict[UUID, _Entry] = attrs.field(init=False, factory=dict)
    _retries: list[tuple[int, int, UUID]] = attrs.field(init=False, factory=list)  # (due_us, serial, who)
    _waiting: int = attrs.field(init=False, default=0)  # entries with a live timer
    _serial: int = attrs.field(init=False, default=0)

    def handle(self, item: OutboxInput, now_us: int) -> list[OutboxEffect]:
        """Take one input; returns what shall be done about it, in this order."""
        # isinstance and attributes: a positional pattern costs three times as much, and this is done per publication
        if isinstance(item, Submit):
            return self._submit(item.propolis_id, item.body)
        if isinstance(item, Replied):
            return self._replied(item.propolis_id, item.serial, item.outcome, now_us)
        if isinstance(item, Tick):
            return self._due(now_us)
        if isinstance(item, Forget):
            self._forget(item.propolis_id)
            return []
        if isinstance(item, Hurry):
            return self._hurry()
        assert_never(item)

    def next_deadline_us(self) -> int | None:
        """When the next `Tick` has something to do; None: never, as things are."""
        retries = self._retries
        while retries:
            due_us, serial, propolis_id = retries[0]
            if self._is_live(propolis_id, serial):
                return due_us
            heappop(retries)
        return None

    def pending(self) -> Iterator[Pending]:
        """What has not been settled, oldest VMM first."""
        for propolis_id in self._entries:
            found = self.pending_of(propolis_id)
            assert found is not None
            yield found

    def pending_of(self, propolis_id: UUID) -> Pending | None:
        """The same for one VMM; None if Nexus knows all about it."""
        entry = self._entries.get(propolis_id)
        if entry is None:
            return None
        flying = entry.sent is not None
        return Pending(propolis_id, entry.newest, flying, entry.attempt, None if flying else entry.due_us, entry.why)

    def __len__(self) -> int:
        """VMMs with something unsettled."""
        return len(self._entries)

    def _submit(self, propolis_id: UUID, body: SledVmmState) -> list[OutboxEffect]:
        entry = self._entries.get(propolis_id)
        if entry is None:
            entry = _Entry(body, None, behind=False, attempt=0, serial=0, due_us=0, why="")
            self._entries[propolis_id] = entry
            return [self._send(propolis_id, entry)]
        # Nexus would silently drop an older one (nexus.md 7, property 1), so whoever submits it has a bug
        assert body.vmm_state.gen >= entry.newest.vmm_state.gen, "a VMM's generation fell"
        entry.newest = body
        # Waiting for a retry: the timer stays, or a chatty VMM would defeat the backoff.
        entry.behind = entry.sent is not None
        return []

    def _send(self, propolis_id: UUID, entry: _Entry) -> Send:
        self._serial += 1
        entry.serial = self._serial
        entry.sent = entry.newest
        entry.behind = False
        return Send(propolis_id, entry.newest, entry.attempt, entry.serial)

    def _replied(self, propolis_id: UUID, serial: int, outcome: Outcome, now_us: int) -> list[OutboxEffect]:
        entry = self._entries.get(propolis_id)
        if entry is None or entry.serial != serial or entry.sent is None:
            return []  # forgotten meanwhile, or told twice
        if isinstance(outcome, Transient):
            self._retry_later(propolis_id, entry, outcome.why, now_us)
            return []
        settled = Settled(propolis_id, entry.sent, outcome)
        if not entry.behind:
            del self._entries[propolis_id]
            return [settled]
        entry.attempt = 0
        entry.why = ""
        return [settled, self._send(propolis_id, entry)]

    def _retry_later(self, propolis_id: UUID, entry: _Entry, why: str, now_us: int) -> None:
        # the generation is the occurrence: each series of failures draws anew without being counted
        number = draw(self.seed, "outbox", propolis_id, entry.newest.vmm_state.gen, entry.attempt)
        entry.due_us = now_us + delay_us(self.policy, entry.attempt, number)
        entry.attempt += 1
        entry.sent = None
        entry.behind = False
        entry.why = why
        self._waiting += 1
        heappush(self._retries, (entry.due_us, entry.serial, propolis_id))

    def _is_live(self, propolis_id: UUID, serial: int) -> bool:
        entry = self._entries.get(propolis_id)
        return entry is not None and entry.serial == serial and entry.sent is None

    def _due(self, now_us: int) -> list[OutboxEffect]:
        sends: list[OutboxEffect] = []
        retries = self._retries
        while retries and retries[0][0] <= now_us:
            _, serial, propolis_id = heappop(retries)
            if self._is_live(propolis_id, serial):
                self._waiting -= 1
                sends.append(self._send(propolis_id, self._entries[propolis_id]))
        return sends

    def _hurry(self) -> list[OutboxEffect]:
        # in the order in which they would have come due, ties by age
        waiting = sorted(item for item in self._retries if self._is_live(item[2], item[1]))
        self._retries.clear()
        self._waiting = 0
        return [self._send(propolis_id, self._entries[propolis_id]) for _, _, propolis_id in waiting]

    def _forget(self, propolis_id: UUID) -> None:
        entry = self._entries.pop(propolis_id, None)
        if entry is None or entry.sent is not None:
            return
        self._waiting -= 1  # its timer stays in the heap, cancelled, until it comes up or the heap is rebuilt
        if len(self._retries) > 2 * self._waiting + _HEAP_SLACK:
            self._retries = [item for item in self._retries if self._is_live(item[2], item[1])]
            heapify(self._retries)
