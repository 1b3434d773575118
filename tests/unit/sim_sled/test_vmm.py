"""vmm.py: one VMM between the sled's rules and its Propolis, with nobody around it."""

import attrs
import pytest
from driving import (
    FAILS,
    FOR_EVER,
    M1,
    M2,
    REBOOT,
    RUNNING,
    SLED_A,
    STOPPED,
    T0,
    V1,
    ScriptedPacer,
    registration,
    snapshot,
    target,
)

from nexus_client.types import Asked, VmmState
from propolis_stub.edge import Dial
from propolis_stub.errors import RequestDenied
from propolis_stub.timing import Pace, Point
from propolis_stub.types import InstanceState
from sim_sled import observe
from sim_sled.config import POKES_WAITING_MAX
from sim_sled.errors import ChannelFull, Internal, InvalidRequest, PropolisRefused, VmmTerminating
from sim_sled.history import told
from sim_sled.rules import Verdict
from sim_sled.vmm import How, Vmm

GRACE_US = 600_000_000
IN = target("[fd00::99]:12400")


@attrs.define(eq=False)
class Bench:
    """A VMM and its clock: 1 us per call."""

    vmm: Vmm
    how: How
    now_us: int = T0

    def put(self, requested):
        self.now_us += 1
        verdict, _ = self.vmm.put_state(requested, self.how, scripted=True, now_us=self.now_us)
        return verdict

    def step(self):
        """What is seen after one step; None if nothing waited."""
        self.now_us += 1
        done = self.vmm.step(self.now_us)
        self.vmm.see(self.now_us)
        return None if done is None else told(self.vmm.record)

    def steps(self):
        texts = []
        while (text := self.step()) is not None:
            texts.append(text)
        return texts

    @property
    def told(self):
        return told(self.vmm.record)


def _bench(state=VmmState.STARTING, migration_id=None, *, stepped=True, pacer=None, grace_us=GRACE_US):
    body = registration(V1, state, migration_id=migration_id)
    vmm = Vmm(SLED_A, V1, body, observe.registered(body.vmm_runtime, migration_id, T0))
    return Bench(vmm, How(pacer or ScriptedPacer(0), stepped, grace_us))


def _running(**options):
    bench = _bench(**options)
    bench.put(RUNNING)
    assert bench.steps() == ["running gen 3"]
    return bench


# --- the traces of sled-agent-api.md 2.7 -----------------------------------------------------------------------------


def test_start():
    bench = _bench()
    assert bench.put(RUNNING) is Verdict.START
    assert bench.told == "starting gen 2", "the answer has nothing of what is only queued"
    assert bench.steps() == ["running gen 3"]


def test_stop_of_running():
    bench = _running()
    assert bench.put(STOPPED) is Verdict.STOP
    assert bench.told == "stopping gen 4"
    assert bench.steps() == ["stopping gen 5", "stopping gen 6", "destroyed gen 7"]


def test_reboot_of_running():
    bench = _running()
    assert bench.put(REBOOT) is Verdict.REBOOT
    assert bench.told == "rebooting gen 4"
    assert bench.steps() == ["rebooting gen 5", "running gen 6"]


def test_stop_before_start():
    bench = _bench()
    assert bench.put(STOPPED) is Verdict.DESTROY_NOW
    assert bench.told == "destroyed gen 3"
    assert bench.steps() == []


def test_stop_before_the_start_was_executed():
    bench = _bench()
    bench.put(RUNNING)
    bench.put(STOPPED)
    assert bench.told == "stopping gen 3"
    assert bench.steps() == ["running gen 4", "stopping gen 5", "stopping gen 6", "destroyed gen 7"]


def test_reboot_then_stop_before_it_was_executed():
    bench = _running()
    bench.put(REBOOT)
    bench.put(STOPPED)
    assert bench.told == "stopping gen 5"
    assert bench.steps() == [
        "rebooting gen 6",
        "running gen 7",
        "stopping gen 8",
        "stopping gen 9",
        "destroyed gen 10",
    ]


def test_migration_target():
    """State and first status come in one report (D04), so there are four steps as in the original."""
    bench = _bench(VmmState.MIGRATING, M1)
    assert bench.told == "migrating gen 2 in=pending/1"
    assert bench.put(IN) is Verdict.MIGRATE_IN
    assert bench.told == "migrating gen 2 in=pending/1"
    assert bench.steps() == [
        "migrating gen 3 in=in_progress/2",
        "migrating gen 4 in=in_progress/2",
        "migrating gen 5 in=completed/3",
        "running gen 6 in=completed/3",
    ]


def test_migration_source():
    bench = _running()
    bench.vmm.migrate_out_scripted(M1, succeeds=True, now_us=bench.now_us)
    assert bench.told == "running gen 3", "`stopping` is said when it stops (D03)"
    assert bench.steps() == [
        "migrating gen 4 out=in_progress/2",
        "migrating gen 5 out=completed/3",
        "stopping gen 6 out=completed/3",
        "destroyed gen 7 out=completed/3",
    ]


# --- resting states --------------------------------------------------------------------------------------------------


def _resting(bench):
    return bench.vmm.resting()


def test_resting_follows_what_was_accepted():
    bench = _bench()
    assert _resting(bench) is VmmState.STARTING
    bench.put(RUNNING)
    assert _resting(bench) is VmmState.RUNNING
    bench.put(STOPPED)
    assert _resting(bench) is VmmState.DESTROYED
    bench.steps()
    assert _resting(bench) is VmmState.DESTROYED


def test_a_target_rests_in_migrating_until_it_is_told_where_from():
    bench = _bench(VmmState.MIGRATING, M1)
    assert _resting(bench) is VmmState.MIGRATING
    bench.put(IN)
    assert _resting(bench) is VmmState.RUNNING


def test_a_source_rests_in_destroyed_from_the_moment_it_is_asked():
    bench = _running()
    bench.vmm.migrate_out_scripted(M1, succeeds=True, now_us=bench.now_us)
    assert _resting(bench) is VmmState.DESTROYED


@pytest.mark.parametrize("point", [Point.DEVICES, Point.BACKENDS])
def test_a_start_that_has_failed_rests_in_failed(point):
    bench = _bench(pacer=ScriptedPacer(0, {point: FAILS}))
    bench.put(RUNNING)
    assert _resting(bench) is VmmState.RUNNING, "it has not failed yet"
    bench.step()
    assert _resting(bench) is VmmState.FAILED
    bench.steps()
    assert bench.told.startswith("failed")


def test_a_forced_end_is_where_it_rests_whatever_it_was_going_to_be():
    bench = _running()
    bench.vmm.force(VmmState.FAILED, bench.now_us)
    assert _resting(bench) is VmmState.FAILED


def test_a_silent_vmm_rests_where_it_was_going_to():
    bench = _running()
    bench.put(STOPPED)
    bench.vmm.go_silent(bench.now_us)
    assert (_resting(bench), bench.told) == (VmmState.DESTROYED, "stopping gen 4")
    assert bench.put(STOPPED) is Verdict.NO_OP


def test_a_silent_vmm_that_was_ended_rests_in_its_end():
    bench = _running()
    bench.vmm.go_silent(bench.now_us)
    bench.vmm.force(VmmState.FAILED, bench.now_us)
    assert _resting(bench) is VmmState.FAILED
    with pytest.raises(VmmTerminating):
        bench.put(RUNNING)


# --- requests --------------------------------------------------------------------------------------------------------


def _refuses(bench, requested, kind):
    before = snapshot(bench.vmm)
    with pytest.raises(kind) as refusal:
        bench.put(requested)
    assert snapshot(bench.vmm) == before, "a refused request changes nothing"
    return refusal.value


@pytest.mark.parametrize("requested", [RUNNING, REBOOT, IN])
def test_a_terminal_vmm_is_terminating(requested):
    bench = _bench()
    bench.put(STOPPED)
    assert _refuses(bench, requested, VmmTerminating).message == "Instance is terminating"


def test_a_stop_of_a_failed_vmm_is_terminating_too():
    bench = _bench()
    bench.vmm.force(VmmState.FAILED, T0)
    _refuses(bench, STOPPED, VmmTerminating)


def test_property_16_a_second_stop_is_no_news():
    bench = _running()
    bench.put(STOPPED)
    assert bench.put(STOPPED) is Verdict.NO_OP
    assert bench.told == "stopping gen 4"
    assert len(bench.steps()) == 3, "nothing was queued twice"
    assert bench.put(STOPPED) is Verdict.NO_OP
    assert bench.told == "destroyed gen 7"


def test_property_17_running_on_running_is_no_news():
    bench = _running()
    assert bench.put(RUNNING) is Verdict.NO_OP
    bench.put(REBOOT)
    bench.step()
    assert bench.put(RUNNING) is Verdict.NO_OP
    assert bench.told == "rebooting gen 5"


def test_property_18_a_reboot_while_one_waits_is_no_news():
    bench = _running()
    bench.put(REBOOT)
    bench.put(REBOOT)
    assert bench.told == "rebooting gen 4"
    bench.step()
    bench.put(REBOOT)
    assert bench.steps() == ["running gen 6"]


def test_a_reboot_during_a_start_is_denied_by_propolis():
    bench = _bench()
    bench.put(RUNNING)
    error = _refuses(bench, REBOOT, PropolisRefused)
    assert isinstance(error.__cause__, RequestDenied)
    assert "Instance is currently starting" in error.message


def test_a_reboot_during_a_migration_in_is_denied_by_propolis():
    bench = _bench(VmmState.MIGRATING, M1)
    bench.put(IN)
    _refuses(bench, REBOOT, PropolisRefused)


def test_property_19_a_target_needs_a_migration_id():
    bench = _bench(VmmState.MIGRATING)
    message = _refuses(bench, IN, InvalidRequest).message
    assert "wasn't created with a migration id" in message


def test_property_19_a_target_is_told_once():
    bench = _bench(VmmState.MIGRATING, M1)
    bench.put(IN)
    _refuses(bench, IN, InvalidRequest)
    bench.steps()
    _refuses(bench, IN, InvalidRequest)


def test_a_vmm_with_a_migration_id_may_be_started_all_the_same():
    bench = _bench(VmmState.STARTING, M1)
    bench.put(RUNNING)
    assert bench.steps() == ["running gen 3 in=pending/1"]


def test_a_stop_during_a_migration_in_waits_for_it():
    bench = _bench(VmmState.MIGRATING, M1)
    bench.put(IN)
    bench.put(STOPPED)
    assert bench.told == "stopping gen 3 in=pending/1"
    assert bench.steps()[-2:] == ["stopping gen 9 in=completed/3", "destroyed gen 10 in=completed/3"]


def test_a_stop_of_a_source_is_carried_out_if_the_migration_fails():
    bench = _running()
    bench.vmm.migrate_out_scripted(M1, succeeds=False, now_us=bench.now_us)
    assert bench.put(STOPPED) is Verdict.NO_OP, "it will rest in destroyed anyway, says the table"
    assert bench.steps()[-1].startswith("destroyed")
    assert "out=failed" in bench.told


@pytest.mark.parametrize("requested", [STOPPED, REBOOT])
def test_a_silent_propolis_does_not_answer(requested):
    bench = _running()
    bench.vmm.go_silent(bench.now_us)
    assert _refuses(bench, requested, Internal).message == "Propolis does not answer"


def test_a_vmm_forced_to_run_without_a_propolis_can_still_be_stopped():
    """Injected by force: the record says running, but there is no Propolis that could be asked."""
    bench = _bench()
    bench.vmm.force(VmmState.RUNNING, T0)
    _refuses(bench, REBOOT, Internal)
    assert bench.put(STOPPED) is Verdict.DESTROY_NOW
    assert bench.told == "destroyed gen 4"


def test_asked_remembers_what_was_accepted_only():
    bench = _bench()
    bench.put(RUNNING)
    _refuses(bench, REBOOT, PropolisRefused)
    bench.put(STOPPED)
    assert [requested.type for _, requested in bench.vmm.asked] == [Asked.RUNNING, Asked.STOPPED]


# --- migration out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param([], id="never started"),
        pytest.param([RUNNING], id="start pending"),
        pytest.param([STOPPED], id="destroyed"),
        pytest.param([RUNNING, None, STOPPED], id="stop pending"),
        pytest.param([RUNNING, None, REBOOT], id="rebooting"),
    ],
)
def test_only_a_vmm_that_runs_can_migrate_out(prepare):
    bench = _bench()
    for each in prepare:
        bench.steps() if each is None else bench.put(each)
    before = snapshot(bench.vmm)
    with pytest.raises(InvalidRequest, match="can't migrate out with pending resting state"):
        bench.vmm.migrate_out_scripted(M1, succeeds=True, now_us=bench.now_us)
    assert snapshot(bench.vmm) == before


def test_property_8_a_migration_that_has_ended_is_not_tried_again():
    bench = _running()
    bench.vmm.migrate_out_scripted(M1, succeeds=False, now_us=bench.now_us)
    bench.steps()
    bench.vmm.migrate_out_scripted(M2, succeeds=False, now_us=bench.now_us)
    bench.steps()
    assert bench.told.endswith("out=failed/3")
    for ended in (M1, M2):
        with pytest.raises(InvalidRequest, match="was tried before"):
            bench.vmm.migrate_out_scripted(ended, succeeds=True, now_us=bench.now_us)


def test_property_11_a_vmm_does_not_leave_by_the_migration_that_brought_it():
    bench = _bench(VmmState.MIGRATING, M1)
    bench.put(IN)
    bench.steps()
    with pytest.raises(InvalidRequest, match="was tried before"):
        bench.vmm.migrate_out_scripted(M1, succeeds=True, now_us=bench.now_us)
    bench.vmm.migrate_out_scripted(M2, succeeds=True, now_us=bench.now_us)
    assert bench.steps()[-1] == "destroyed gen 10 in=completed/3 out=completed/3"


def test_a_failed_migration_out_runs_on():
    bench = _running()
    bench.vmm.migrate_out_scripted(M1, succeeds=False, now_us=bench.now_us)
    texts = bench.steps()
    assert texts[0] == "migrating gen 4 out=in_progress/2"
    assert texts[-1].startswith("running")
    assert texts[-1].endswith("out=failed/3")
    assert _resting(bench) is VmmState.RUNNING


# --- time ------------------------------------------------------------------------------------------------------------


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
    bench = _bench(stepped=False, pacer=ScriptedPacer(1_000))
    assert bench.vmm.deadline_us() is None
    bench.put(RUNNING)
    assert bench.vmm.deadline_us() == bench.now_us + 1_000
    _tick_all(bench)
    assert bench.vmm.deadline_us() is None


def test_the_stop_grace_begins_with_the_accepted_stop():
    pacer = ScriptedPacer(0, {Point.HALT: FOR_EVER})
    bench = _bench(stepped=False, pacer=pacer)
    bench.put(RUNNING)
    bench.vmm.see(bench.now_us)
    bench.put(STOPPED)
    asked_us = bench.now_us
    bench.vmm.see(asked_us)
    assert bench.vmm.deadline_us() == asked_us + GRACE_US
    assert not bench.vmm.grace_is_over(asked_us + GRACE_US - 1)
    assert bench.vmm.grace_is_over(asked_us + GRACE_US)


def test_the_stop_grace_ends_with_the_stop():
    bench = _bench(stepped=False)
    bench.put(RUNNING)
    bench.vmm.see(bench.now_us)
    bench.put(STOPPED)
    bench.vmm.see(bench.now_us)
    assert bench.vmm.state is VmmState.DESTROYED
    assert bench.vmm.deadline_us() is None
    assert not bench.vmm.grace_is_over(bench.now_us + 2 * GRACE_US)


def test_the_stop_grace_outlives_propolis():
    """A Propolis that dies silently while it stops is what the grace is for (sled-agent-api.md 2.12)."""
    bench = _running()
    bench.put(STOPPED)
    due_us = bench.now_us + GRACE_US
    bench.vmm.go_silent(bench.now_us)
    assert bench.vmm.deadline_us() == due_us
    assert bench.vmm.grace_is_over(due_us)


def test_the_stop_grace_does_not_wait_for_a_target_that_nobody_looks_at():
    """A target whose agent never gets round to it (WAKE for ever) is stopped: the grace ends it all the same."""
    bench = _bench(VmmState.MIGRATING, M1, stepped=False, pacer=ScriptedPacer(0, {Point.WAKE: FOR_EVER}))
    bench.put(IN)
    bench.put(STOPPED)
    assert bench.vmm.blind
    assert bench.vmm.grace_is_over(bench.vmm.deadline_us())


def test_a_target_in_auto_mode_is_looked_at_in_the_agents_own_time():
    pacer = ScriptedPacer(0, {Point.WAKE: Pace(150), Point.M_CONNECT: Pace(400)})
    bench = _bench(VmmState.MIGRATING, M1, stepped=False, pacer=pacer)
    bench.put(IN)
    assert bench.vmm.see(bench.now_us) is None, "the answer has nothing of the new Propolis"
    assert _tick_all(bench) == [(151, "migrating gen 3 in=in_progress/2"), (401, "running gen 4 in=completed/3")]


# --- steps -----------------------------------------------------------------------------------------------------------


def test_a_step_of_a_vmm_without_a_propolis_does_nothing():
    assert _bench().vmm.step(T0) is None


def test_a_step_of_a_vmm_at_rest_does_nothing():
    bench = _running()
    assert bench.vmm.step(bench.now_us) is None


def test_a_step_passes_points_that_show_nothing_together_with_the_next():
    """Devices and objects that take time are no milestones: a poke goes on until there is something to see."""
    bench = _bench(pacer=ScriptedPacer(1_000))
    bench.put(RUNNING)
    assert bench.steps() == ["starting gen 3", "running gen 4"]


def test_a_step_does_not_pass_what_lasts_for_ever():
    bench = _bench(pacer=ScriptedPacer(0, {Point.BACKENDS: FOR_EVER}))
    bench.put(RUNNING)
    assert bench.steps() == ["starting gen 3"]


# --- failures of Propolis --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stepped", [True, False])
def test_a_vm_whose_objects_cannot_be_made_has_failed(stepped):
    bench = _bench(stepped=stepped, pacer=ScriptedPacer(0, {Point.CREATE: FAILS}))
    assert bench.put(RUNNING) is Verdict.START
    assert bench.told == "starting gen 2", "the answer still has nothing of it"
    bench.vmm.see(bench.now_us)
    bench.steps()
    assert bench.told == "failed gen 3"


def test_a_vm_whose_objects_cannot_be_made_in_the_end_has_failed():
    bench = _bench(stepped=False, pacer=ScriptedPacer(0, {Point.CREATE: Pace(500, fail=True)}))
    bench.put(RUNNING)
    assert _tick_all(bench) == [(501, "failed gen 3")]


def test_a_terminal_vmm_hears_nothing_more():
    """A failed import is told twice by Propolis; the sled hears it once (nexus.md 7, property 6)."""
    bench = _bench(VmmState.MIGRATING, M1, pacer=ScriptedPacer(0, {Point.M_RAM_PUSH: FAILS}))
    bench.put(IN)
    texts = bench.steps()
    assert texts[-1].startswith("failed")
    assert texts[-1].endswith("in=failed/3")
    assert bench.vmm.vm.state is InstanceState.FAILED
    assert bench.vmm.step(bench.now_us) is None


# --- pokes that wait -------------------------------------------------------------------------------------------------


def test_the_queue_of_pokes_has_the_real_agents_length():
    bench = _bench()
    for ticket in range(POKES_WAITING_MAX):
        bench.vmm.queue_poke(ticket, drain=True)
    before = snapshot(bench.vmm)
    with pytest.raises(ChannelFull):
        bench.vmm.queue_poke(99, drain=True)
    assert snapshot(bench.vmm) == before


def test_a_lost_propolis_is_forgotten_with_what_it_still_had_to_say():
    bench = _bench(VmmState.MIGRATING, M1, stepped=False)
    bench.put(IN)
    bench.vmm.lose_propolis(bench.now_us)
    assert (bench.vmm.vm, bench.vmm.latest, bench.vmm.blind, bench.vmm.see_at_us) == (None, None, False, None)
    assert bench.vmm.lose_propolis(bench.now_us) == []


def test_a_linked_target_dials_its_source():
    bench = _bench(VmmState.MIGRATING, M1, stepped=False)
    _, effects = bench.vmm.put_state(IN, bench.how, scripted=False, now_us=T0)
    assert any(isinstance(effect, Dial) for effect in effects)
    assert bench.vmm.source_addr == "[fd00::99]:12400"
