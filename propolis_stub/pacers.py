"""A pacer whose paces are set from outside: by a configuration file, the control API, or a test.

Read before: presets.py. Read next: server/host.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import attrs
from msgspec import Struct
from msgspec.structs import replace

from propolis_stub.presets import paces
from propolis_stub.waiting import Pace, Point

STANDALONE: Final[Mapping[Point, Pace]] = paces("stub")
"""What `propolis-stub serve` starts with unless `--pace` says otherwise."""


class _Override(Struct, frozen=True):
    pace: Pace
    times: int | None  # None: always


@attrs.define(eq=False)
class SettablePacer:
    """One pace per point; an override may be for the next so many times only."""

    _base: Mapping[Point, Pace] = attrs.Factory(dict)
    _overrides: dict[Point, _Override] = attrs.Factory(dict)

    def pace(self, _vm_id: UUID, point: Point, _occurrence: int, _edge: object, /) -> Pace:
        override = self._overrides.get(point)
        if override is None:
            return self._base.get(point, Pace())
        if override.times is not None:
            if override.times <= 1:
                del self._overrides[point]
            else:
                self._overrides[point] = replace(override, times=override.times - 1)
        return override.pace

    def set(self, point: Point, pace: Pace, times: int | None = None) -> None:
        """From now on, or for the next `times` times only. Points that are waited for already keep their pace."""
        self._overrides[point] = _Override(pace, times)

    def reset(self, point: Point) -> None:
        """Back to what the process started with."""
        self._overrides.pop(point, None)

    def look(self) -> dict[Point, Pace]:
        """What each point that is not instant would do next."""
        return {**self._base, **{point: override.pace for point, override in self._overrides.items()}}
