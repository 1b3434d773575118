"""PR 7, in memory: the cases that need no socket."""

from __future__ import annotations

import pytest
from support.propolis.arms import CoreArm
from support.propolis.cases import CASES, Case
from support.rows import in_one_test

ON_THE_WIRE_ONLY = {60, 66, 71, 72, 73, 74, 75}


@in_one_test("case", [pytest.param(case, id=f"{case.number}: {case.claim}") for case in CASES])
async def test_case_of_the_reference(case: Case) -> None:
    await case.body(CoreArm())


def test_every_number_is_here_or_named_as_needing_a_socket() -> None:
    here = {case.number for case in CASES}
    assert here | ON_THE_WIRE_ONLY == set(range(1, 76))
    assert not here & ON_THE_WIRE_ONLY
