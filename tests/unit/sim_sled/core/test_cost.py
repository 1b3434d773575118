"""What a VMM costs, counted instead of timed: whoever makes each one dearer hears of it here and not months later."""

import gc
import sys
import tracemalloc
from uuid import UUID

from nexus_client.outbox import Delivered
from nexus_client.types import Asked, VmmStateRequested
from sim_sled.core import contract
from sim_sled.core.rack import Rack
from tests.bench import lives

BYTES_MAX = 2_550
"""Of a running VMM, all of it told: 2,370 on CPython 3.11; among 200,000, whose tables are fuller, 2,220."""
CALLS_MAX = 650
"""Of functions, ours and the interpreter's, in a life: some 600 on CPython 3.11."""
VMMS = 400


def _run_all(rack: Rack) -> None:
    """Until every VMM runs and Nexus has heard it."""
    now_us = lives.T0_US
    for number in range(VMMS):
        asked = VmmStateRequested(Asked.RUNNING)
        rack.handle(contract.PutState(0, lives.SLED, UUID(int=2**70 + number), asked), now_us)
    while (due_us := rack.next_deadline_us()) is not None:
        now_us = max(now_us, due_us)
        for effect in rack.handle(contract.Tick(), now_us):
            if isinstance(effect, contract.PutToNexus):
                rack.handle(contract.NexusReplied(lives.SLED, effect.propolis_id, effect.serial, Delivered()), now_us)


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
