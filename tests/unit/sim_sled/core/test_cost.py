"""What a VMM costs, counted instead of timed: whoever makes each one dearer hears of it here and not months later."""

import gc
import sys
import tracemalloc
from uuid import UUID

from nexus_client.outbox import Delivered, Outcome, Transient
from nexus_client.types import Asked, VmmStateRequested
from sim_sled.core import contract
from sim_sled.core.rack import Rack
from tests.bench import lives

BYTES_MAX = 2_550
"""Of a running VMM, all of it told: 2,340 on CPython 3.11; among 200,000, whose tables are fuller, less."""
WAITING_MAX = 360
"""More, of one that waits while Nexus is away: 330 on CPython 3.11; 442 with a heap entry beside each, and tuples."""
CALLS_MAX = 650
"""Of functions, ours and the interpreter's, in a life: some 600 on CPython 3.11."""
VMMS = 200
_LATER_US = lives.T0_US + 3_600_000_000


def _ask_all(rack: Rack, asked: Asked, outcome: Outcome, now_us: int, until_us: int) -> None:
    """Every VMM, and whatever comes of it by then; that is what Nexus answers to each report."""
    todo, wanted = [], VmmStateRequested(asked)
    for number in range(VMMS):
        todo += rack.handle(contract.PutState(0, lives.SLED, UUID(int=2**70 + number), wanted), now_us)
    while True:
        while todo:
            effect = todo.pop()
            if isinstance(effect, contract.PutToNexus):
                told = contract.NexusReplied(lives.SLED, effect.propolis_id, effect.serial, outcome)
                todo += rack.handle(told, now_us)
        due_us = rack.next_deadline_us()
        if due_us is None or due_us > until_us:
            return
        now_us = max(now_us, due_us)
        todo += rack.handle(contract.Tick(), now_us)


def _run_all(rack: Rack) -> None:
    """Until every VMM runs and Nexus has heard it."""
    _ask_all(rack, Asked.RUNNING, Delivered(), lives.T0_US, _LATER_US)


def test_a_running_vmm_takes_no_more_memory_than_is_told():
    lives.our_life(lives.rack_with(1), 10**9, lives.T0_US)  # what is made once is made
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        rack = lives.rack_with(VMMS)
        _run_all(rack)
        gc.collect()
        took = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(rack.sleds[lives.SLED].vmms) == VMMS
    assert took / VMMS < BYTES_MAX


def test_a_vmm_that_waits_for_nexus_takes_no_more_memory_than_is_told():
    tracemalloc.start()  # before all, for what goes is subtracted
    try:
        rack = lives.rack_with(VMMS)
        _run_all(rack)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        _ask_all(rack, Asked.REBOOT, Transient("nothing listens"), _LATER_US, _LATER_US + 60_000_000)
        gc.collect()
        took = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(rack.sleds[lives.SLED].outbox) == VMMS
    assert took / VMMS < WAITING_MAX


def test_a_life_takes_no_more_calls_than_are_told():
    rack = lives.rack_with(0)
    lives.our_life(rack, 0, lives.T0_US)
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        lives.our_life(rack, 1, lives.T0_US)
    finally:
        sys.setprofile(before)
    assert calls < CALLS_MAX
