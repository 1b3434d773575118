"""Background tasks: health check, updater, reaper, reincarnation (NX 2, 4.5, 5.4)."""

import pytest
from msgspec.structs import replace
from support.nexus.world import BAD, GONE, World, report, sled_id
from support.rows import in_one_test

from nexus_client.stub.config import SECOND_US, SagaMode
from nexus_client.stub.contract import (
    Answered,
    Boot,
    Crash,
    ErrorAnswered,
    GetVmmState,
    Malformed,
    NoConnection,
    RunTask,
    SetSled,
    Start,
    Stop,
    Task,
    TimedOut,
)
from nexus_client.stub.records import FailureReason, IntendedState, VmmDbState
from nexus_client.stub.rules import RuleSet
from nexus_client.types import MigrationState, VmmState

S, M = VmmState, MigrationState
OFF = {
    "watcher_period_us": None,
    "updater_period_us": None,
    "reaper_period_us": None,
    "reincarnation_period_us": None,
}


def begun(world):
    return [line.text for line in world.lines if getattr(line, "what", "") == "saga" and line.text.endswith("begins")]


# ---- the health check ----------------------------------------------------------------------------------------------


def checks(world):
    """The health checks that are on their way."""
    return [call for call in world.calls if isinstance(call.op, GetVmmState)]


def checked(outcome, **config):
    """A running instance after one health check with this answer, and its VMM before."""
    world = World.make(**{**OFF, **config})
    web = world.running()
    before = world.active(web)
    world.ask(RunTask, Task.WATCHER)
    (check,) = checks(world)
    assert check.op.propolis_id == before.id
    world.answer(check, outcome)
    return world, web, before


def test_every_30_seconds_each_vmm_is_asked_once():
    world = World.make()
    world.running()
    world.wait(29 * SECOND_US)
    assert not world.calls
    world.wait(2 * SECOND_US)
    assert len(checks(world)) == 1
    world.wait(60 * SECOND_US)
    assert len(checks(world)) == 1, "no new round while the last one waits"


def test_a_fresh_answer_is_applied_like_a_report():
    world, web, _ = checked(Answered(report(S.DESTROYED, 50)))
    assert world.public(web) == "stopped"


def test_a_known_answer_changes_nothing():
    world, web, before = checked(Answered(report(S.RUNNING, 3)))
    assert world.active(web) == before


def test_404_with_the_code_fails_the_vmm():
    world, web, before = checked(GONE)
    row = world.nexus.records.vmms[before.id]
    assert (row.state, row.failure_reason) == (VmmDbState.FAILED, FailureReason.NO_SUCH_INSTANCE)
    assert row.state_generation == before.state_generation + 1
    assert world.public(web) == "failed"


INCONCLUSIVE = [
    ErrorAnswered(404, None, ""),
    ErrorAnswered(410, "NO_SUCH_INSTANCE", ""),
    ErrorAnswered(500),
    ErrorAnswered(503),
    BAD,
    NoConnection(),
    TimedOut(),
    Malformed(),
]


@in_one_test("outcome", INCONCLUSIVE, ids=str)
def test_everything_else_is_inconclusive(outcome):
    world, web, before = checked(outcome)
    assert world.active(web) == before
    world.ask(RunTask, Task.WATCHER)
    assert len(checks(world)) == 1, "the slot is free again"


@in_one_test(("power", "fails"), [("off", True), ("a0", False), ("unknown", False)])
@in_one_test("outcome", [NoConnection(), TimedOut()], ids=str)
def test_a_powered_off_sled_fails_its_vmms(power, fails, outcome):
    world = World.make(**OFF)
    web = world.running()
    vmm = world.active(web)
    world.ask(SetSled, vmm.sled_id, power=power)
    world.ask(RunTask, Task.WATCHER)
    world.answer(world.calls[0], outcome)
    row = world.nexus.records.vmms[vmm.id]
    assert row.failure_reason is (FailureReason.SLED_OFF if fails else None)
    assert world.public(web) == ("failed" if fails else "running")


def test_an_expunged_sled_is_not_even_asked():
    world = World.make(**OFF)
    web = world.running()
    vmm = world.active(web)
    world.ask(SetSled, vmm.sled_id, policy="expunged")
    world.ask(RunTask, Task.WATCHER)
    assert not world.calls
    assert world.nexus.records.vmms[vmm.id].failure_reason is FailureReason.SLED_EXPUNGED
    assert world.public(web) == "failed"


@pytest.mark.parametrize("rules", [RuleSet.R5854, RuleSet.R5749])
def test_before_6455_the_watcher_never_failed_a_vmm(rules):
    world, web, before = checked(GONE, rules=rules)
    assert world.active(web) == before
    world.ask(RunTask, Task.WATCHER)
    assert len(checks(world)) == 1


def test_creating_unwound_and_destroyed_vmms_are_not_asked_failed_ones_are():
    world = World.make(saga_mode=SagaMode.BACKGROUND, **OFF)
    creating = world.create("creating")
    world.calls.clear()
    web, dead = world.running("web"), world.running("dead")
    world.report(world.active(web).id, report(S.FAILED, 50))
    world.report(world.active(dead).id, report(S.DESTROYED, 50))
    assert world.active(creating).state is VmmDbState.CREATING
    world.ask(RunTask, Task.WATCHER)
    assert [call.op.propolis_id for call in checks(world)] == [world.active(web).id]


def test_targets_and_orphans_are_asked_too():
    world = World.make(**OFF)
    web = world.running()
    world.migrate(web)
    while world.calls:
        world.answer(world.calls[0])
    row = world.row(web)
    world.ask(RunTask, Task.WATCHER)
    assert {call.op.propolis_id for call in checks(world)} == {row.active_propolis_id, row.target_propolis_id}


def test_at_most_16_checks_at_once():
    world = World.make(**OFF)
    for number in range(20):
        world.running(f"web-{number}")
    world.ask(RunTask, Task.WATCHER)
    assert len(checks(world)) == 16
    world.answer(world.calls[0])
    assert len(checks(world)) == 16
    while world.calls:
        world.answer(world.calls[0])
    assert len([call for call, _ in world.exchanges if isinstance(call.op, GetVmmState)]) == 20


def test_a_crash_ends_the_round():
    world = World.make(**OFF)
    world.running()
    world.ask(RunTask, Task.WATCHER)
    world.do(Crash())
    world.do(Boot())
    world.calls.clear()
    world.ask(RunTask, Task.WATCHER)
    assert len(checks(world)) == 1


# ---- the updater ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "shown"), [(S.DESTROYED, "stopped"), (S.FAILED, "failed")])
def test_the_updater_finds_a_vmm_that_is_over(state, shown):
    world = World.make(saga_mode=SagaMode.BACKGROUND, **OFF)
    web = world.running()
    world.report(world.active(web).id, report(state, 50))
    assert world.public(web) == "stopping"
    world.ask(RunTask, Task.UPDATER)
    assert world.public(web) == shown


def test_a_migration_completed_on_one_side_makes_one_no_op_saga_per_period():
    world = World.make(**OFF)
    web = world.running()
    world.migrate(web)
    while world.calls:
        world.answer(world.calls[0])
    row = world.row(web)
    world.report(row.active_propolis_id, report(S.STOPPING, 50, out=(row.migration_id, M.COMPLETED, 5)))
    after = world.row(web)
    for times in (1, 2):
        world.ask(RunTask, Task.UPDATER)
        assert world.row(web) == replace(after, updater_gen=after.updater_gen + 2 * times)


def test_the_updater_leaves_locked_live_and_deleted_instances_alone():
    world = World.make(saga_mode=SagaMode.QUEUED, **OFF)
    live = world.running("live")
    web = world.running("web")
    world.report(world.active(web).id, report(S.DESTROYED, 50))
    world.wait(20_000)
    assert world.row(web).updater_id is not None
    world.lines.clear()
    world.ask(RunTask, Task.UPDATER)
    assert not begun(world)
    assert world.public(live) == "running"


# ---- the reaper ----------------------------------------------------------------------------------------------------


def test_the_reaper_takes_what_is_over_and_unreferenced():
    world = World.make(**OFF)
    web = world.running()
    source = world.active(web).id
    world.migrate(web)
    world.settle()
    assert world.nexus.records.vmms[source].state is VmmDbState.DESTROYED
    assert world.nexus.records.vmms[source].time_deleted is None
    assert source in world.nexus.records.reservations
    world.ask(RunTask, Task.REAPER)
    assert world.nexus.records.vmms[source].time_deleted is not None
    assert source not in world.nexus.records.reservations
    assert world.active(web) is not None


def test_the_reaper_spares_linked_and_live_vmms():
    world = World.make(saga_mode=SagaMode.BACKGROUND, **OFF)
    web = world.running()
    world.report(world.active(web).id, report(S.DESTROYED, 50))
    world.ask(RunTask, Task.REAPER)
    assert world.active(web) is not None


# ---- reincarnation -------------------------------------------------------------------------------------------------


def failed(**config):
    policy = config.pop("policy", None)
    cooldown = config.pop("cooldown", None)
    world = World.make(**{**OFF, **config})
    web = world.running(auto_restart_policy=policy, auto_restart_cooldown_us=cooldown)
    world.wait(SECOND_US)
    world.report(world.active(web).id, report(S.FAILED, 50))
    assert world.public(web) == "failed"
    return world, web


def restart(world):
    world.wait(SECOND_US)
    world.settle()


def test_a_failed_instance_restarts_on_another_vmm():
    world, web = failed()
    restart(world)
    assert world.public(web) == "running"
    assert world.seen(web)[-4:] == ["stopping", "failed", "starting", "running"]
    assert world.row(web).time_last_auto_restarted is not None
    assert world.nexus.view(web)["instance"]["auto_restart_cooldown_expiration"] is not None


@pytest.mark.parametrize(("policy", "restarts"), [(None, True), ("best_effort", True), ("never", False)])
def test_the_policy_decides(policy, restarts):
    world, web = failed(policy=policy)
    restart(world)
    assert world.public(web) == ("running" if restarts else "failed")
    view = world.nexus.view(web)["instance"]
    assert (view["auto_restart_enabled"], view["auto_restart_policy"]) == (restarts, policy)


def test_what_the_user_stopped_stays_failed():
    world = World.make()
    web = world.running()
    world.open(Stop, web)
    world.answer(world.calls[0], GONE)
    world.wait(120 * SECOND_US)
    assert world.public(web) == "failed"
    assert world.row(web).intended_state is IntendedState.STOPPED
    world.open(Start, web)
    world.settle()
    assert world.public(web) == "running"


@pytest.mark.parametrize(("own_s", "waits_s"), [(None, 300), (10, 10), (0, 0)])
def test_the_cooldown_passes_first_and_never_changes_the_state_name(own_s, waits_s):
    world, web = failed(cooldown=None if own_s is None else own_s * SECOND_US, reincarnation_period_us=SECOND_US)
    restart(world)
    first_us = world.row(web).time_last_auto_restarted
    world.report(world.active(web).id, report(S.FAILED, 50))
    if waits_s:
        world.wait(waits_s * SECOND_US - 2 * SECOND_US)
        assert world.public(web) == "failed"
    world.wait(4 * SECOND_US)
    world.settle()
    assert world.public(web) == "running"
    assert world.row(web).time_last_auto_restarted - first_us >= waits_s * SECOND_US


def test_an_unwound_vmm_that_is_still_linked_is_replaced():
    world = World.make(**OFF)
    web = world.create()
    row = world.row(web)
    world.nexus.records.put_instance(replace(row, state_generation=row.state_generation + 1))
    world.answer(world.calls[0], BAD)
    assert world.public(web) == "failed"
    restart(world)
    assert world.public(web) == "running"


def test_an_active_vmm_that_is_failed_waits_for_its_update_saga():
    world = World.make(saga_mode=SagaMode.BACKGROUND, **OFF)
    web = world.running()
    world.report(world.active(web).id, report(S.FAILED, 50))
    world.ask(RunTask, Task.REINCARNATION)
    assert not world.calls
    assert world.public(web) == "stopping"


def test_16_restarts_at_a_time():
    world = World.make(sleds=3, saga_mode=SagaMode.BACKGROUND, **OFF)
    instances = [world.running(f"web-{number}") for number in range(20)]
    for web in instances:
        world.report(world.active(web).id, report(S.FAILED, 50))
    world.ask(RunTask, Task.UPDATER)
    world.ask(RunTask, Task.REINCARNATION)
    assert len(world.calls) == 16
    restart(world)
    restart(world)
    assert {world.public(web) for web in instances} == {"running"}


def test_a_restart_that_unwinds_leaves_its_time_behind():
    world, web = failed()
    world.wait(20_000)
    world.answer(world.calls[0], ErrorAnswered(503))
    assert world.public(web) == "stopped"
    assert world.row(web).time_last_auto_restarted is not None


@pytest.mark.parametrize("rules", [RuleSet.R6455, RuleSet.R5749])
def test_there_is_no_reincarnation_before_6503(rules):
    world = World.make(rules=rules)
    web = world.running()
    world.report(world.active(web).id, report(S.FAILED, 50))
    world.wait(300 * SECOND_US)
    assert world.public(web) == "failed"
    assert sled_id(1) in world.sleds
