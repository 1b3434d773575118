"""The one reader of clocks. Everybody else is told what time it is."""

from __future__ import annotations

import time


class Clock:
    """Wall-clock time that never goes back: anchored once, then driven by the monotonic clock.

    A host whose clock is set while the daemon runs must not see generations with falling times.
    """

    def __init__(self) -> None:
        self._anchor_us = time.time_ns() // 1_000  # noqa: TID251 -- this is the clock
        self._started_ns = time.monotonic_ns()  # noqa: TID251 -- this is the clock

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return self._anchor_us + (time.monotonic_ns() - self._started_ns) // 1_000  # noqa: TID251 -- this is the clock
