"""What to tell Nexus next about each VMM: ordered, one at a time, retried until acknowledged (NX 3.2).

    Submit --> [ waiting ] --Send--> [ in flight ] --Delivered / Permanent--> Settled, then what waits behind
                   ^                      |
                   +---- retry timer <----+ Transient

Rules, each a property of NX 7:

* At most one publication per VMM is in flight (23). What waits behind it is one state: the newest.
* A retry carries the newest state (23); what it replaced is never sent and never settled.
* A transient failure is retried without limit, with the policy's delays (24, 26).
* A permanent one settles this publication; later ones go on (25).
* Another VMM's trouble delays nobody: there is no queue across VMMs in here.

Memory: one small entry per VMM that has something to tell, whatever the length of an outage; none for others.

Read before: backoff.py, types.py. Read next: client.py, senders.py, verdict.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from heapq import heapify, heappop, heappush
from typing import Final, assert_never
from uuid import UUID

import attrs
from msgspec import Struct

from nexus_client.backoff import INTERNAL_SERVICE, Policy, delay_us
from nexus_client.draw import draw
from nexus_client.types import SledVmmState

_HEAP_SLACK: Final = 64
"""Cancelled timers kept before the heap is rebuilt, beyond as many as live ones: rebuilding stays amortised O(1)."""


class Delivered(Struct, frozen=True):
    """Nexus acknowledged (204)."""


class Trouble(Enum):
    """What kind of failure, for whoever decides who is tried beside whom (senders.py). Alike to the outbox."""

    ANSWERED = "answered"  # something answered, though not what was hoped for
    HUNG = "hung"  # taken, and never answered
    UNREACHED = "unreached"  # nothing took the connection
    HELD = "held"  # not even tried: nothing takes connections at all, and one probe a second finds out when


@attrs.frozen
class Transient:
    """Not now. Will be tried again. What counts as this: verdict.py. `status`: the HTTP status code, if one came."""

    why: str
    trouble: Trouble = attrs.field(default=Trouble.ANSWERED, eq=False, repr=False)
    status: int | None = attrs.field(default=None, eq=False, repr=False)


class Permanent(Struct, frozen=True):
    """Never: a considered no (verdict.py). `status` is the HTTP status code."""

    why: str
    status: int | None = None


Outcome = Delivered | Transient | Permanent
"""How one attempt ended."""


class Submit(Struct, frozen=True):
    """The VMM's state is now `body`: Nexus shall hear it."""

    propolis_id: UUID
    body: SledVmmState


class Replied(Struct, frozen=True):
    """How the attempt `serial` of a `Send` ended. Exactly one per `Send`."""

    propolis_id: UUID
    serial: int
    outcome: Outcome


class Tick(Struct, frozen=True):
    """Time has passed."""


class Forget(Struct, frozen=True):
    """Nothing more about this VMM shall be sent or heard, not even the answer to what is in flight."""

    propolis_id: UUID


class Hurry(Struct, frozen=True):
    """Whatever waits for its retry is tried now (shutdown, or Nexus is known to be back)."""


OutboxInput = Submit | Replied | Tick | Forget | Hurry


class Send(Struct, frozen=True):
    """Please PUT `body`; answer with `Replied(propolis_id, serial, outcome)`.

    `serial` is unique in this outbox, so that an answer that comes after `Forget` cannot be taken for the
    answer to a later VMM with the same id. `attempt` counts from 0 within one series of failures.
    """

    propolis_id: UUID
    body: SledVmmState
    attempt: int
    serial: int


class Settled(Struct, frozen=True):
    """`body` is done with: Nexus has it, or has finally refused it."""

    propolis_id: UUID
    body: SledVmmState
    outcome: Delivered | Permanent


OutboxEffect = Send | Settled


class Pending(Struct, frozen=True):
    """What Nexus has not acknowledged of one VMM. `why` is the last failure, empty if there was none."""

    propolis_id: UUID
    body: SledVmmState
    in_flight: bool
    attempt: int
    due_us: int | None
    why: str


_FORGOTTEN: Final = -1


class _Entry(Struct, order=True, gc=False):
    """One VMM with something to tell, and its own timer: in flight, `sent` is set; waiting for a retry, it is not.

    Of an outage each VMM has one, so it is small: the heap of retries holds entries themselves, and nothing in it can
    refer back to it. The first two fields order the heap and stay while it is in there; serials are unique, so the
    others are never compared.
    """

    due_us: int  # of the retry, while nothing is in flight
    serial: int  # of what is in flight, else of what failed last
    propolis_id: UUID
    newest: SledVmmState
    sent: SledVmmState | None = None  # what is on the wire
    behind: bool = False  # `newest` came after `sent` went out
    attempt: int = 0  # `_FORGOTTEN`: only the heap still has it
    why: str = ""


@attrs.define(eq=False)
class Outbox:
    """All publications of one Nexus endpoint; `handle` is the door (`submit`, `replied`, `forget` are its wings).

    `seed` decides the jitter, together with the VMM's id, its generation and the attempt.
    """

    policy: Policy = INTERNAL_SERVICE
    seed: int = 0
    # by `UUID.int`: a UUID hashes and compares in Python, and there are four look-ups per publication
    _entries: dict[int, _Entry] = attrs.field(init=False, factory=dict)
    _retries: list[_Entry] = attrs.field(init=False, factory=list)
    _waiting: int = attrs.field(init=False, default=0)  # entries with a live timer
    _serial: int = attrs.field(init=False, default=0)

    def handle(self, item: OutboxInput, now_us: int) -> list[OutboxEffect]:
        """Take one input; returns what shall be done about it, in this order."""
        # isinstance and attributes: a positional pattern costs three times as much, and this is done per publication
        if isinstance(item, Submit):
            return self.submit(item.propolis_id, item.body)
        if isinstance(item, Replied):
            return self.replied(item.propolis_id, item.serial, item.outcome, now_us)
        if isinstance(item, Tick):
            return self._due(now_us)
        if isinstance(item, Forget):
            self.forget(item.propolis_id)
            return []
        if isinstance(item, Hurry):
            return self._hurry()
        assert_never(item)

    def next_deadline_us(self) -> int | None:
        """When the next `Tick` has something to do; None: never, as things are."""
        retries = self._retries
        while retries:
            if _is_live(retries[0]):
                return retries[0].due_us
            heappop(retries)
        return None

    def pending(self) -> Iterator[Pending]:
        """What has not been settled, oldest VMM first."""
        return map(_pending, self._entries.values())

    def pending_of(self, propolis_id: UUID) -> Pending | None:
        """The same for one VMM; None if Nexus knows all about it."""
        entry = self._entries.get(propolis_id.int)
        return None if entry is None else _pending(entry)

    def in_flight(self) -> Iterator[Send]:
        """What was sent and is not answered, oldest VMM first."""
        for entry in self._entries.values():
            if entry.sent is not None:
                yield Send(entry.propolis_id, entry.sent, entry.attempt, entry.serial)

    def __len__(self) -> int:
        """VMMs with something unsettled."""
        return len(self._entries)

    def submit(self, propolis_id: UUID, body: SledVmmState) -> list[OutboxEffect]:
        """The same as `handle(Submit(...))`, without an envelope: for callers that publish in every turn."""
        entry = self._entries.get(propolis_id.int)
        if entry is None:
            entry = _Entry(0, 0, propolis_id, body)
            self._entries[propolis_id.int] = entry
            return [self._send(entry)]
        # Nexus would silently drop an older one (NX 7 #1), so whoever submits it has a bug
        assert body.vmm_state.gen >= entry.newest.vmm_state.gen, "a VMM's generation fell"
        entry.newest = body
        # Waiting for a retry: the timer stays, or a chatty VMM would defeat the backoff.
        entry.behind = entry.sent is not None
        return []

    def _send(self, entry: _Entry) -> Send:
        self._serial += 1
        entry.serial = self._serial
        entry.sent = entry.newest
        entry.behind = False
        return Send(entry.propolis_id, entry.newest, entry.attempt, entry.serial)

    def replied(self, propolis_id: UUID, serial: int, outcome: Outcome, now_us: int) -> list[OutboxEffect]:
        """The same as `handle(Replied(...))`, without an envelope."""
        entry = self._entries.get(propolis_id.int)
        if entry is None or entry.serial != serial or entry.sent is None:
            return []  # forgotten meanwhile, or told twice
        if isinstance(outcome, Transient):
            self._retry_later(entry, outcome.why, now_us)
            return []
        settled = Settled(entry.propolis_id, entry.sent, outcome)
        if not entry.behind:
            del self._entries[propolis_id.int]
            return [settled]
        entry.attempt = 0
        entry.why = ""
        return [settled, self._send(entry)]

    def _retry_later(self, entry: _Entry, why: str, now_us: int) -> None:
        # the generation is the occurrence: each series of failures draws anew without being counted
        number = draw(self.seed, "outbox", entry.propolis_id, entry.newest.vmm_state.gen, entry.attempt)
        entry.due_us = now_us + delay_us(self.policy, entry.attempt, number)
        entry.attempt += 1
        entry.sent = None
        entry.behind = False
        entry.why = why
        self._waiting += 1
        heappush(self._retries, entry)

    def _due(self, now_us: int) -> list[OutboxEffect]:
        sends: list[OutboxEffect] = []
        retries = self._retries
        while retries and retries[0].due_us <= now_us:
            entry = heappop(retries)
            if _is_live(entry):
                self._waiting -= 1
                sends.append(self._send(entry))
        return sends

    def _hurry(self) -> list[OutboxEffect]:
        # in the order in which they would have come due, ties by age
        waiting = sorted(filter(_is_live, self._retries))
        self._retries.clear()
        self._waiting = 0
        return [self._send(entry) for entry in waiting]

    def forget(self, propolis_id: UUID) -> None:
        """The same as `handle(Forget(...))`, without an envelope."""
        entry = self._entries.pop(propolis_id.int, None)
        if entry is None or entry.sent is not None:
            return
        entry.attempt = _FORGOTTEN
        self._waiting -= 1  # its timer stays in the heap, cancelled, until it comes up or the heap is rebuilt
        if len(self._retries) > 2 * self._waiting + _HEAP_SLACK:
            self._retries = [*filter(_is_live, self._retries)]
            heapify(self._retries)


def _is_live(entry: _Entry) -> bool:
    return entry.attempt != _FORGOTTEN


def _pending(entry: _Entry) -> Pending:
    flying = entry.sent is not None
    due_us = None if flying else entry.due_us
    return Pending(entry.propolis_id, entry.newest, flying, entry.attempt, due_us, entry.why)
