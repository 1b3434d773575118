"""Whose clock says what: hosts that have not found the time, garbled times, and what clocks differ by (LG 0 #5, 5).

Within one host the order of its file counts, not its times; between hosts, what both ends of one exchange wrote.

Read before: incident/facts.py. Read next: incident/timeline.py, incident/importing.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from statistics import median
from typing import Final

import attrs

from sim_sled.incident.facts import Answered, Asked, Fact, Published, Received
from sim_sled.incident.lines import LogLine, Reading

VALID_SINCE_US: Final = 946_684_800_000_000
"""The year 2000: a sled that has not found the time yet believes in 1986 (omicron#9095)."""
SAME_US: Final = 50_000
"""Two sleds that differ by less have the same clock, as far as times of requests can tell."""
DAY_US: Final = 86_400_000_000
"""No clock goes forth and back by more within three records of one host: such a time was garbled."""
_HELD_MAX: Final = 3
_PROPOLIS_ZONE: Final = "oxz_propolis-server_"


@attrs.frozen
class Skew:
    """How a host's clock was set right: `offset_us` is added to its times. `pairs` 0: nothing to go by."""

    offset_us: int
    spread_us: int
    pairs: int


@attrs.define
class Steady:
    """Records in the order of their files, each with a time that its neighbours do not make impossible: a garbled one
    would make an incident of years. One of a host is held back until the next one agrees with it.
    """

    reading: Reading
    _last_us: dict[str, int] = attrs.field(factory=dict)
    _held: dict[str, list[tuple[int, LogLine]]] = attrs.field(factory=lambda: defaultdict(list))

    def agrees(self, line: LogLine) -> bool:
        """Whether a record is certain by itself, as nearly all are; `passed` is for the others."""
        host, at_us = line.host, line.time_us
        last_us = self._last_us.get(host)
        if at_us is None or last_us is None or not -DAY_US <= at_us - last_us <= DAY_US or self._held.get(host):
            return False
        self._last_us[host] = at_us
        return True

    def passed(self, line: LogLine) -> Iterator[LogLine]:
        """What is certain with this record."""
        at_us = line.time_us
        if at_us is None or at_us < VALID_SINCE_US:
            yield from self._given_up(line.host)
            yield line
            return
        held = self._held[line.host]
        anchor = self._last_us.get(line.host)
        if anchor is None and held:
            anchor = next((us for us, _ in held if abs(us - at_us) <= DAY_US), None)
        elif anchor is not None and held and abs(held[-1][0] - at_us) <= DAY_US:
            anchor = held[-1][0]  # it has moved, and stays there
        if anchor is not None and abs(anchor - at_us) <= DAY_US:
            for us, each in held:
                yield each if abs(us - anchor) <= DAY_US else self._mended(each, anchor)
            held.clear()
            self._last_us[line.host] = at_us
            yield line
            return
        held.append((at_us, line))
        if len(held) > _HELD_MAX:  # nobody can tell
            yield from (each for _, each in held)
            held.clear()
            self._last_us[line.host] = at_us

    def rest(self) -> Iterator[LogLine]:
        """What nothing came after."""
        for host in self._held:
            yield from self._given_up(host)

    def _given_up(self, host: str) -> Iterator[LogLine]:
        """What is held back of a host; a single record that is days from all before it was garbled."""
        held, anchor = self._held[host], self._last_us.get(host)
        for us, each in held:
            yield (
                each if anchor is None or len(held) > 1 or abs(us - anchor) <= DAY_US else self._mended(each, anchor)
            )
        held.clear()

    def _mended(self, line: LogLine, at_us: int) -> LogLine:
        self.reading.strange(line.where, "a time that is days from those around it", line.text("time"))
        return attrs.evolve(line, time_us=at_us)


def mend_1986(facts: list[Fact]) -> set[str]:
    """Times before a sled found the time: set so that the last of them lies just before the first real one. In place;
    returns the hosts.
    """
    hosts: set[str] = set()
    waiting: dict[str, list[int]] = defaultdict(list)
    for i, fact in enumerate(facts):
        if fact.at_us < VALID_SINCE_US:
            hosts.add(fact.host)
            waiting[fact.host].append(i)
        elif waiting[fact.host]:
            shift = fact.at_us - facts[waiting[fact.host][-1]].at_us
            for k in waiting.pop(fact.host):
                facts[k] = attrs.evolve(facts[k], at_us=facts[k].at_us + shift)
    return hosts


def set_right(facts: list[Fact], sleds: list[str]) -> tuple[dict[str, Skew], dict[str, str]]:
    """Offsets of Nexus and of the sleds against the first sled (LG 5 #3); and on which sled, whose clock it has, each
    zone of Propolis ran.
    """
    skews: dict[str, Skew] = {}
    zones: dict[str, str] = {}
    ends = {f.req_id: f for f in facts if isinstance(f, Asked) and f.req_id}
    sent: dict[tuple[str, int], list[Published]] = defaultdict(list)
    for fact in facts:
        if isinstance(fact, Published):
            for who in {fact.vmm, fact.instance} - {""}:  # until 2023-10 reports were about instances
                sent[(who, fact.gen)].append(fact)
    ahead: dict[tuple[str, str], list[int]] = defaultdict(list)  # (nexus host, sled): how far Nexus's clock is ahead
    exact: dict[tuple[str, str], list[int]] = defaultdict(list)  # the same by request ids: nearly no time between
    for fact in facts:
        if isinstance(fact, Answered) and fact.req_id in ends:
            exact[(fact.host, ends[fact.req_id].host)].append(fact.at_us - ends[fact.req_id].at_us)
        elif isinstance(fact, Received) and fact.pushed:
            # the newest attempt is the one that arrived; of one that was repeated nobody can tell
            attempts = sent.get((fact.vmm or fact.instance, fact.gen), [])
            if len(attempts) == 1:
                ahead[(fact.host, attempts[0].host)].append(fact.at_us - attempts[0].at_us)
    ahead |= exact
    nexuses = sorted({nexus for nexus, _ in ahead})
    if not sleds:
        return skews, zones
    reference = sleds[0]
    skews[reference] = Skew(0, 0, 0)
    for nexus in nexuses:
        found = ahead.get((nexus, reference))
        if found:
            skews[nexus] = Skew(-round(median(found)), max(found) - min(found), len(found))
    for sled in sleds[1:]:
        best: Skew | None = None
        for nexus in nexuses:
            found = ahead.get((nexus, sled))
            if found and nexus in skews:
                to_reference = round(median(found)) + skews[nexus].offset_us
                if abs(to_reference) <= SAME_US:
                    to_reference = 0
                best = Skew(to_reference, max(found) - min(found), len(found))
            elif found and nexus not in skews:
                # nothing ties this Nexus to the reference: take its clock as it is
                skews[nexus] = Skew(0, 0, 0)
                best = Skew(round(median(found)), max(found) - min(found), len(found))
        skews[sled] = best or Skew(0, 0, 0)
    # a zone has its sled's clock; where a Propolis ran, its sled's lines about the VMM say
    known = set(sleds)
    ran_on = {fact.vmm: fact.host for fact in facts if fact.vmm and fact.host in known}
    for fact in facts:
        if fact.host.startswith(_PROPOLIS_ZONE) and fact.vmm in ran_on:
            zones[fact.host] = ran_on[fact.vmm]
    return skews, zones
