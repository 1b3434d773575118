"""Where a scenario is played, as users, expectations and explanations see it: the virtual world or the wall clock's.

Read before: engine/engine.py.
Read next: daemon/judging.py, daemon/on_sockets.py, play/judge/expect.py, play/tasks.py, play/users.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from nexus_client.stub import contract as nx
from nexus_client.stub.nexus import Nexus
from sim_sled.core.rack import Rack
from sim_sled.engine.cast import Subject
from sim_sled.engine.engine import Engine
from sim_sled.language.schema import Scenario

if TYPE_CHECKING:
    from sim_sled.play.asks import Answer, Ask
    from sim_sled.play.judge.expect import Judge
    from sim_sled.play.users import Users

Answered = Callable[[nx.Reply | nx.Dropped], None]


class Stage(Protocol):
    """What a run offers to its users and its judges."""

    scenario: Scenario
    seed: int
    judge: Judge
    users: Users
    nexus_5xx: list[str]

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
