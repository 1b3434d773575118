"""Chance without a generator: a draw is a hash of (seed, what, whom, occurrence).

So unrelated traffic never shifts a fate, and the same VM ordinal meets the same fate in every run of a seed.

Read next: campaign/draws.py.
"""

from __future__ import annotations

from typing import Final

from nexus_client import draw as common
from sim_sled.language.figures import SHARE_ONE

DRAW_MAX: Final = common.DRAW_END
"""Draws are 0 <= u < DRAW_MAX."""
_MASK: Final = DRAW_MAX - 1


def draw(seed: int, what: str, whom: object = "", occurrence: int = 0) -> int:
    """A uniform 64-bit integer, the same for the same arguments in every process."""
    return common.draw(seed, what, str(whom), occurrence)


def remix(u: int) -> int:
    """A second draw from the first (splitmix64's finaliser)."""
    u = (u + 0x9E3779B97F4A7C15) & _MASK
    u = ((u ^ (u >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    u = ((u ^ (u >> 27)) * 0x94D049BB133111EB) & _MASK
    return u ^ (u >> 31)


def below(u: int, n: int) -> int:
    """A number 0 <= x < n from a draw."""
    return u * n >> 64


def happens(u: int, share_ppm: int) -> bool:
    """Whether an event of that share happens; 100 % always does, 0 % never."""
    return u * SHARE_ONE >> 64 < share_ppm
