"""Where a scenario is played, as users, expectations and explanations see it: the virtual world or the wall clock's.

Read before: engine/engine.py.
Read next: daemon/judging.py, daemon/on_sockets.py, play/judge/expect.py, play/tasks.py, play/users.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from uuid import UUID

from nexus_client.stub import contract as nx
from nexus_client.stub.nexus import Nexus
from sim_sled.core.rack import Rack
from sim_sled.engine.cast import Subject
from sim_sled.engine.engine import Engine
from sim_sled.language.schema import Scenario
from sim_sled.play.asks import Answer, Ask

Answered = Callable[[nx.Reply | nx.Dropped], None]


class Wishes(Protocol):
    """Who remembers what users want, to judge what they get."""

    def wished(self, instance_id: UUID, verb: str) -> None:
        """A user has asked for this."""
        ...

    def stop_answered(self, instance_id: UUID, *, accepted: bool) -> None:
        """How a wished stop was answered."""
        ...


class Judging(Protocol):
    """Who judges, as those see it who are judged."""

    @property
    def invariants(self) -> Wishes:
        """What is told of wishes."""
        ...

    def touch_tasks(self) -> None:
        """A task has moved: look again."""
        ...


class TasksSeen(Protocol):
    """Tasks of users, as their judge sees them."""

    state: dict[str, str]

    def path(self, sled: UUID, path: str) -> list[str]:
        """What the last inventory of a sled has there."""
        ...


class Stage(Protocol):
    """What a run offers to its users and its judges."""

    scenario: Scenario
    seed: int
    nexus_5xx: list[str]

    @property
    def judge(self) -> Judging:
        """Who is told what users do."""
        ...

    @property
    def tasks(self) -> TasksSeen:
        """What has come of the users' tasks."""
        ...

    @property
    def engine(self) -> Engine:
        """The rules."""
        ...

    @property
    def rack(self) -> Rack:
        """All sleds."""
        ...

    @property
    def nexus(self) -> Nexus:
        """The model's core."""
        ...

    @property
    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        ...

    @property
    def elapsed_us(self) -> int:
        """Since the registration of the fleet."""
        ...

    def ask(self, make: Callable[[int], Any], answered: Answered) -> None:
        """Give the model an input that has a ticket; its answer comes back by `answered`."""
        ...

    def request(self, wish: Ask, answered: Callable[[Answer], None]) -> None:
        """Ask a sled, or a server beside it, as Nexus does for tasks of its own."""
        ...

    def line(self, kind: str, text: str, who: Subject | None = None, sled: str = "-") -> None:
        """A line for the trace."""
        ...

    def readable(self, text: str) -> str:
        """Ids replaced by names."""
        ...
