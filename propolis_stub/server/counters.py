"""What a stand-alone Propolis counts, and its metrics for Prometheus.

Read before: nexus_client/dropshot/observing.py. Read next: server/host.py, server/control.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from propolis_stub import contract
from propolis_stub.types import Level

if TYPE_CHECKING:
    pass


class Counters:
    """Plain integers, counted as it happens; text only when scraped."""

    def __init__(self) -> None:
        self.transitions: dict[tuple[str, ...], int] = {}
        self.publications = 0
        self.crashes = 0
        self._state = ""

    def add(self, effects: Iterable[contract.Effect]) -> None:
        """What came of one input."""
        for effect in effects:
            match effect:
                case contract.Published(publication):
                    self.publications += 1
                    change = self._state, publication.state.value
                    if change[0] != change[1]:
                        self._state = change[1]
                        self.transitions[change] = self.transitions.get(change, 0) + 1
                case contract.Crashed():
                    self.crashes += 1
                case contract.LevelChanged(Level.WAITING_FOR_INIT):
                    self._state = ""  # another VM begins
