"""A seed of a swarm: eight bytes, and each draws one part of a scenario.

Read before: campaign/job.py, language/draw.py. Read next: campaign/ambush.py, campaign/swarm.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import attrs

from sim_sled.language.draw import below, draw, happens

_One = TypeVar("_One")
PARTS: Final = ("rules", "latency", "shares", "fleet", "load", "faults", "places", "chance")
"""One byte of a seed each, the lowest first."""


@attrs.frozen
class Draws:
    """Draws of one part: they depend on its byte alone, and on what is drawn."""

    part: str
    byte: int

    def below(self, what: str, n: int, nth: int = 0) -> int:
        return below(draw(self.byte, f"swarm/{self.part}/{what}", "", nth), n)

    def happens(self, what: str, share_ppm: int, nth: int = 0) -> bool:
        return happens(draw(self.byte, f"swarm/{self.part}/{what}", "", nth), share_ppm)

    def one_of(self, what: str, these: Sequence[_One], nth: int = 0) -> _One:
        return these[self.below(what, len(these), nth)]


def byte_of(seed: int, part: str) -> int:
    """The byte of a seed that draws a part."""
    return seed >> (8 * PARTS.index(part)) & 0xFF


def with_byte(seed: int, part: str, byte: int) -> int:
    """The seed with another byte there."""
    at = 8 * PARTS.index(part)
    return seed & ~(0xFF << at) | byte << at


__all__ = ["PARTS", "Draws", "byte_of", "with_byte"]
