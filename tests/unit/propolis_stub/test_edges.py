"""What a VM tells its pacer when it begins to wait: where it is, where that leads, and why."""

from __future__ import annotations

from uuid import UUID

import pytest

from propolis_stub import contract
from propolis_stub.guest_events import GuestEvent
from propolis_stub.request_queue import RequestType
from propolis_stub.table import TRANSITIONS
from propolis_stub.types import InstanceState as S
from propolis_stub.types import RequestKind
from propolis_stub.vm import Vm
from propolis_stub.waiting import Edge, Pace, Point

VM = UUID(int=1)


class Listening:
    """A pacer for which nothing takes time, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Point, Edge]] = []

    def pace(self, _vm_id: UUID, point: Point, _occurrence: int, edge: Edge, /) -> Pace:
        self.asked.append((point, edge))
        return Pace(1)


def run(vm: Vm, now_us: int = 0) -> int:
    while (due_us := vm.next_deadline_us()) is not None:
        now_us = max(now_us, due_us)
        vm.handle(contract.Tick(), now_us)
    return now_us


@pytest.fixture
def running() -> tuple[Vm, Listening, int]:
    """A VM that runs, its pacer, the time."""
    pacer = Listening()
    vm = Vm(VM, pacer)
    vm.handle(contract.EnsureSpec(), 0)
    run(vm)
    vm.handle(contract.Request(RequestKind.RUN), 10)
    return vm, pacer, run(vm, 10)


def test_a_start_is_told_edge_by_edge(running):
    _, pacer, _ = running
    start = RequestType.START
    assert pacer.asked == [
        (Point.CREATE, Edge(S.CREATING, S.STARTING)),
        (Point.WAKE, Edge(S.CREATING, S.STARTING, why=start)),
        (Point.DEVICES, Edge(S.STARTING, S.RUNNING, why=start)),
        (Point.BACKENDS, Edge(S.STARTING, S.RUNNING, why=start)),
    ]


@pytest.mark.parametrize(
    ("event", "through", "points"),
    [
        (GuestEvent.RESET, S.REBOOTING, [(Point.REBOOT, S.RUNNING)]),
        (GuestEvent.HALT, S.STOPPING, [(Point.HALT, S.STOPPED)]),
    ],
)
def test_what_a_guest_does_is_told_as_the_guests(running, event, through, points):
    vm, pacer, now_us = running
    pacer.asked.clear()
    vm.handle(contract.Guest(event), now_us)
    run(vm, now_us)
    assert pacer.asked[: 1 + len(points)] == [
        (Point.WAKE, Edge(S.RUNNING, through, why=event)),
        *((point, Edge(through, leads_to, why=event)) for point, leads_to in points),
    ]


def test_the_same_by_request_is_told_as_the_request(running):
    vm, pacer, now_us = running
    pacer.asked.clear()
    vm.handle(contract.Request(RequestKind.REBOOT), now_us)
    run(vm, now_us)
    why = RequestType.REBOOT
    assert pacer.asked == [
        (Point.WAKE, Edge(S.RUNNING, S.REBOOTING, why=why)),
        (Point.REBOOT, Edge(S.REBOOTING, S.RUNNING, why=why)),
    ]


def test_every_edge_that_is_told_is_one_of_the_table(running):
    vm, pacer, now_us = running
    vm.handle(contract.Request(RequestKind.STOP), now_us)
    run(vm, now_us)
    assert pacer.asked[-1] == (Point.RUNDOWN, Edge(S.STOPPED, S.DESTROYED))
    edges = {(before, after) for (before, _), after in TRANSITIONS.items()}
    told = {(edge.state, edge.leads_to) for _, edge in pacer.asked if edge.leads_to is not None}
    assert told
    assert told <= edges
