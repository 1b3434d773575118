"""What a run has reached: tuples of (state, edge, rule, saga node, publication), as each VMM and its instance meet
them.

    state          what users see of the instance,      rule          which rule last fired for the VMM
                   and what its user wants
    edge           the VMM's last way along the table    publication   what Nexus was last told
    saga node      where the instance's saga last heard an answer

The same events in another company are another tuple: a report that comes while a saga is at another node, or after
another rule. Each two of the five are kept beside the whole: there are few such pairs, so a new one says much, and a
new whole says little (`worth`). Tuples are kept as short numbers, pairs as odd ones; two that share one are taken for
the same, which costs guidance and nothing else.

Read before: play/virtual.py. Read next: campaign/guide.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from uuid import UUID
from zlib import crc32

import attrs

from nexus_client.stub import contract as nx
from sim_sled.core.happenings import Happening, Kind
from sim_sled.engine.cast import Subject
from sim_sled.language.schema import Scenario
from sim_sled.play.run import How, Result, result_of, run_to_end
from sim_sled.play.virtual import World

_PUBLIC, _EDGE, _RULE, _NODE, _SENT = range(5)
PAIR_WORTH: Final = 16
"""A new pair is worth so many new wholes."""


def worth(new: Iterable[int]) -> int:
    """How much what a run reached for the first time is worth to who decides what is followed."""
    return sum(PAIR_WORTH if number & 1 else 1 for number in new)


@attrs.define(eq=False)
class CoveredWorld(World):
    """A closed world that notes what is reached in it."""

    reached: set[int] = attrs.field(factory=set)
    _at: dict[UUID, list[str]] = attrs.field(factory=dict)
    """Of each instance: its tuple as it is now."""

    def tell(self, kind: str, who: Subject | None, sled: str, text: str, /) -> None:
        super().tell(kind, who, sled, text)
        if kind == "rule":
            name = text.partition(" ")[0]
            if who is not None:
                self._reach(who.instance_id, _RULE, name)
            else:  # of a sled, or of all: it has fired
                self.reached.add(crc32(name.encode()) | 1)

    def happened(self, happening: Happening, who: Subject | None, /) -> None:
        super().happened(happening, who)
        if who is None:
            return
        data = happening.data
        if happening.kind is Kind.PROPOLIS and isinstance(data, tuple):
            before, now = data
            sides = [side.state.value for side in (now.migration_in, now.migration_out) if side is not None]
            edge = f"{'' if before is None else before.state.value} {now.state.value} {' '.join(sides)}"
            self._reach(who.instance_id, _EDGE, edge)
        elif happening.kind is Kind.SENT and isinstance(data, tuple):
            self._reach(who.instance_id, _SENT, f"{data[0].vmm_state.state.value}{' again' if data[1] else ''}")

    def _happened(self, line: nx.Happened) -> None:
        super()._happened(line)
        if line.instance_id is None:
            return
        if line.what == "returned":
            self._reach(line.instance_id, _NODE, line.text.partition(":")[0])
        elif line.what == "public":
            self._reach(line.instance_id, _PUBLIC, line.text)

    def _reach(self, instance_id: UUID, which: int, what: str) -> None:
        at = self._at.setdefault(instance_id, [""] * 5)
        at[which] = what
        row = self.nexus.records.instances.get(instance_id)
        if row is not None:
            at[_PUBLIC] = f"{at[_PUBLIC].partition('/')[0]}/{row.intended_state.value}"
        self.reached.add(crc32("|".join(at).encode()) & ~1)
        for other in range(5):
            if other != which and at[other]:
                low, high = sorted((which, other))
                self.reached.add(crc32(f"{low}{high}|{at[low]}|{at[high]}".encode()) | 1)


def play_covered(scenario: Scenario, seed: int, how: How, reached: set[int]) -> Result:
    """As `run.play`, and fills `reached`."""
    world = CoveredWorld(
        scenario,
        seed,
        variant=how.variant,
        sled_variant=how.sled_variant,
        bounds=how.bounds,
        keep=how.keep,
        nexus_config=how.nexus,
        reached=reached,
    )
    end = run_to_end(world, how)
    return result_of(world, end, world.lines)
