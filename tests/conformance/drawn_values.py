"""JSON values that hypothesis drew once, kept: every run of the suite takes them again.

To draw a body takes a hundred times as long as to ask about it, and with a fixed seed the same would be drawn each
time. `make campaign` draws others. `SIM_SLED_UPDATE=1` draws those of `tests/data/drawn` anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from conformance.drawn_requests import FOLDER, UPDATE
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from support.profile import NIGHTLY

EXAMPLES_NIGHTLY: Final = 100
_QUICK: Final = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def each_of(
    name: str, strategy: Callable[[], st.SearchStrategy[Any]], check: Callable[[Any], None], *, number: int
) -> None:
    """`check` each value kept as `name` (`number` of them are drawn); in the nightly profile, others; of what nothing
    is kept, as many as would be.

    A test that calls this is marked `nightly`. `check` also fails for a value that is none of what is meant, so that
    what is kept stays right when a document changes.
    """
    if NIGHTLY or not (UPDATE or _file(name).exists()):  # of other documents nothing is kept
        size = EXAMPLES_NIGHTLY if NIGHTLY else number
        settings(max_examples=size, **_QUICK)(given(strategy())(check))()
        return
    if UPDATE:
        file = _file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in _drawn(strategy(), number)))
    for value in kept(name):
        try:
            check(value)
        except BaseException as error:
            error.add_note(f"{name}: {json.dumps(value)}")
            raise


def kept(name: str) -> list[Any]:
    """The values that are kept as `name`, in the order in which they were drawn."""
    lines = _file(name).read_text().splitlines()
    assert lines, "SIM_SLED_UPDATE=1 draws them"
    return [json.loads(line) for line in lines]


def _file(name: str) -> Path:
    return FOLDER / f"{name}.jsonl"


def _drawn(strategy: st.SearchStrategy[Any], number: int) -> list[str]:
    """A line each, none twice; fewer if there are no more."""
    lines: dict[str, None] = {}

    @seed(number)
    @settings(max_examples=number, phases=[Phase.generate], **_QUICK)
    @given(strategy)
    def take(value: Any) -> None:
        lines[json.dumps(value)] = None

    take()
    return list(lines)
