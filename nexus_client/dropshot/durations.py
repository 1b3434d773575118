"""Durations as a person writes them, on a command line and in a scenario: `200ms`, `5s`, `1m30s`, `0.5h`.

Read next: dropshot/command_line.py, sim_sled/language/figures.py.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

UNITS_US: Final = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
"""Microseconds, the shortest first."""
NUMBER: Final = r"[0-9]{1,19}(?:\.[0-9]{1,9})?"
"""Of any figure: as many digits as an integer of 64 bits has, and a billionth."""
_PART: Final = re.compile(rf"({NUMBER})({'|'.join(UNITS_US)})")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+")


def microseconds(text: str) -> Decimal | None:
    """Exactly; None of what is no duration."""
    if _DURATION.fullmatch(text) is None:
        return None
    return sum((Decimal(number) * UNITS_US[unit] for number, unit in _PART.findall(text)), Decimal())
