"""What was seen of each VMM: its states in order, its names. For `expect`, and for people who name a VMM.

Fed by the rack's happenings. Expectations are level-triggered: what is so now counts, and with `since_us` also what
was so in between; nothing can be lost between a request and the moment one begins to wait.

Read before: core/happenings.py. Read next: daemon/looking.py, daemon/small_rack.py.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from uuid import UUID

import attrs
from msgspec import Struct, field

from nexus_client.types import TERMINAL, SledVmmState
from propolis_stub.types import Publication
from sim_sled.core.happenings import AGENT_ABORTS, AGENT_FORGETS, Happening, Kind
from sim_sled.core.rack import Rack

# A member of an enum, taken from its class, costs 0.1 us (CPython 3.11): these are asked for all the time.
_ASKED: Final = Kind.ASKED
_REGISTERED: Final = Kind.REGISTERED

_ENDS: Final = frozenset(state.value for state in TERMINAL)
_LOSSES: Final = (AGENT_ABORTS, AGENT_FORGETS)

KEPT_MAX: Final = 20_000
"""VMMs that are remembered after they are gone; the oldest go first. Some 300 bytes each."""
SWEPT_EVERY: Final = 4_096
"""VMMs more between two looks for who is gone: one at 200,000 VMMs takes a fifth of a second."""
STATES_MAX: Final = 256
"""States of one VMM: a hundred reboots. Older ones fall off."""


class Sighting(Struct):
    """One VMM, also after it is gone. `states`: (since, state), oldest first; `ordinal` counts from 1;
    `registered_us`: when its sled first knew it; `lost_us`: when it was gone without an end, which leaves it in no
    state; 0: it was not.
    """

    propolis_id: UUID
    instance_id: UUID
    hostname: str
    sled_id: UUID
    ordinal: int
    registered_us: int
    states: list[tuple[int, str]] = field(default_factory=list)
    acked: str = ""
    lost_us: int = 0

    @property
    def short(self) -> str:
        """As scenarios and traces call it."""
        return f"v{self.ordinal}"

    @property
    def state(self) -> str:
        """The last one seen."""
        return self.states[-1][1] if self.states else ""

    @property
    def since_us(self) -> int:
        """Since when it is in that."""
        return self.states[-1][0] if self.states else self.registered_us

    def was(self, wanted: str, since_us: int) -> bool:
        """Whether it is in that state now, or was in it at some time since."""
        left_us = [at_us for at_us, _ in self.states[1:]] + [self.lost_us] * bool(self.lost_us)
        return any(
            state == wanted and (i >= len(left_us) or left_us[i] > since_us)
            for i, (_, state) in enumerate(self.states)
        )


@attrs.define(eq=False)
class Sightings:
    """All of a daemon."""

    rack: Rack
    _of: OrderedDict[UUID, Sighting] = attrs.field(factory=OrderedDict)
    counted: int = 0
    """The last ordinal."""
    _swept: int = 0
    """How many were left by the last look for who is gone."""

    def watch(self, happening: Happening, ordinal_of: Callable[[UUID], int | None]) -> Sighting | None:
        """One happening of the rack; the VMM that it is about, if it is about one.

        `ordinal_of`: how rules count a VMM that they know. They count requests, also those that were refused.
        """
        if happening.propolis_id is None:
            return None
        if happening.kind is _REGISTERED:
            counted = ordinal_of(happening.propolis_id)
            self.counted = self.counted + 1 if counted is None else counted
            self._begin(happening.sled_id, happening.propolis_id, happening.at_us)
        seen = self._of.get(happening.propolis_id)
        if seen is None or happening.kind is _ASKED:
            return seen  # most happenings are requests, which say nothing of a state
        match happening.kind, happening.data:
            case Kind.PROPOLIS, (_, Publication() as published):
                self._state(seen, happening.at_us, published.state.value.lower())
            case Kind.REGISTERED, SledVmmState() as record:
                self._state(seen, happening.at_us, record.vmm_state.state.value)
            case Kind.OBSERVED, (_, SledVmmState() as record) if record.vmm_state.state in TERMINAL:
                # an agent calls a VMM failed or destroyed whatever its Propolis says
                self._state(seen, happening.at_us, record.vmm_state.state.value)
            case Kind.ACKED, SledVmmState() as record:
                seen.acked = record.vmm_state.state.value
            case (Kind.INJECTED | Kind.UNREGISTERED) as kind, data if kind is not Kind.INJECTED or data in _LOSSES:
                if seen.state not in _ENDS:
                    seen.lost_us = happening.at_us
        return seen

    def _begin(self, sled_id: UUID, propolis_id: UUID, at_us: int) -> None:
        about = self.rack.sleds[sled_id].vmms[propolis_id].about
        self._of[propolis_id] = Sighting(propolis_id, about.instance_id, about.hostname, sled_id, self.counted, at_us)
        if len(self._of) >= max(self._swept, KEPT_MAX) + SWEPT_EVERY:
            gone = [seen.propolis_id for seen in self._of.values() if self.gone(seen)]
            for each in gone[:-KEPT_MAX]:
                del self._of[each]
            self._swept = len(self._of)

    def _state(self, seen: Sighting, at_us: int, state: str) -> None:
        if seen.state == state:
            return
        seen.states.append((at_us, state))
        del seen.states[:-STATES_MAX]

    def gone(self, seen: Sighting) -> bool:
        """Whether its sled does not have it any more, or has left itself."""
        sled = self.rack.sleds.get(seen.sled_id)
        return sled is None or seen.propolis_id not in sled.vmms

    # ---- names

    def ordinals(self) -> dict[UUID, int]:
        """Of all that a sled still has."""
        return {seen.propolis_id: seen.ordinal for seen in self._of.values() if not self.gone(seen)}

    def all(self) -> list[Sighting]:
        """Every VMM that is remembered, in the order of registration."""
        return list(self._of.values())

    def earlier(self) -> dict[UUID, int]:
        """How many VMMs the instance of each had here before it. Of all at once: one by one it is n times n."""
        had: dict[UUID, int] = {}
        found = {}
        for each in sorted(self.all(), key=lambda seen: seen.ordinal):
            found[each.propolis_id] = had.get(each.instance_id, 0)
            had[each.instance_id] = found[each.propolis_id] + 1
        return found

    def get(self, propolis_id: UUID) -> Sighting | None:
        return self._of.get(propolis_id)

    def named(self, who: str) -> list[Sighting]:
        """Whom a person means: a UUID of a VMM or an instance, the beginning of one (four digits or more), a host
        name, or an ordinal (`v17`). Of an instance or a host name, the newest VMM that is there (after a migration
        that failed: its source), else the one that ended last. Several, if that is ambiguous, as where two instances
        of one host name are there; empty, if nobody is.
        """
        low = who.strip().lower()
        exactly = whole_id(low)  # compared as ids: each as a text would take a hundred times as long
        if exactly is not None and (named := self._of.get(exactly)) is not None:
            return [named]
        if low[:1] == "v" and low[1:].isdecimal() and (found := [e for e in self._of.values() if e.short == low]):
            return found
        everybody = self._of.values()
        by_host_name = (each for each in everybody if each.hostname.lower() == low)
        by_instance = (each for each in everybody if each.instance_id == exactly)
        for belonging in (by_host_name, by_instance):
            if mine := list(belonging):
                # the last one of an instance wins; whoever has had the name before is out of it
                nearest = sorted(mine, key=self._nearness)
                meant = {each.instance_id: each for each in nearest if not self.gone(each)}
                return [meant[key] for key in sorted(meant, key=str)] or nearest[-1:]
        if exactly is None and len(low) >= 4 and all(c in "0123456789abcdef-" for c in low):
            return [each for each in self._of.values() if str(each.propolis_id).startswith(low)]
        return []

    def _nearness(self, seen: Sighting) -> tuple[bool, int]:
        return (False, seen.since_us) if self.gone(seen) else (True, seen.ordinal)


def whole_id(text: str) -> UUID | None:
    """The id that somebody has written as ids are shown; None of anything else."""
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text else None
