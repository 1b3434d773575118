"""An answer that is right and does not arrive so, as values (SR 8): what rules want and HTTP shells do.

Read next: engine/plans.py, http/spoiling.py.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class How(Enum):
    """What becomes of it on its way; the value is what a reader of a trace sees."""

    DRIBBLE = "dribbles"
    TRUNCATE = "broke off"
    GARBAGE = "was garbage"


class Spoil(Struct, frozen=True):
    """`lasts_us`: how long an answer that dribbles takes as a whole."""

    how: How
    lasts_us: int = 0
