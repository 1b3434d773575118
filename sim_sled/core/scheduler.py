"""One heap of deadlines for all actors of a rack; equal times fire in the order in which they were set.

An actor carries its own `armed` number: an entry of the heap is alive only while it is the actor's latest, so
moving or cancelling a deadline never searches the heap.

Read before: core/observe.py. Read next: core/turn.py, core/vmm.py.
"""

from __future__ import annotations

import heapq
from typing import Protocol

import attrs


class Actor(Protocol):
    """Whatever can be due: `armed` is the number of its live entry (0: none), `due_us` that entry's time."""

    armed: int
    due_us: int | None


@attrs.define(eq=False)
class Scheduler:
    """See the module. Times in microseconds since the Unix epoch."""

    _heap: list[tuple[int, int, Actor]] = attrs.field(factory=list)
    _count: int = 0

    def set(self, actor: Actor, due_us: int | None) -> None:
        """Move `actor`'s deadline (None: cancel). Free when it does not move."""
        if due_us == actor.due_us:
            return
        actor.due_us = due_us
        if due_us is None:
            actor.armed = 0
            return
        self._count += 1
        actor.armed = self._count
        heapq.heappush(self._heap, (due_us, self._count, actor))
        if len(self._heap) > 64 and self._count % 64 == 0 and self._mostly_dead():
            self._heap = [entry for entry in self._heap if entry[2].armed == entry[1]]
            heapq.heapify(self._heap)

    def next_us(self) -> int | None:
        """The earliest live deadline."""
        heap = self._heap
        while heap and heap[0][2].armed != heap[0][1]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now_us: int) -> Actor | None:
        """The next actor due at `now_us`, disarmed; None when nobody is."""
        heap = self._heap
        while heap and (heap[0][0] <= now_us or heap[0][2].armed != heap[0][1]):
            _, number, actor = heapq.heappop(heap)
            if actor.armed == number:
                actor.armed = 0
                actor.due_us = None
                return actor
        return None

    def _mostly_dead(self) -> bool:
        # sampled: counting all would cost what it saves
        sample = self._heap[:: max(1, len(self._heap) // 32)]
        return sum(entry[2].armed != entry[1] for entry in sample) * 2 > len(sample)
