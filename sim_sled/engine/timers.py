"""What rules will do later. Pure: a heap of times and things to do.

Read before: engine/plans.py. Read next: engine/act/firing.py, engine/reports.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

import attrs

from sim_sled.engine.plans import Overrun

TIMERS_MAX: Final = 2_000_000
"""Timers of rules at a time: two for each of a million VMMs; more is a rule that multiplies."""

Act = Callable[[int], None]
"""What is done then; it is told the time."""


@attrs.define(eq=False)
class Timers:
    """Those that are armed; of equal times the one that was armed first comes first."""

    _heap: list[tuple[int, int, Act, bool]] = attrs.field(factory=list)
    _count: int = 0

    def at(self, due_us: int, act: Act, *, trigger: bool = False) -> None:
        """Do something then. `trigger`: `at`, `every` or `idle` looks whether it fires, which may be so for ever.
        Raises `Overrun` beyond `TIMERS_MAX`.
        """
        if len(self._heap) >= TIMERS_MAX:
            raise Overrun(f"more than {TIMERS_MAX} timers of rules")
        self._count += 1
        heapq.heappush(self._heap, (due_us, self._count, act, trigger))

    def has_planned(self, until_us: int) -> bool:
        """Whether something that a rule has set off goes on by then: no trigger. It looks at all of them."""
        return any(due_us <= until_us and not trigger for due_us, _, _, trigger in self._heap)

    def next_us(self) -> int | None:
        """When the next is due."""
        return self._heap[0][0] if self._heap else None

    def run(self, now_us: int) -> None:
        """Whatever is due by now, and what that arms for now."""
        while self._heap and self._heap[0][0] <= now_us:
            heapq.heappop(self._heap)[2](now_us)
