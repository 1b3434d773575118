"""vmm.py: deadlines, steps, and what a failing Propolis makes of its VMM."""

import pytest
from support.rack.driving import (
    FAILS,
    FOR_EVER,
    M1,
    RUNNING,
    STOPPED,
    T0,
    ScriptedPacer,
    snapshot,
)
from support.rack.vmm_bench import GRACE_US, IN, bench_of, running

from nexus_client.types import VmmState
from propolis_stub.contract import Dial
from propolis_stub.types import InstanceState
from propolis_stub.waiting import Pace, Point
from sim_sled.core.config import POKES_WAITING_MAX
from sim_sled.core.errors import ChannelFull
from sim_sled.core.rules import Verdict
from sim_sled.core.why import told

# --- time -----------------------------------------------------------------------------------------------------------


def _tick_all(bench):
    """Auto: lets time jump from deadline to deadline; returns what was seen, with the time since the start."""
    seen = []
    while (due_us := bench.vmm.deadline_us()) is not None:
        bench.now_us = max(bench.now_us, due_us)
        bench.vmm.tick(bench.now_us)
        record = bench.vmm.see(bench.now_us)
        if record is not None:
            seen.append((bench.now_us - T0, told(record)))
        if bench.vmm.grace_is_over(bench.now_us):
            break
    return seen


def test_the_deadline_is_that_of_propolis_until_a_stop_is_asked_for():
    bench = bench_of(stepped=False, pacer=ScriptedPacer(1_000))
    assert bench.vmm.deadline_us() is None
    bench.put(RUNNING)
    assert bench.vmm.deadline_us() == bench.now_us + 1_000
    _tick_all(bench)
    assert bench.vmm.deadline_us() is None


def test_the_stop_grace_begins_with_the_accepted_stop():
    pacer = ScriptedPacer(0, {Point.HALT: FOR_EVER})
    bench = bench_of(stepped=False, pacer=pacer)
    bench.put(RUNNING)
    bench.vmm.see(bench.now_us)
    bench.put(STOPPED)
    asked_us = bench.now_us
    bench.vmm.see(asked_us)
    assert bench.vmm.deadline_us() == asked_us + GRACE_US
    assert not bench.vmm.grace_is_over(asked_us + GRACE_US - 1)
    assert bench.vmm.grace_is_over(asked_us + GRACE_US)


def test_the_stop_grace_ends_with_the_stop():
    bench = bench_of(stepped=False)
    bench.put(RUNNING)
    bench.vmm.see(bench.now_us)
    bench.put(STOPPED)
    bench.vmm.see(bench.now_us)
    assert bench.vmm.state is VmmState.DESTROYED
    assert bench.vmm.deadline_us() is None
    assert not bench.vmm.grace_is_over(bench.now_us + 2 * GRACE_US)


def test_the_stop_grace_outlives_propolis():
    """A Propolis that dies silently while it stops is what the grace is for (SA 2.12)."""
    bench = running()
    bench.put(STOPPED)
    due_us = bench.now_us + GRACE_US
    bench.vmm.go_silent(bench.now_us)
    assert bench.vmm.deadline_us() == due_us
    assert bench.vmm.grace_is_over(due_us)


def test_the_stop_grace_does_not_wait_for_a_target_that_nobody_looks_at():
    """A target whose agent never gets round to it (WAKE for ever) is stopped: the grace ends it all the same."""
    bench = bench_of(VmmState.MIGRATING, M1, stepped=False, pacer=ScriptedPacer(0, {Point.WAKE: FOR_EVER}))
    bench.put(IN)
    bench.put(STOPPED)
    assert bench.vmm.blind
    assert bench.vmm.grace_is_over(bench.vmm.deadline_us())


def test_a_target_in_auto_mode_is_looked_at_in_the_agents_own_time():
    pacer = ScriptedPacer(0, {Point.WAKE: Pace(150), Point.M_CONNECT: Pace(400)})
    bench = bench_of(VmmState.MIGRATING, M1, stepped=False, pacer=pacer)
    bench.put(IN)
    assert bench.vmm.see(bench.now_us) is None, "the answer has nothing of the new Propolis"
    assert _tick_all(bench) == [(151, "migrating gen 3 in=in_progress/2"), (401, "running gen 4 in=completed/3")]


# --- steps ----------------------------------------------------------------------------------------------------------


def test_a_step_of_a_vmm_without_a_propolis_does_nothing():
    assert bench_of().vmm.step(T0) is None


def test_a_step_of_a_vmm_at_rest_does_nothing():
    bench = running()
    assert bench.vmm.step(bench.now_us) is None


def test_a_step_passes_points_that_show_nothing_together_with_the_next():
    """Devices and objects that take time are no milestones: a poke goes on until there is something to see."""
    bench = bench_of(pacer=ScriptedPacer(1_000))
    bench.put(RUNNING)
    assert bench.steps() == ["starting gen 3", "running gen 4"]


def test_a_step_does_not_pass_what_lasts_for_ever():
    bench = bench_of(pacer=ScriptedPacer(0, {Point.BACKENDS: FOR_EVER}))
    bench.put(RUNNING)
    assert bench.steps() == ["starting gen 3"]


# --- failures of Propolis -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stepped", [True, False])
def test_a_vm_whose_objects_cannot_be_made_has_failed(stepped):
    bench = bench_of(stepped=stepped, pacer=ScriptedPacer(0, {Point.CREATE: FAILS}))
    assert bench.put(RUNNING) is Verdict.START
    assert bench.told == "starting gen 2", "the answer still has nothing of it"
    bench.vmm.see(bench.now_us)
    bench.steps()
    assert bench.told == "failed gen 3"


def test_a_vm_whose_objects_cannot_be_made_in_the_end_has_failed():
    bench = bench_of(stepped=False, pacer=ScriptedPacer(0, {Point.CREATE: Pace(500, fail=True)}))
    bench.put(RUNNING)
    assert _tick_all(bench) == [(501, "failed gen 3")]


def test_a_terminal_vmm_hears_nothing_more():
    """A failed import is told twice by Propolis; the sled hears it once (NX 7 #6)."""
    bench = bench_of(VmmState.MIGRATING, M1, pacer=ScriptedPacer(0, {Point.M_RAM_PUSH: FAILS}))
    bench.put(IN)
    texts = bench.steps()
    assert texts[-1].startswith("failed")
    assert texts[-1].endswith("in=failed/3")
    assert bench.vmm.vm.state is InstanceState.FAILED
    assert bench.vmm.step(bench.now_us) is None


# --- pokes that wait ------------------------------------------------------------------------------------------------


def test_the_queue_of_pokes_has_the_real_agents_length():
    bench = bench_of()
    for ticket in range(POKES_WAITING_MAX):
        bench.vmm.queue_poke(ticket, drain=True)
    before = snapshot(bench.vmm)
    with pytest.raises(ChannelFull):
        bench.vmm.queue_poke(99, drain=True)
    assert snapshot(bench.vmm) == before


def test_a_lost_propolis_is_forgotten_with_what_it_still_had_to_say():
    bench = bench_of(VmmState.MIGRATING, M1, stepped=False)
    bench.put(IN)
    bench.vmm.lose_propolis(bench.now_us)
    assert (bench.vmm.vm, bench.vmm.latest, bench.vmm.blind, bench.vmm.see_at_us) == (None, None, False, None)
    assert bench.vmm.lose_propolis(bench.now_us) == []


def test_a_linked_target_dials_its_source():
    bench = bench_of(VmmState.MIGRATING, M1, stepped=False)
    _, effects = bench.vmm.put_state(IN, bench.how, scripted=False, now_us=T0)
    assert any(isinstance(effect, Dial) for effect in effects)
    assert bench.vmm.source_addr == "[fd00::99]:12400"
