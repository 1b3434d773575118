"""How long things take by a preset, as a `propolis_stub.waiting.Pacer`: for whoever plays no scenario.

The same presets as `latency:` and every `--pace` (`propolis_stub/presets.py`); times are drawn from
their distributions.

Read before: language/presets.py.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import attrs

from propolis_stub.presets import row_at
from propolis_stub.types import InstanceState
from propolis_stub.waiting import MILESTONES, Edge, Pace, Point
from sim_sled.core.estate import SledPoint
from sim_sled.language.distribution import Distribution, Fixed, drawn
from sim_sled.language.presets import PRESETS

SEEN_US: Final = 1
"""What a milestone lasts at least: states that are passed in the same instant are published as one (waiting.py)."""

_YOUNG: Final = frozenset({None, InstanceState.CREATING, InstanceState.MIGRATING})
"""Where a VM is woken for the first time."""


@attrs.define(eq=False)
class PresetPacer:
    """A pacer from a preset: the same seed, VMM, point and occurrence always give the same pace. KeyError if there is
    no such preset.
    """

    preset: str = "sim"
    seed: int = 0
    _takes: dict[tuple[Point, bool], Pace | Distribution] = attrs.field(init=False, factory=dict)
    """By point, and whether the VM has been started before; a pace where there is nothing to draw."""

    def __attrs_post_init__(self) -> None:
        rows = {
            f"{kind} {what}" if kind in ("migration", "request") else what: takes
            for (kind, what), takes in PRESETS[self.preset].takes.items()
        }
        for point in Point:
            for born in (False, True):
                takes = rows.get(row_at(point, born=born), Fixed(0))
                self._takes[point, born] = _pace(takes.us, point) if isinstance(takes, Fixed) else takes

    def sled_pace_us(self, sled_id: UUID, point: SledPoint, occurrence: int) -> int:
        """See `core.estate.SledPacer`."""
        takes = PRESETS[self.preset].sled.get(point.value)
        return 0 if takes is None else drawn(takes, self.seed, point.value, sled_id, occurrence)

    def pace(self, vm_id: UUID, point: Point, occurrence: int, edge: Edge, /) -> Pace:
        """See `propolis_stub.waiting.Pacer`."""
        takes = self._takes[point, edge.state not in _YOUNG]
        if isinstance(takes, Pace):
            return takes
        return _pace(drawn(takes, self.seed, point.value, vm_id, occurrence), point)


def _pace(us: int, point: Point) -> Pace:
    return Pace(max(us, SEEN_US if point in MILESTONES else 0))
