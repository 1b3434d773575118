"""Faults of the Nexus model's internal API, set over the control API: refuse, hang, delay, answer N.

A fault belongs to the transport: the core never sees a request that a fault has swallowed. First matching one wins.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

import attrs
import msgspec

FAULTS_MAX: Final = 100
"""Faults at a time: each request asks all of them."""


@attrs.define(eq=False)
class Fault:
    """do: `refuse` (connection closed unanswered), `hang` (no answer while the fault lasts), `delay` (then as usual),
    `answer` (this status, nothing done), `lose` (done, but the connection closes unanswered).

    match: beginning of the path (`/vmms/` for reports). times: how often, None for ever. status: of `answer`.
    """

    do: Literal["refuse", "hang", "delay", "answer", "lose"]
    match: str = "/vmms/"
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 503
    error_code: str | None = None
    message: str = "injected"
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] = 1000
    hits: int = 0


@attrs.define(eq=False)
class Faults:
    """Those that are set, by number. The listener asks for the first that a request meets, before the core does."""

    rules: dict[int, Fault] = attrs.field(factory=dict)
    struck: dict[str, int] = attrs.field(factory=dict)
    """How often each sort of fault struck, also of those that are no more."""
    _removed: dict[int, asyncio.Event] = attrs.field(factory=dict)
    _next: int = 1

    def add(self, fault: Fault) -> int:
        """The fault's number. Raises ValueError beyond FAULTS_MAX."""
        if len(self.rules) >= FAULTS_MAX:
            raise ValueError(f"there are {FAULTS_MAX} faults already")
        fault.hits = 0
        number = self._next
        self._next += 1
        self.rules[number] = fault
        self._removed[number] = asyncio.Event()
        return number

    def remove(self, number: int) -> bool:
        if self.rules.pop(number, None) is None:
            return False
        self._removed.pop(number).set()
        return True

    def clear(self) -> None:
        for number in list(self.rules):
            self.remove(number)

    async def until_removed(self, number: int) -> None:
        """Returns when the fault is no more; at once if it never was."""
        event = self._removed.get(number)
        if event is not None:
            await event.wait()

    def strike(self, path: str) -> tuple[int, Fault] | None:
        """The fault that meets this request, and its number; counts it."""
        for number, fault in self.rules.items():
            if path.startswith(fault.match) and (fault.times is None or fault.hits < fault.times):
                fault.hits += 1
                self.struck[fault.do] = self.struck.get(fault.do, 0) + 1
                return number, fault
        return None
