"""The driver's table of ways: every way is gone by the cases of PR 7, no other one is, and each part is alone."""

from __future__ import annotations

from uuid import UUID

import pytest
from support.propolis.arms import CoreArm
from support.propolis.cases import CASES

from propolis_stub import contract
from propolis_stub.driver import _PASSED, WAYS, Doing, Driver
from propolis_stub.waiting import Pace, Point, Waiting

STEPPED_ONLY = {(Doing.NOTHING, Doing.ARRIVING), (Doing.ARRIVING, Doing.MIGRATING)}


async def test_the_cases_go_every_way_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: set[tuple[Doing, Doing]] = set()
    go = Driver._go

    def noted(driver: Driver, doing: Doing) -> None:
        gone.add((driver.doing, doing))
        go(driver, doing)

    monkeypatch.setattr(Driver, "_go", noted)
    for case in CASES:
        await case.body(CoreArm())
    assert gone == set(WAYS) - STEPPED_ONLY
    target = CoreArm(stepped=True)
    target.handle(contract.EnsureTarget(UUID(int=5), scripted=True))
    target.handle(contract.Step())
    assert gone == set(WAYS)


def test_a_way_that_is_not_in_the_table_is_not_gone() -> None:
    driver = Driver(Waiting(UUID(int=1), Instant(), stepped=False, milestones=frozenset()), CoreArm().vm.strict)
    for doing in Doing:
        if (Doing.NOTHING, doing) not in WAYS:
            with pytest.raises(AssertionError, match="no way leads from nothing"):
                driver._go(doing)
    assert driver.doing is Doing.NOTHING


def test_every_doing_can_be_reached_and_left_and_says_what_its_point_leads_to() -> None:
    assert {source for source, _ in WAYS} == set(Doing) == {target for _, target in WAYS}
    assert set(Doing) - set(_PASSED) == {Doing.NOTHING, Doing.IDLE, Doing.EXITED}


class Instant:
    def pace(self, _vm_id: UUID, _point: Point, _occurrence: int, _edge: object, /) -> Pace:
        return Pace()
