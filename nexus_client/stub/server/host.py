"""Owns the Nexus core in a process: stamps time, performs effects, one timer, one task per call to a sled. Shell.

Read before: stub/nexus.py, stub/server/counters.py, stub/server/metrics.py, stub/server/sled_client.py.
Read next: stub/server/serve.py.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from nexus_client.stub.contract import (
    Boot,
    CallSled,
    Crash,
    Crashed,
    Dropped,
    Effect,
    Happened,
    Input,
    Malformed,
    Outcome,
    Reply,
    SledAnswered,
    Tick,
)
from nexus_client.stub.handoff import RackState
from nexus_client.stub.nexus import Nexus
from nexus_client.stub.server.counters import Counters
from nexus_client.stub.server.faults import Faults
from nexus_client.stub.upstairs import Upstairs

if TYPE_CHECKING:
    from nexus_client.stub.server.store import Store

EVENTS_MAX: Final = 10_000
"""Lines kept for `GET /v1/events`; the timelines of the instances are kept beside them."""
TIMER_MAX_S: Final = 3600.0
"""Longest sleep of the timer: a longer deadline is looked at again then."""

CallPerformer = Callable[[CallSled], Awaitable[Outcome]]


def wall_clock_us() -> int:
    return time.time_ns() // 1000  # noqa: TID251 - the one reader of clocks of nexus_client's own server


class Host:
    """`submit` is the door for the servers; `call` performs a sled call (`SledClient.call`)."""

    def __init__(self, nexus: Nexus, call: CallPerformer, clock: Callable[[], int] = wall_clock_us) -> None:
        self.nexus = nexus
        self.store: Store | None = None
        """Where records and sagas are kept, if they are."""
        self.faults = Faults()
        self.counters = Counters()
        self.rack = RackState()
        self.upstairs = Upstairs()
        self.events: deque[tuple[int, Happened]] = deque(maxlen=EVENTS_MAX)
        self.on_crash: Callable[[], None] | None = None
        """Called when the core has died (armed crash or `crash`): the server then takes its listener down."""
        self.on_happened: Callable[[Happened], None] | None = None
        """Called for each line of the timeline."""
        self._call = call
        self._clock = clock
        self._waiting: dict[int, asyncio.Future[Reply | Dropped]] = {}
        self._next_ticket = 1
        self._next_event = 1
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.failed: asyncio.Future[AssertionError] | None = None
        """Set by the server: gets the assertion that ended the core, if one does. A wrong variant may do that."""

    # -- inputs

    async def submit(self, make: Callable[[int], Input]) -> Reply | Dropped:
        """Give the input `make(ticket)` to the core and wait for its answer."""
        ticket = self._next_ticket
        self._next_ticket += 1
        future: asyncio.Future[Reply | Dropped] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        try:
            self.feed(make(ticket))
            return await future
        finally:
            self._waiting.pop(ticket, None)

    async def report(self, make: Callable[[int], Input]) -> Reply | Dropped:
        """As `submit`, and how long it takes is counted as a sled's report."""
        began_us = self._clock()
        try:
            return await self.submit(make)
        finally:
            self.counters.reports.observe(self._clock() - began_us)

    def feed(self, item: Input) -> None:
        """An input that nobody waits for."""
        try:
            effects = self.nexus.handle(item, self._clock())
            if self.store is not None:
                self.store.save(self.nexus)  # before anybody hears of it
            self._perform(effects)
        except AssertionError as error:
            self._closed = True  # nothing that the core says from now on can be relied on
            if self.failed is not None and not self.failed.done():
                self.failed.set_result(error)
            raise
        self._arm()

    def crash(self) -> None:
        self.feed(Crash())

    def boot(self) -> None:
        self.feed(Boot())

    # -- effects

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Reply(ticket) | Dropped(ticket):
                    future = self._waiting.pop(ticket, None)
                    if future is not None and not future.done():
                        future.set_result(effect)
                case CallSled():
                    task = asyncio.get_running_loop().create_task(self._ask(effect))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                case Happened():
                    self.counters.add(effect)
                    self.events.append((self._next_event, effect))
                    self._next_event += 1
                    if self.on_happened is not None:
                        self.on_happened(effect)
                case Crashed():
                    if self.on_crash is not None:
                        self.on_crash()

    async def _ask(self, call: CallSled) -> None:
        began_us = self._clock()
        try:
            outcome = await self._call(call)
        except ValueError as error:  # an address that makes no URL
            outcome = Malformed(str(error))
        self.counters.called(call.sled_id, type(outcome).__name__.lower(), self._clock() - began_us)
        if not self._closed:
            self.feed(SledAnswered(call.call_id, outcome))

    # -- the timer

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_us = self.nexus.next_deadline_us()
        if due_us is None or self._closed:
            return
        delay_s = min(max(0, due_us - self._clock()) / 1e6, TIMER_MAX_S)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.feed(Tick())

    def next_deadline_us(self) -> int | None:
        """When something is due next, by the clock that was given."""
        return None if self._closed else self.nexus.next_deadline_us()

    def catch_up(self) -> None:
        """The clock was stopped, moved or started: what is due by now happens, and the timer is set anew."""
        if not self._closed:
            self.feed(Tick())

    @property
    def on_the_network(self) -> int:
        """Calls to sleds that have not been answered."""
        return len(self._tasks)

    async def close(self) -> None:
        """Stop the timer and the calls in flight; open tickets are dropped."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for ticket, future in list(self._waiting.items()):
            if not future.done():
                future.set_result(Dropped(ticket))

    def state(self) -> dict[str, Any]:
        """What `GET /v1/state` shows."""
        nexus = self.nexus
        return {
            "up": nexus.up,
            "quiet": nexus.quiet,
            "rules": nexus.config.rules.value,
            "variant": nexus.config.variant,
            "saga_mode": nexus.config.saga_mode.value,
            "instances": len(nexus.instances()),
            "sagas": [
                {
                    "id": saga.id,
                    "kind": saga.kind.value,
                    "instance_id": saga.instance_id,
                    "node": saga.node,
                    "at": nexus.stands_at(saga),
                    "propolis_id": saga.concerns,
                    "awaits": saga.awaits,
                    "unwinding": saga.unwinding,
                    "stuck": saga.stuck,
                }
                for saga in nexus.sagas
            ],
            "breaches": nexus.records.breaches(),
            "broken": [str(broken) for broken in nexus.broken],
        }
