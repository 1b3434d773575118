"""The one reader of clocks. Everybody else is told what time it is.

A daemon has one clock, and the model of Nexus beside it in the same process has the same: whoever stops it, moves it
or sets it (daemon/pausing.py) does so for both.

Read next: daemon/pausing.py.
"""

from __future__ import annotations

import time


class Clock:
    """Wall-clock time that never goes back by itself: anchored once, then driven by the monotonic clock.

    A host whose clock is set while the daemon runs must not see generations with falling times. Once it has been
    stopped, it differs from the wall's for good.
    """

    def __init__(self) -> None:
        self._anchor_us = time.time_ns() // 1_000  # noqa: TID251 -- this is the clock
        self._started_ns = time.monotonic_ns()  # noqa: TID251 -- this is the clock
        self._stands_us: int | None = None

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        if self._stands_us is not None:
            return self._stands_us
        return self._anchor_us + (time.monotonic_ns() - self._started_ns) // 1_000  # noqa: TID251 -- this is the clock

    @property
    def stands(self) -> bool:
        """Whether it has been stopped."""
        return self._stands_us is not None

    def stop(self) -> None:
        """From now on it is now."""
        self._stands_us = self.now_us()

    def go(self) -> None:
        """It goes on from where it stands."""
        if self._stands_us is not None:
            self._set(self._stands_us)
            self._stands_us = None

    def put(self, now_us: int) -> None:
        """It is `now_us`, whether it stands or goes."""
        if self._stands_us is not None:
            self._stands_us = now_us
        else:
            self._set(now_us)

    def _set(self, now_us: int) -> None:
        self._anchor_us = now_us
        self._started_ns = time.monotonic_ns()  # noqa: TID251 -- this is the clock
