"""Guest events that wait: in order, and equal ones once (PR 3.4)."""

from __future__ import annotations

import pytest
from support.rows import in_one_test

from propolis_stub.guest_events import WAITING_MAX, GuestEvent, GuestEvents


def queued(*events: tuple[GuestEvent, int, int]) -> list[GuestEvent]:
    queue = GuestEvents()
    for event in events:
        queue.add(*event)
    popped = []
    while queue.waiting:
        assert queue.first is not None
        popped.append(queue.pop())
    return popped


RESET, HALT, FAULT = GuestEvent.RESET, GuestEvent.HALT, GuestEvent.TRIPLE_FAULT
CHIP_HALT, CHIP_RESET = GuestEvent.CHIPSET_HALT, GuestEvent.CHIPSET_RESET


@in_one_test(
    ("events", "kept"),
    [
        pytest.param([(RESET, 1, 0), (HALT, 1, 0)], [RESET, HALT], id="in order"),
        pytest.param([(RESET, 1, 0), (RESET, 1, 1)], [RESET], id="vCPU events are equal by kind and time"),
        pytest.param([(RESET, 1, 0), (RESET, 2, 0)], [RESET, RESET], id="another time is another event"),
        pytest.param([(FAULT, 1, 0), (FAULT, 1, 1), (FAULT, 1, 0)], [FAULT, FAULT], id="faults also by vCPU"),
        pytest.param([(CHIP_RESET, 1, 0), (CHIP_RESET, 2, 1)], [CHIP_RESET], id="chipset events by kind alone"),
        pytest.param([(CHIP_HALT, 1, 0), (HALT, 1, 0)], [CHIP_HALT, HALT], id="of two sources"),
    ],
)
def test_equal_events_are_one(events: list[tuple[GuestEvent, int, int]], kept: list[GuestEvent]) -> None:
    assert queued(*events) == kept


def test_once_popped_an_equal_event_can_wait_again() -> None:
    queue = GuestEvents()
    queue.add(RESET, 1, 0)
    assert queue.pop() is RESET
    queue.add(RESET, 1, 0)
    assert queue.pop() is RESET


def test_what_comes_on_top_of_the_limit_is_dropped() -> None:
    assert len(queued(*((RESET, at, 0) for at in range(WAITING_MAX + 10)))) == WAITING_MAX


@in_one_test("event", GuestEvent)
def test_a_halt_anywhere_in_the_queue_is_foreseen(event: GuestEvent) -> None:
    queue = GuestEvents()
    assert not queue.will_halt
    queue.add(RESET, 1, 0)
    queue.add(event, 2, 0)
    assert queue.will_halt == event.halts == (event in {HALT, CHIP_HALT})
    queue.clear()
    assert not queue.waiting
    assert not queue.will_halt
