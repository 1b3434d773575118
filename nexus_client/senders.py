r"""Performs `Send`s side by side, so that another VMM's trouble delays nobody. Shell.

    send --> fresh lane ----> in flight, quick --0.1 s--> in flight, slow --> outcome
         \-> suspects' lane -> in flight, slow ------------------------------^
         \-> held, at once, while nothing takes connections at all

Three rules keep a report from waiting for another VMM's (issue: 1,000 hanging VMMs delayed others by 45 s):

* What has not been answered within `SLOW_AFTER_S` gives its place to others, and goes on waiting for its answer.
* A VMM whose last attempt hung is a suspect: suspects have a lane and at most half of all places.
* If every place is taken, the oldest that is no suspect's is given up once it is `GIVE_UP_S` old, and told as hung,
  or as unreached if nothing has taken its connection. Suspects keep the whole time, so a Nexus that is merely slow
  gets its answers through.

The breaker: while nothing takes connections at all, one probe goes out per `PROBE_S`, and everybody else is told
`HELD` without a connect. Their clocks in the outbox run on as if they had been refused. It opens only when refusals
come faster than probes would, so that a few VMMs are tried exactly as often as their retry policy says.

Read before: client.py, outbox.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar
from uuid import UUID

from nexus_client.client import NexusClient
from nexus_client.exchange.http_client import Call
from nexus_client.outbox import Outcome, Transient, Trouble
from nexus_client.types import SledVmmState
from nexus_client.verdict import MESSAGE_CHARS_MAX

QUICK_MAX: Final = 256
"""In flight and not slow yet. 32 are as fast as it gets (the client saturates a core)."""

SLOW_AFTER_S: Final = 0.1
"""An answer of a Nexus that is well comes within some milliseconds."""

IN_FLIGHT_MAX: Final = 4_096
"""In all: a connection each, some 10 KB and a file descriptor. The daemon lowers it to what it may open."""

GIVE_UP_S: Final = 5.0
"""A third of a request's time."""

SUSPECTS_MAX: Final = 100_000
"""Remembered. Of more, the first are forgotten: they only count as fresh again."""

PROBE_S: Final = 1.0
OPENS_AFTER: Final = 32
"""Connects that failed within `PROBE_S`, none having succeeded."""


class Sendable(Protocol):
    """A `Send`, or what carries one on to whoever asked for it."""

    @property
    def propolis_id(self) -> UUID: ...

    @property
    def body(self) -> SledVmmState: ...


S = TypeVar("S", bound=Sendable)


class _Flight(Generic[S]):
    """One `Send` under way."""

    __slots__ = ("began", "call", "send", "suspect")

    def __init__(self, send: S, began: float, *, suspect: bool) -> None:
        self.send = send
        self.began = began
        self.suspect = suspect
        self.call: Call | None = None


class Senders(Generic[S]):
    """Each `send`'s outcome goes to `on_reply(send, outcome)`: in the event loop, exactly once, never from within
    `send`, unless `stop` came first. What it raises goes to the loop's exception handler.

    First come, first served within a lane. Bounded by the outbox: it has at most one `Send` per VMM out.
    `on_outage(True)` tells that the breaker has opened, `on_outage(False)` that it has closed. While `breaker` is
    False every send is tried, for those who count attempts.
    """

    def __init__(
        self,
        client: NexusClient,
        on_reply: Callable[[S, Outcome], None],
        *,
        in_flight_max: int = IN_FLIGHT_MAX,
        quick_max: int = QUICK_MAX,
        breaker: bool = True,
        on_outage: Callable[[bool], None] = lambda _: None,
    ) -> None:
        if in_flight_max < 2:
            raise ValueError("suspects and fresh ones need a place each")
        self._client = client
        self._on_reply = on_reply
        self._on_outage = on_outage
        self._in_flight_max = in_flight_max
        self._suspects_in_flight_max = in_flight_max // 2
        self._quick_max = quick_max
        self._fresh: deque[S] = deque()
        self._suspicious: deque[S] = deque()
        self._hung: dict[int, None] = {}  # VMMs whose last attempt hung, the longest ago first
        # Flights, each the oldest first. Those of suspects are neither quick nor slow.
        self._quick: dict[_Flight[S], None] = {}
        self._slow: dict[_Flight[S], None] = {}
        self._of_suspects: dict[_Flight[S], None] = {}
        self._held: list[S] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        # the breaker
        self.breaker = breaker
        self._open = False
        self._refused = 0  # in this period
        self._period_began = 0.0
        self._probe_at = 0.0

    @property
    def in_flight(self) -> int:
        return len(self._quick) + len(self._slow) + len(self._of_suspects)

    @property
    def waiting(self) -> int:
        """In flight, or in line."""
        return self.in_flight + len(self._fresh) + len(self._suspicious) + len(self._held)

    @property
    def outage(self) -> bool:
        """Whether the breaker is open."""
        return self._open

    def send(self, send: S) -> None:
        """Take one. Needs a running loop."""
        if self.breaker and self._open and not self._probes():
            if not self._held:
                asyncio.get_running_loop().call_soon(self._tell_held)
            self._held.append(send)
            return
        if send.propolis_id.int in self._hung:
            self._suspicious.append(send)
        else:
            self._fresh.append(send)
        self._pump()

    def trust(self) -> None:
        """Forget what was thought of Nexus: the next sends are tried (shutdown, or it is known to be back)."""
        self._close_breaker()
        self._hung.clear()

    async def stop(self) -> None:
        """End at once; what has not been answered is not replied to."""
        self._stopped = True
        self._fresh.clear()
        self._suspicious.clear()
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for flights in (self._quick, self._slow, self._of_suspects):
            for flight in list(flights):
                if flight.call is not None:
                    flight.call.cancel()
            flights.clear()

    # --- places --------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start whatever may start."""
        now = asyncio.get_running_loop().time()
        while self._fresh and self._place_for_fresh(now):
            self._start(self._fresh.popleft(), now, suspect=False)
        while (
            self._suspicious
            and len(self._of_suspects) < self._suspects_in_flight_max
            and self.in_flight < self._in_flight_max
        ):
            self._start(self._suspicious.popleft(), now, suspect=True)
        if self._fresh and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SLOW_AFTER_S / 4, self._look)

    def _look(self) -> None:
        self._timer = None
        self._pump()

    def _place_for_fresh(self, now: float) -> bool:
        if len(self._quick) >= self._quick_max:
            oldest = next(iter(self._quick))
            if now - oldest.began < SLOW_AFTER_S:
                return False
            del self._quick[oldest]
            self._slow[oldest] = None
        if self.in_flight < self._in_flight_max:
            return True
        oldest_slow = next(iter(self._slow), None)
        if oldest_slow is None or now - oldest_slow.began < GIVE_UP_S:
            return False
        assert oldest_slow.call is not None, "in flight"
        taken = oldest_slow.call.connection is not None
        oldest_slow.call.cancel()
        why = f"no {'answer' if taken else 'connection'} within {now - oldest_slow.began:.1f} s, and others wait"
        self._landed(oldest_slow, Transient(why, Trouble.HUNG if taken else Trouble.UNREACHED), pump=False)
        return bool(self._fresh)  # else the breaker has opened, and they are told so

    def _start(self, send: S, now: float, *, suspect: bool) -> None:
        flight = _Flight(send, now, suspect=suspect)
        (self._of_suspects if suspect else self._quick)[flight] = None
        try:
            flight.call = self._client.start_put(
                send.propolis_id, send.body, lambda outcome: self._landed(flight, outcome, pump=True)
            )
        except Exception as error:  # noqa: BLE001 -- a fault in there must not lose a state: it is tried again
            outcome = Transient(f"{type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX])
            asyncio.get_running_loop().call_soon(lambda: self._landed(flight, outcome, pump=True))

    def _landed(self, flight: _Flight[S], outcome: Outcome, *, pump: bool) -> None:
        if self._stopped:
            return
        for flights in (self._quick, self._slow, self._of_suspects):
            if flights.pop(flight, _MISSING) is None:
                break
        trouble = outcome.trouble if isinstance(outcome, Transient) else None
        self._remember(flight.send.propolis_id.int, hung=trouble is Trouble.HUNG)
        self._judge(unreached=trouble is Trouble.UNREACHED)
        self._reply(flight.send, outcome)
        if pump and (self._fresh or self._suspicious):
            self._pump()

    def _remember(self, vmm: int, *, hung: bool) -> None:
        if not hung:
            self._hung.pop(vmm, None)
            return
        self._hung[vmm] = None
        if len(self._hung) > SUSPECTS_MAX:
            del self._hung[next(iter(self._hung))]

    def _reply(self, send: S, outcome: Outcome) -> None:
        try:
            self._on_reply(send, outcome)
        except Exception as error:  # noqa: BLE001 -- a bug there must not cost the others their turn
            asyncio.get_running_loop().call_exception_handler({"message": "on_reply raised", "exception": error})

    # --- the breaker ---------------------------------------------------------------------------------------------

    def _probes(self) -> bool:
        """Whether this one goes out: also if another probe still waits for a connection, as it may for long."""
        now = asyncio.get_running_loop().time()
        if now < self._probe_at:
            return False
        self._probe_at = now + PROBE_S
        return True

    def _judge(self, *, unreached: bool) -> None:
        if not unreached:
            self._close_breaker()
            return
        if self._open:
            return
        now = asyncio.get_running_loop().time()
        if now - self._period_began > PROBE_S:
            self._period_began = now
            self._refused = 0
        self._refused += 1
        if self.breaker and self._refused >= OPENS_AFTER:
            self._open = True
            self._probe_at = now + PROBE_S
            self._on_outage(True)
            # those in line are not worth a connect each either
            waiting = [*self._fresh, *self._suspicious]
            self._fresh.clear()
            self._suspicious.clear()
            if waiting and not self._held:
                asyncio.get_running_loop().call_soon(self._tell_held)
            self._held += waiting

    def _close_breaker(self) -> None:
        self._refused = 0
        if self._open:
            self._open = False
            self._on_outage(False)

    def _tell_held(self) -> None:
        held, self._held = self._held, []
        for send in held:
            self._reply(send, _HELD)


_HELD: Final = Transient("nothing takes connections at Nexus's address; one probe a second asks", Trouble.HELD)
_MISSING: Final = object()
