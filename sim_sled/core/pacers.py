"""Presets for how long things take in timed mode, as a `propolis_stub.waiting.Pacer`.

`sim` is the existing simulator's rhythm (SA 2.9: 1.5 s after a request the queue is worked off);
`dev` has the measured figures of real racks (design/scenarios.md 1) with a spread; `instant` is for tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import attrs

from nexus_client.draw import draw
from propolis_stub.waiting import Pace, Point
from sim_sled.core.estate import SledPoint

_MS: Final = 1_000

PRESETS: Final[Mapping[str, Mapping[Point, tuple[int, int]]]] = {
    "sim": {
        Point.WAKE: (1_500 * _MS, 1_500 * _MS),
        Point.REBOOT: (20 * _MS, 20 * _MS),
        Point.HALT: (20 * _MS, 20 * _MS),
        Point.RUNDOWN: (20 * _MS, 20 * _MS),
        Point.M_CONNECT: (1_520 * _MS, 1_520 * _MS),
        Point.M_SYNC: (20 * _MS, 20 * _MS),
        Point.M_FINISH: (20 * _MS, 20 * _MS),
    },
    "fast": {
        Point.WAKE: (150 * _MS, 150 * _MS),
        Point.BACKENDS: (300 * _MS, 300 * _MS),
        Point.REBOOT: (300 * _MS, 300 * _MS),
        Point.HALT: (20 * _MS, 20 * _MS),
        Point.RUNDOWN: (20 * _MS, 20 * _MS),
        Point.M_CONNECT: (170 * _MS, 170 * _MS),
        Point.M_SYNC: (20 * _MS, 20 * _MS),
        Point.M_RAM_PUSH: (100 * _MS, 100 * _MS),
        Point.M_FINISH: (20 * _MS, 20 * _MS),
    },
    "dev": {
        Point.WAKE: (20 * _MS, 60 * _MS),
        Point.BACKENDS: (3_000 * _MS, 8_000 * _MS),  # zone install 2.8 s and boot 3.2 s: omicron#1215
        Point.REBOOT: (2_000 * _MS, 5_000 * _MS),
        Point.HALT: (20 * _MS, 800 * _MS),  # omicron#5363
        Point.RUNDOWN: (2_000 * _MS, 6_800 * _MS),  # zone bundle: omicron#6809
        Point.M_CONNECT: (20 * _MS, 100 * _MS),
        Point.M_SYNC: (200 * _MS, 600 * _MS),
        Point.M_RAM_PUSH: (4_000 * _MS, 8_000 * _MS),
        Point.M_PAUSE: (50 * _MS, 50 * _MS),
        Point.M_DEVICE: (100 * _MS, 200 * _MS),
        Point.M_SERVER: (20 * _MS, 50 * _MS),
        Point.M_FINISH: (10 * _MS, 30 * _MS),
    },
    "instant": dict.fromkeys((Point.WAKE, Point.REBOOT, Point.HALT, Point.RUNDOWN), (1, 1))
    | dict.fromkeys((Point.M_CONNECT, Point.M_SYNC, Point.M_FINISH), (1, 1)),
}
"""Shortest and longest duration of each point in microseconds, drawn uniformly; points not named take no time."""

SLED_PRESETS: Final[Mapping[str, Mapping[SledPoint, tuple[int, int]]]] = {
    "sim": {},
    "fast": {SledPoint.RECONCILE: (300 * _MS, 300 * _MS), SledPoint.TRUST_QUORUM_ACK: (100 * _MS, 100 * _MS)},
    "dev": {
        SledPoint.RECONCILE: (3_000 * _MS, 10_000 * _MS),  # one zone is some 6 s: omicron#1215
        SledPoint.TRUST_QUORUM_ACK: (500 * _MS, 2_000 * _MS),
    },
    "instant": {},
}
"""The same for what a sled does beside its VMMs; points not named take no time."""

_AT_ONCE: Final = Pace()


@attrs.define(eq=False)
class PresetPacer:
    """A pacer from a preset: the same seed, VMM, point and occurrence always give the same pace."""

    preset: str = "sim"
    seed: int = 0
    _fixed: dict[Point, Pace] = attrs.field(factory=dict)
    _spread: dict[Point, tuple[int, int]] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self._fixed.update(dict.fromkeys(Point, _AT_ONCE))
        for point, (low, high) in PRESETS[self.preset].items():
            if low == high:
                self._fixed[point] = Pace(low)
            else:
                del self._fixed[point]
                self._spread[point] = (low, high)

    def sled_pace_us(self, sled_id: UUID, point: SledPoint, occurrence: int) -> int:
        """See `core.estate.SledPacer`."""
        low, high = SLED_PRESETS[self.preset].get(point, (0, 0))
        return low + draw(self.seed, sled_id, point.value, occurrence) % (high - low + 1) if high > low else low

    def pace(self, vm_id: UUID, point: Point, occurrence: int, _edge: object, /) -> Pace:
        """See `propolis_stub.waiting.Pacer`."""
        fixed = self._fixed.get(point)
        if fixed is not None:
            return fixed
        low, high = self._spread[point]
        return Pace(low + draw(self.seed, vm_id, point.value, occurrence) % (high - low + 1))
