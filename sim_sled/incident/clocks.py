"""Whose clock says what: hosts that have not found the time, garbled times, and what clocks differ by (LG 0 #5, 5).

Within one host the order of its file counts, not its times; between hosts, what both ends of one exchange wrote.

Read before: incident/facts.py. Read next: incident/timeline.py, incident/importing.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from statistics import median
from typing import Final

import attrs

from sim_sled.incident.facts import Answered, Asked, Fact, Phase, Published, Received
from sim_sled.incident.lines import LogLine, Reading

VALID_SINCE_US: Final = 946_684_800_000_000
"""The year 2000: a sled that has not found the time yet believes in 1986 (omicron#9095)."""
DAY_US: Final = 86_400_000_000
"""No clock goes forth and back by more within three records of one host: such a time was garbled."""
_HELD_MAX: Final = 3
_PROPOLIS_ZONE: Final = "oxz_propolis-server_"


class Proof(IntEnum):
    """What two clocks are compared by, the best first (LG 5 #3)."""

    REQUEST = 1
    """Both ends wrote down one request by its id: nearly no time lies between."""
    REPORT = 2
    """A report that was sent and taken."""
    PHASE = 3
    """A phase of a migration, as the Propolis of each side tells it."""
    MIGRATION = 4
    """A migration's progress, as both agents tell it, which may be late (LG 0 #8)."""


@attrs.frozen
class Skew:
    """How a host's clock was set right: `offset_us` is added to its times, for those of `to`. `pairs` 0: there is
    nothing to go by.
    """

    offset_us: int
    spread_us: int
    pairs: int
    proof: Proof = Proof.REQUEST
    to: str = ""


_SET: Final = Skew(0, 0, 0)


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


_SAME_US: Final = {Proof.REQUEST: 50_000, Proof.REPORT: 50_000, Proof.PHASE: 200_000, Proof.MIGRATION: 1_000_000}
"""Two sleds that differ by less have the same clock, as far as these can tell."""
_TOGETHER: Final = frozenset({"sync", "ram_push", "pause", "ram_push_dirty", "time_data", "device", "ram_pull"})
"""Phases that both sides come into at one time."""


@attrs.define
class _Apart:
    """How far clocks are ahead of each other, by what."""

    found: dict[tuple[str, str], dict[Proof, list[int]]] = attrs.field(factory=dict)

    def add(self, one: str, at_us: int, other: str, other_us: int, proof: Proof) -> None:
        """Two clocks at one moment."""
        if one != other:
            for pair, ahead_us in (((one, other), other_us - at_us), ((other, one), at_us - other_us)):
                self.found.setdefault(pair, {}).setdefault(proof, []).append(ahead_us)

    def hosts(self) -> list[str]:
        return sorted({host for host, _ in self.found})

    def nearest(self, known: Iterable[str]) -> tuple[Proof, str, str] | None:
        """The best proof between a clock that is known and one that is not, and both."""
        known = set(known)
        between = (pair for pair in self.found if pair[0] in known and pair[1] not in known)
        return min(((min(self.found[pair]), *pair) for pair in between), default=None)


def set_right(facts: list[Fact], sleds: list[str]) -> tuple[dict[str, Skew], dict[str, str]]:
    """Offsets of all clocks against the first sled's (LG 5 #3), which is the first here; and on which sled, whose
    clock it has, each zone of Propolis ran.
    """
    known = set(sleds)
    ran_on = {fact.vmm: fact.host for fact in facts if fact.vmm and fact.host in known}
    in_zones = {fact.host: fact.vmm for fact in facts if fact.host.startswith(_PROPOLIS_ZONE)}
    zones = {host: ran_on[vmm] for host, vmm in in_zones.items() if vmm in ran_on}
    apart = _compared([fact for fact in facts if fact.at_us >= VALID_SINCE_US], zones)
    skews: dict[str, Skew] = {}
    for first in (*sleds[:1], *(host for host in apart.hosts() if host not in known), *sleds[1:]):
        if first in skews:
            continue
        skews[first] = Skew(0, 0, 0)  # the reference, or nothing ties it to that
        while (nearest := apart.nearest(skews)) is not None:
            proof, one, other = nearest
            ahead = apart.found[(one, other)][proof]
            offset_us = skews[one].offset_us - round(median(ahead))
            if other in known and abs(offset_us) <= _SAME_US[proof]:
                offset_us = 0
            skews[other] = Skew(offset_us, max(ahead) - min(ahead), len(ahead), proof, first)
    return skews, zones


def _compared(facts: list[Fact], zones: Mapping[str, str]) -> _Apart:
    """All that two hosts wrote down of one thing."""
    apart = _Apart()
    ends = {fact.req_id: fact for fact in facts if isinstance(fact, Asked) and fact.req_id}
    sent: dict[tuple[str, int], list[Published]] = defaultdict(list)
    sides: dict[tuple[Proof, str, str], dict[str, Fact]] = defaultdict(dict)
    for fact in facts:
        if isinstance(fact, Published):
            for who in {fact.vmm, fact.instance} - {""}:  # until 2023-10 reports were about instances
                sent[(who, fact.gen)].append(fact)
            for side, state in (("in", fact.migration_in), ("out", fact.migration_out)):
                if fact.migration and state == "in_progress":
                    sides[(Proof.MIGRATION, fact.migration, state)].setdefault(side, fact)
        elif isinstance(fact, Phase) and fact.migration and fact.phase in _TOGETHER:
            sides[(Proof.PHASE, fact.migration, fact.phase)].setdefault(fact.side, fact)
    for fact in facts:
        if isinstance(fact, Answered) and fact.req_id in ends:
            end = ends[fact.req_id]
            apart.add(end.host, end.at_us, fact.host, fact.at_us, Proof.REQUEST)
        elif isinstance(fact, Received) and fact.pushed:
            # the newest attempt is the one that arrived; of one that was repeated nobody can tell
            attempts = sent.get((fact.vmm or fact.instance, fact.gen), [])
            if len(attempts) == 1:
                apart.add(attempts[0].host, attempts[0].at_us, fact.host, fact.at_us, Proof.REPORT)
    for (proof, _, _), told in sides.items():
        if len(told) == 2:
            one, other = told["out"], told["in"]
            apart.add(_clock(one, zones), one.at_us, _clock(other, zones), other.at_us, proof)
    return apart


def _clock(fact: Fact, zones: Mapping[str, str]) -> str:
    return zones.get(fact.host, fact.host)


def mend_1986(facts: list[Fact], skews: Mapping[str, Skew]) -> set[str]:
    """Times before a sled found the time: set so that a request which Nexus wrote down, too, was when that says, or
    else the last of them just before the first real one. In place; returns the hosts.
    """
    told = {fact.req_id: fact for fact in facts if isinstance(fact, Answered)}
    hosts: set[str] = set()
    waiting: dict[str, list[int]] = defaultdict(list)

    def mend(host: str, latest_us: int | None) -> None:
        shifts = [] if latest_us is None else [latest_us - facts[waiting[host][-1]].at_us]
        for i in waiting[host]:
            fact = facts[i]
            other = told.get(fact.req_id) if isinstance(fact, Asked) else None
            if other is not None:
                ahead_us = (skews.get(other.host, _SET).offset_us) - skews.get(host, _SET).offset_us
                shifts.append(other.at_us + ahead_us - fact.at_us)
        for i in waiting.pop(host) if shifts else ():
            facts[i] = attrs.evolve(facts[i], at_us=facts[i].at_us + min(shifts))

    for i, fact in enumerate(facts):
        if fact.at_us < VALID_SINCE_US:
            hosts.add(fact.host)
            waiting[fact.host].append(i)
        elif waiting[fact.host]:
            mend(fact.host, fact.at_us)
    for host in list(waiting):
        mend(host, None)
    return hosts
