"""Pause, step and until: the one clock of a daemon stands, and is moved to when something is due.

    pause   time stands, and with it all that takes time: a boot, a retry, a request to which a rule or a preset gives
            a latency. Other requests are answered, and reports go out
    step    time goes to the next thing that is due, which happens
    until   time goes from one such thing to the next as fast as they can be carried out, until a VMM is in a state or
            so much time has gone by; then it stands

Between two moments, what is on the network (a report, a call of the model) is waited for: its answer takes real time,
of which this clock knows nothing. The model of Nexus beside a rack has the same clock; a Nexus elsewhere does not
notice.

Read before: daemon/clock.py. Read next: daemon/daemon.py, daemon/judging.py, daemon/snapshot.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

import attrs
from msgspec import Struct

from sim_sled.daemon.clock import Clock

STEPS_MAX: Final = 1_000_000
"""Moments of one `until`: a day of a thousand VMMs that are retried each second would be more."""
MOVE_S: Final = 60.0
"""Seconds of real time that one `until` may take; whoever wants more asks again."""
SETTLE_S: Final = 0.5
"""How long an answer may be waited for between two moments. What hangs for longer is not waited for a second time."""
_LOOK_S: Final = 0.001


class Timed(Protocol):
    """Whoever lives by the clock: a daemon, the model of Nexus beside it."""

    def next_deadline_us(self) -> int | None: ...

    def catch_up(self) -> None:
        """Whatever is due by now happens; the timer is set by what the clock says."""
        ...

    @property
    def on_the_network(self) -> int:
        """How many answers are waited for."""
        ...


class Moving(RuntimeError):
    """Somebody else moves this clock."""


class Moved(Struct, frozen=True):
    """How many moments went by, and whether what was asked for came about; if not, `why_not` may say more."""

    steps: int
    met: bool
    why_not: str = ""


Met = Callable[[], bool]


@attrs.define(eq=False)
class Pausing:
    """`all`: who lives by this clock; `changed` is told that it stands, or goes."""

    clock: Clock
    all: list[Timed]
    changed: Callable[[], None] = lambda: None
    held: Callable[[], int] = lambda: 0
    """How many of those that are waited for wait for this very clock."""
    _moving: bool = False
    _told: bool = False
    """Whether somebody has said `pause` or `resume` since the clock began to be moved: their word is the last."""
    _hanging: int = 0

    def pause(self) -> None:
        """Time stands, also after what moves it now, which ends. Free if it does already."""
        self._told = True
        self._stop()

    def resume(self) -> None:
        """Time goes on from where it stands; what moves it now ends."""
        self._told = True
        self._go()

    def _stop(self) -> None:
        self.clock.stop()
        self._rearm()

    def _go(self) -> None:
        self.clock.go()
        self._rearm()

    def _rearm(self) -> None:
        for each in self.all:
            each.catch_up()
        self.changed()

    def next_deadline_us(self) -> int | None:
        """When something is due next."""
        due = [us for each in self.all if (us := each.next_deadline_us()) is not None]
        return min(due, default=None)

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """Time stands, and what is on the network has arrived or hangs; afterwards it goes on if it did before, or
        does what somebody has said meanwhile.

        Raises `Moving`.
        """
        if self._moving:
            raise Moving("somebody else moves the clock of this daemon")
        self._moving, self._told, stood = True, False, self.clock.stands
        try:
            self._stop()
            await self.settle()
            yield
        finally:
            self._moving = False
            if stood or self._told:
                self._rearm()
            else:
                self._go()

    async def step(self, steps: int) -> Moved:
        """So many moments; less if nothing is due any more. Raises `Moving`."""
        return await self._move(None, None, steps)

    async def until(self, within_us: int, met: Met | None) -> Moved:
        """Until `met`, or until so much time has gone by. Raises `Moving`."""
        return await self._move(self.clock.now_us() + within_us, met, STEPS_MAX)

    async def _move(self, end_us: int | None, met: Met | None, most: int) -> Moved:
        if self._moving:
            raise Moving("somebody else moves the clock of this daemon")
        self._moving, self._told = True, False
        try:
            self._stop()
            async with asyncio.timeout(MOVE_S):
                return await self._moments(end_us, met, most)
        except TimeoutError:
            return Moved(0, met=False, why_not=f"this took longer than {MOVE_S:g} s of real time")
        finally:
            self._moving = False

    async def _moments(self, end_us: int | None, met: Met | None, most: int) -> Moved:
        await self.settle()
        for steps in range(most):
            if met is not None and met():
                return Moved(steps, met=True)
            if self._told:
                return Moved(steps, met=False, why_not="somebody has paused or resumed time meanwhile")
            due_us = self.next_deadline_us()
            if end_us is not None and (due_us is None or due_us > end_us):
                self._at(max(end_us, self.clock.now_us()))
                await self.settle()
                return Moved(steps, met=met is None or met())
            if due_us is None:
                return Moved(steps, met=False, why_not="nothing is due")
            self._at(max(due_us, self.clock.now_us()))
            await self.settle()
        if end_us is None:
            return Moved(most, met=True)
        return Moved(most, met=False, why_not=f"{most:,} moments have gone by")

    def _at(self, now_us: int) -> None:
        self.clock.put(now_us)
        self._rearm()

    async def settle(self) -> None:
        """Until nobody waits for an answer, but for those that hung before."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLE_S
        await asyncio.sleep(0)  # what was asked for just now is on its way
        # looked at, since nobody tells: what is waited for belongs to several owners
        while (waiting := self._on_the_network()) > self._hanging and loop.time() < until:  # noqa: ASYNC110 -- see above
            await asyncio.sleep(_LOOK_S)
        self._hanging = waiting

    def _on_the_network(self) -> int:
        return sum(each.on_the_network for each in self.all) - self.held()
