"""vmm.py: one VMM between the sled's rules and its Propolis, with nobody around it."""

import msgspec
import pytest
from support.rack.driving import (
    FAILS,
    M1,
    M2,
    REBOOT,
    RUNNING,
    STOPPED,
    T0,
    ScriptedPacer,
    snapshot,
    target,
)
from support.rack.vmm_bench import IN, bench_of, running
from support.rows import in_one_test

from nexus_client.types import Asked, VmmState
from propolis_stub.errors import RequestDenied
from propolis_stub.waiting import Point
from sim_sled.core.errors import Internal, InvalidRequest, PropolisRefused, VmmTerminating
from sim_sled.core.rules import Verdict

# --- the traces of SA 2.7 ----------------------------------------------------------------------------


def test_start():
    bench = bench_of()
    assert bench.put(RUNNING) is Verdict.START
    assert bench.told == "starting gen 2", "the answer has nothing of what is only queued"
    assert bench.steps() == ["running gen 3"]


def test_stop_of_running():
    bench = running()
    assert bench.put(STOPPED) is Verdict.STOP
    assert bench.told == "stopping gen 4"
    assert bench.steps() == ["stopping gen 5", "stopping gen 6", "destroyed gen 7"]


def test_reboot_of_running():
    bench = running()
    assert bench.put(REBOOT) is Verdict.REBOOT
    assert bench.told == "rebooting gen 4"
    assert bench.steps() == ["rebooting gen 5", "running gen 6"]


def test_stop_before_start():
    bench = bench_of()
    assert bench.put(STOPPED) is Verdict.DESTROY_NOW
    assert bench.told == "destroyed gen 3"
    assert bench.steps() == []


def test_stop_before_the_start_was_executed():
    bench = bench_of()
    bench.put(RUNNING)
    bench.put(STOPPED)
    assert bench.told == "stopping gen 3"
    assert bench.steps() == ["running gen 4", "stopping gen 5", "stopping gen 6", "destroyed gen 7"]


def test_reboot_then_stop_before_it_was_executed():
    bench = running()
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
    bench = bench_of(VmmState.MIGRATING, M1)
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
    bench = running()
    bench.vmm.migrate_out_scripted(M1, succeeds=True, now_us=bench.now_us)
    assert bench.told == "running gen 3", "`stopping` is said when it stops (D03)"
    assert bench.steps() == [
        "migrating gen 4 out=in_progress/2",
        "migrating gen 5 out=completed/3",
        "stopping gen 6 out=completed/3",
        "destroyed gen 7 out=completed/3",
    ]


# --- resting states -------------------------------------------------------------------------------------------------


def _resting(bench):
    return bench.vmm.resting()


def test_resting_follows_what_was_accepted():
    bench = bench_of()
    assert _resting(bench) is VmmState.STARTING
    bench.put(RUNNING)
    assert _resting(bench) is VmmState.RUNNING
    bench.put(STOPPED)
    assert _resting(bench) is VmmState.DESTROYED
    bench.steps()
    assert _resting(bench) is VmmState.DESTROYED


def test_a_target_rests_in_migrating_until_it_is_told_where_from():
    bench = bench_of(VmmState.MIGRATING, M1)
    assert _resting(bench) is VmmState.MIGRATING
    bench.put(IN)
    assert _resting(bench) is VmmState.RUNNING


def test_a_source_rests_in_destroyed_from_the_moment_it_is_asked():
    bench = running()
    bench.vmm.migrate_out_scripted(M1, succeeds=True, now_us=bench.now_us)
    assert _resting(bench) is VmmState.DESTROYED


@pytest.mark.parametrize("point", [Point.DEVICES, Point.BACKENDS])
def test_a_start_that_has_failed_rests_in_failed(point):
    bench = bench_of(pacer=ScriptedPacer(0, {point: FAILS}))
    bench.put(RUNNING)
    assert _resting(bench) is VmmState.RUNNING, "it has not failed yet"
    bench.step()
    assert _resting(bench) is VmmState.FAILED
    bench.steps()
    assert bench.told.startswith("failed")


def test_a_forced_end_is_where_it_rests_whatever_it_was_going_to_be():
    bench = running()
    bench.vmm.force(VmmState.FAILED, bench.now_us)
    assert _resting(bench) is VmmState.FAILED


def test_a_silent_vmm_rests_where_it_was_going_to():
    bench = running()
    bench.put(STOPPED)
    bench.vmm.go_silent(bench.now_us)
    assert (_resting(bench), bench.told) == (VmmState.DESTROYED, "stopping gen 4")
    assert bench.put(STOPPED) is Verdict.NO_OP


def test_a_silent_vmm_that_was_ended_rests_in_its_end():
    bench = running()
    bench.vmm.go_silent(bench.now_us)
    bench.vmm.force(VmmState.FAILED, bench.now_us)
    assert _resting(bench) is VmmState.FAILED
    with pytest.raises(VmmTerminating):
        bench.put(RUNNING)


# --- requests -------------------------------------------------------------------------------------------------------


def _refuses(bench, requested, kind):
    before = snapshot(bench.vmm)
    with pytest.raises(kind) as refusal:
        bench.put(requested)
    assert snapshot(bench.vmm) == before, "a refused request changes nothing"
    return refusal.value


@pytest.mark.parametrize("requested", [RUNNING, REBOOT, IN])
def test_a_terminal_vmm_is_terminating(requested):
    bench = bench_of()
    bench.put(STOPPED)
    assert _refuses(bench, requested, VmmTerminating).message == "Instance is terminating"


def test_a_stop_of_a_failed_vmm_is_terminating_too():
    bench = bench_of()
    bench.vmm.force(VmmState.FAILED, T0)
    _refuses(bench, STOPPED, VmmTerminating)


def test_property_16_a_second_stop_is_no_news():
    bench = running()
    bench.put(STOPPED)
    assert bench.put(STOPPED) is Verdict.NO_OP
    assert bench.told == "stopping gen 4"
    assert len(bench.steps()) == 3, "nothing was queued twice"
    assert bench.put(STOPPED) is Verdict.NO_OP
    assert bench.told == "destroyed gen 7"


def test_property_17_running_on_running_is_no_news():
    bench = running()
    assert bench.put(RUNNING) is Verdict.NO_OP
    bench.put(REBOOT)
    bench.step()
    assert bench.put(RUNNING) is Verdict.NO_OP
    assert bench.told == "rebooting gen 5"


def test_property_18_a_reboot_while_one_waits_is_no_news():
    bench = running()
    bench.put(REBOOT)
    bench.put(REBOOT)
    assert bench.told == "rebooting gen 4"
    bench.step()
    bench.put(REBOOT)
    assert bench.steps() == ["running gen 6"]


def test_a_reboot_during_a_start_is_denied_by_propolis():
    bench = bench_of()
    bench.put(RUNNING)
    error = _refuses(bench, REBOOT, PropolisRefused)
    assert isinstance(error.__cause__, RequestDenied)
    assert "Instance is currently starting" in error.message


def test_a_reboot_during_a_migration_in_is_denied_by_propolis():
    bench = bench_of(VmmState.MIGRATING, M1)
    bench.put(IN)
    _refuses(bench, REBOOT, PropolisRefused)


def test_property_19_a_target_needs_a_migration_id():
    bench = bench_of(VmmState.MIGRATING)
    message = _refuses(bench, IN, InvalidRequest).message
    assert "wasn't created with a migration ID" in message


ELSEWHERE = target("[fd00::98]:12400")


def test_a_target_that_is_told_again_goes_on_as_if_it_had_not_been():
    """The 409 of the second ensure is swallowed: fidelity.md D44."""
    bench = bench_of(VmmState.MIGRATING, M1)
    bench.put(IN)
    for moment in ("before it is looked at", "while it migrates", "when it runs", "while it stops"):
        before = bench.vmm.record, bench.vmm.source_addr
        for again in (IN, ELSEWHERE):
            assert bench.put(again) is Verdict.NO_OP, moment
        assert (bench.vmm.record, bench.vmm.source_addr) == before
        if moment == "while it migrates":
            bench.steps()
        elif moment == "when it runs":
            bench.put(STOPPED)
        else:
            bench.step()
    bench.steps()
    assert bench.told.startswith("destroyed")
    _refuses(bench, IN, VmmTerminating)


def test_property_19_a_target_is_told_once_where_the_existing_simulator_is_wanted():
    bench = bench_of(VmmState.MIGRATING, M1)
    bench.how = msgspec.structs.replace(bench.how, refuse_repeated_target=True)
    bench.put(IN)
    _refuses(bench, IN, InvalidRequest)
    _refuses(bench, ELSEWHERE, InvalidRequest)
    bench.steps()
    _refuses(bench, IN, InvalidRequest)
    bench.put(STOPPED)
    _refuses(bench, IN, InvalidRequest)


# --- what cannot be built -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stepped", [True, False])
def test_a_vmm_that_cannot_be_built_fails_when_it_is_started(stepped):
    bench = bench_of(stepped=stepped)
    bench.vmm.about = msgspec.structs.replace(bench.vmm.about, unbuildable="255 vCPUs")
    assert bench.put(RUNNING) is Verdict.START
    assert bench.told == "starting gen 2", "the answer to the request does not wait for the ensure"
    bench.vmm.see(bench.now_us)
    assert bench.told == "failed gen 3"


def test_a_target_that_cannot_be_built_fails_and_so_does_its_migration():
    bench = bench_of(VmmState.MIGRATING, M1)
    bench.vmm.about = msgspec.structs.replace(bench.vmm.about, unbuildable="a disk that is none")
    bench.put(IN)
    assert bench.steps()[-1].startswith("failed")
    assert "in=failed" in bench.told


def test_a_vmm_with_a_migration_id_may_be_started_all_the_same():
    bench = bench_of(VmmState.STARTING, M1)
    bench.put(RUNNING)
    assert bench.steps() == ["running gen 3 in=pending/1"]


def test_a_stop_during_a_migration_in_waits_for_it():
    bench = bench_of(VmmState.MIGRATING, M1)
    bench.put(IN)
    bench.put(STOPPED)
    assert bench.told == "stopping gen 3 in=pending/1"
    assert bench.steps()[-2:] == ["stopping gen 9 in=completed/3", "destroyed gen 10 in=completed/3"]


def test_a_stop_of_a_source_is_carried_out_if_the_migration_fails():
    bench = running()
    bench.vmm.migrate_out_scripted(M1, succeeds=False, now_us=bench.now_us)
    assert bench.put(STOPPED) is Verdict.NO_OP, "it will rest in destroyed anyway, says the table"
    assert bench.steps()[-1].startswith("destroyed")
    assert "out=failed" in bench.told


@pytest.mark.parametrize("requested", [STOPPED, REBOOT])
def test_a_silent_propolis_does_not_answer(requested):
    bench = running()
    bench.vmm.go_silent(bench.now_us)
    assert _refuses(bench, requested, Internal).message == "Propolis does not answer"


def test_a_vmm_forced_to_run_without_a_propolis_can_still_be_stopped():
    """Injected by force: the record says running, but there is no Propolis that could be asked."""
    bench = bench_of()
    bench.vmm.force(VmmState.RUNNING, T0)
    _refuses(bench, REBOOT, Internal)
    assert bench.put(STOPPED) is Verdict.DESTROY_NOW
    assert bench.told == "destroyed gen 4"


def test_asked_remembers_what_was_accepted_only():
    bench = bench_of()
    bench.put(RUNNING)
    _refuses(bench, REBOOT, PropolisRefused)
    bench.put(STOPPED)
    assert [each.requested.type for each in bench.vmm.asked] == [Asked.RUNNING, Asked.STOPPED]


# --- migration out --------------------------------------------------------------------------------------------------


@in_one_test(
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
    bench = bench_of()
    for each in prepare:
        bench.steps() if each is None else bench.put(each)
    before = snapshot(bench.vmm)
    with pytest.raises(InvalidRequest, match="can't migrate out with pending resting state"):
        bench.vmm.migrate_out_scripted(M1, succeeds=True, now_us=bench.now_us)
    assert snapshot(bench.vmm) == before


def test_property_8_a_migration_that_has_ended_is_not_tried_again():
    bench = running()
    bench.vmm.migrate_out_scripted(M1, succeeds=False, now_us=bench.now_us)
    bench.steps()
    bench.vmm.migrate_out_scripted(M2, succeeds=False, now_us=bench.now_us)
    bench.steps()
    assert bench.told.endswith("out=failed/3")
    for ended in (M1, M2):
        with pytest.raises(InvalidRequest, match="was tried before"):
            bench.vmm.migrate_out_scripted(ended, succeeds=True, now_us=bench.now_us)


def test_property_11_a_vmm_does_not_leave_by_the_migration_that_brought_it():
    bench = bench_of(VmmState.MIGRATING, M1)
    bench.put(IN)
    bench.steps()
    with pytest.raises(InvalidRequest, match="was tried before"):
        bench.vmm.migrate_out_scripted(M1, succeeds=True, now_us=bench.now_us)
    bench.vmm.migrate_out_scripted(M2, succeeds=True, now_us=bench.now_us)
    assert bench.steps()[-1] == "destroyed gen 10 in=completed/3 out=completed/3"


def test_a_failed_migration_out_runs_on():
    bench = running()
    bench.vmm.migrate_out_scripted(M1, succeeds=False, now_us=bench.now_us)
    texts = bench.steps()
    assert texts[0] == "migrating gen 4 out=in_progress/2"
    assert texts[-1].startswith("running")
    assert texts[-1].endswith("out=failed/3")
    assert _resting(bench) is VmmState.RUNNING
