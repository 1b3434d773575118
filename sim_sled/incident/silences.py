"""Long silences between incidents: a folder of logs may have several, and a replay need not wait for months.

Read before: incident/facts.py. Read next: incident/timeline.py, incident/collecting.py, incident/derive.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from sim_sled.incident.facts import Fact, Observed, Published

HOUR_US: Final = 3_600_000_000
LONG_US: Final = 6 * HOUR_US
"""A silence that is longer is shortened."""
KEPT_US: Final = 2 * HOUR_US
"""What is left of it: more than any period, pause or cool-down of Nexus (NX 4)."""
PENDING_US: Final = 24 * HOUR_US
"""What is left of one in which a VMM is on its way: what takes so long may be the incident."""
_ON_THEIR_WAY: Final = frozenset({"creating", "starting", "stopping", "stopped", "rebooting", "migrating"})


@attrs.frozen
class Silence:
    """From one fact to the next one, and how much of it is left; microseconds since the epoch."""

    from_us: int
    to_us: int
    kept_us: int


@attrs.frozen
class Shortened:
    """Times without what is cut of long silences."""

    silences: tuple[Silence, ...] = ()

    def of(self, at_us: int) -> int:
        """A time, as much earlier as was cut before it."""
        cut = 0
        for each in self.silences:
            if at_us >= each.to_us:
                cut += each.to_us - each.from_us - each.kept_us
            elif at_us > each.from_us:
                at_us = min(at_us, each.from_us + each.kept_us)
        return at_us - cut


def shortened(facts: Sequence[Fact]) -> Shortened:
    """Of facts in the order of time: their long silences."""
    found: list[Silence] = []
    states: dict[str, str] = {}
    before: Fact | None = None
    for fact in facts:
        if before is not None and fact.at_us - before.at_us > LONG_US:
            kept_us = PENDING_US if _ON_THEIR_WAY.intersection(states.values()) else KEPT_US
            if fact.at_us - before.at_us > kept_us:
                found.append(Silence(before.at_us, fact.at_us, kept_us))
        if isinstance(fact, Observed | Published) and fact.vmm:
            states[fact.vmm] = fact.state
        before = fact
    return Shortened(tuple(found))
