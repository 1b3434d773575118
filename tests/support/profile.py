"""How much a test plays: what every run of the suite does, and what only `make campaign` has the time for."""

from __future__ import annotations

import os
from typing import Final, TypeVar

NIGHTLY: Final = os.environ.get("SIM_SLED_PROFILE") == "nightly"

_T = TypeVar("_T")


def by_profile(every_run: _T, nightly: _T) -> _T:
    """What is played in every run, or the whole of it: a test that calls this is marked `nightly`."""
    return nightly if NIGHTLY else every_run
