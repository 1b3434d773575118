"""What the Nexus model counts, and its metrics for Prometheus. By word and by sled, never by instance.

Read before: dropshot/observing.py. Read next: stub/server/host.py, stub/server/control.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import UUID

from nexus_client.dropshot.observing import Family, Histogram, Slots
from nexus_client.stub.contract import Happened

if TYPE_CHECKING:
    pass


class Counters:
    """Plain integers, counted as it happens; text only when scraped."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.transitions: dict[str, int] = {}
        self.reports = Histogram()
        self._calls: dict[tuple[str, ...], Histogram] = {}
        self._slots: Slots[UUID] = Slots()

    def add(self, line: Happened) -> None:
        """A line of the timeline."""
        self.lines[line.what] = self.lines.get(line.what, 0) + 1
        if line.what == "public":
            self.transitions[line.text] = self.transitions.get(line.text, 0) + 1

    def called(self, sled_id: UUID, outcome: str, took_us: int) -> None:
        """A call to a sled is over; `outcome` is the name of its class."""
        key = self._slots.label(sled_id), outcome
        found = self._calls.get(key)
        if found is None:
            found = self._calls[key] = Histogram()
        found.observe(took_us)

    def families(self) -> Iterator[Family]:
        """What has been counted."""
        yield Family(
            "sim_nexus_timeline_lines_total", "Lines of the timelines, by what they tell", "counter", ("what",),
            {(what,): count for what, count in self.lines.items()},
        )  # fmt: skip
        yield Family(
            "sim_nexus_transitions_total", "Changes of the public state of instances", "counter", ("to",),
            {(state,): count for state, count in self.transitions.items()},
        )  # fmt: skip
        yield Family(
            "sim_nexus_report_duration_seconds", "How long a sled's report takes to be answered", "histogram", (),
            {(): self.reports},
        )  # fmt: skip
        yield Family(
            "sim_nexus_sled_call_duration_seconds", "How long calls to sleds take", "histogram",
            ("sled_id", "outcome"), dict(self._calls),
        )  # fmt: skip
