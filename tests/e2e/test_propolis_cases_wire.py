"""PR 7 on the wire: the cases of the core once more, over sockets (the others: test_propolis_wire.py)."""

from __future__ import annotations

import pytest
from support.propolis.cases import CASES, Case
from support.propolis.wire import WireNet


def marked(nth: int) -> tuple[pytest.MarkDecorator, ...]:
    """Some of them every day: what a case says of the core is decided without sockets."""
    return () if nth % 7 == 0 else (pytest.mark.long,)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{case.number}: {case.claim}", marks=marked(nth)) for nth, case in enumerate(CASES)],
)
async def test_case_of_the_reference_over_sockets(case: Case) -> None:
    async with WireNet() as net:
        await case.body(await net.arm())
