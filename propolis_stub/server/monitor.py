"""What `GET /instance/state-monitor` tells, without sockets (PR 3.7): one channel per ensured VM.

A call asks for generation N: answered at once with the *newest* publication if that has N or more; else it waits,
bound to this VM's channel, until the channel gets there or closes. Waiting costs one entry in a list: nothing polls.

Read before: contract.py. Read next: server/instance.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Generic, TypeVar

import attrs

from propolis_stub.types import Publication

W = TypeVar("W")


class Gone(Enum):
    """The answer 410: the channel is closed and never reached the generation asked for."""

    GONE = "gone"


Answer = Publication | Gone


@attrs.define(eq=False)
class Channel(Generic[W]):
    """One VM's generations and the calls that wait; `W` is whatever the shell wakes (a ticket, a future)."""

    newest: Publication | None = None  # None: a stepped target before its first publication
    closed: bool = False
    _waiting: dict[int, dict[W, None]] = attrs.Factory(dict)  # by the generation asked for, in order of arrival

    def ask(self, gen: int, waiter: W) -> Answer | None:
        """The answer, or None: `waiter` is kept and comes back from `publish` or `close`."""
        if self.newest is not None and gen <= self.newest.gen:
            return self.newest
        if self.closed:
            return Gone.GONE
        self._waiting.setdefault(gen, {})[waiter] = None
        return None

    def forget(self, gen: int, waiter: W) -> None:
        """The call has gone away."""
        waiters = self._waiting.get(gen)
        if waiters is not None and waiter in waiters:
            del waiters[waiter]
            if not waiters:
                del self._waiting[gen]

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return sum(len(waiters) for waiters in self._waiting.values())

    def publish(self, publication: Publication) -> list[W]:
        """Takes the next publication; returns whose calls that answers, by generation."""
        assert not self.closed
        assert publication.gen == (self.newest.gen if self.newest is not None else 0) + 1
        self.newest = publication
        woken: list[W] = []
        for gen in sorted(gen for gen in self._waiting if gen <= publication.gen):
            woken += self._waiting.pop(gen)
        return woken

    def close(self) -> list[W]:
        """No publication follows; returns those who waited for one in vain."""
        self.closed = True
        gone = [waiter for gen in sorted(self._waiting) for waiter in self._waiting[gen]]
        self._waiting.clear()
        return gone
