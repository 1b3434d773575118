"""Corners of the Nexus model that only a rare order of events reaches; each was once broken without a red test."""

from uuid import UUID

import pytest
from msgspec.structs import replace
from support.nexus.world import BAD, EPOCH_US, GONE, World, report, sled_id
from support.rows import in_one_test

from nexus_client.stub.auto_restart import may_restart
from nexus_client.stub.config import SECOND_US, Config, SagaMode
from nexus_client.stub.contract import (
    Answered,
    AttachIp,
    Boot,
    ErrorAnswered,
    IpKind,
    Migrate,
    RunTask,
    SetSled,
    Start,
    Stop,
    Task,
    Tick,
)
from nexus_client.stub.hazards import DEFAULT, ORIGINAL, Hazard
from nexus_client.stub.nexus import Nexus
from nexus_client.stub.records import (
    FailureReason,
    InstanceDbState,
    InvariantBroken,
    Records,
    ReservationKind,
    VmmDbState,
)
from nexus_client.stub.refusal import Refused
from nexus_client.stub.rules import RULES, RuleSet
from nexus_client.stub.sagas.lock import committed, unlocked
from nexus_client.stub.sizes import check_hostname, check_name, check_sizes
from nexus_client.types import GENERATION_MAX, Asked, MigrationState, UpdatedRuntime, VmmState

BUSY = ErrorAnswered(503, None, "busy")
S, M, GIB = VmmState, MigrationState, 2**30
OFF = {
    "watcher_period_us": None,
    "updater_period_us": None,
    "reaper_period_us": None,
    "reincarnation_period_us": None,
}


def error(reply):
    return (reply.status, reply.body.message)


# ---- placement -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"policy": "expunged"}, {"state": "decommissioned"}])
def test_only_sleds_in_service_are_given_vmms(change):
    world = World.make(**OFF)
    world.ask(SetSled, sled_id(1), **change)
    for number in range(3):
        assert world.active(world.running(f"web{number}")).sled_id == sled_id(2)
    world.ask(SetSled, sled_id(2), **change)
    web = world.create("last", start=False)
    assert error(world.ask(Start, web))[0] == 507


# ---- the start saga ------------------------------------------------------------------------------------------------


def fail(world, web):
    """Its VMM fails, and just so much time passes that the update saga has committed and cleaned up."""
    world.report(world.active(web).id, report(S.FAILED, 50))
    while any(saga.kind.value == "instance-update" for saga in world.nexus.sagas):
        world.wait(10_000)
    assert world.public(web) == "failed"


def failed_and_restarting(hazards):
    """An instance whose auto-restart has begun and has not linked its VMM, and which its user then stops."""
    world = World.make(saga_mode=SagaMode.QUEUED, hazards=hazards, **OFF)
    web = world.running()
    fail(world, web)
    world.ask(RunTask, Task.REINCARNATION)
    assert [saga.kind.value for saga in world.nexus.sagas] == ["instance-start"]
    stopped = world.ask(Stop, web)
    assert stopped.status == 202
    return world, web


def test_a_start_reads_the_record_anew_and_overrules_a_stop_as_recorded():
    world, web = failed_and_restarting(DEFAULT)
    world.settle()
    assert world.public(web) == "running"


def test_without_that_hazard_a_start_unwinds_when_the_record_has_moved():
    world, web = failed_and_restarting(DEFAULT - {Hazard.START_OVERRULES_STOP})
    world.settle()
    assert world.public(web) == "stopped"
    assert not world.nexus.records.reservations


def test_reincarnation_starts_an_instance_once_however_often_it_runs_meanwhile():
    world = World.make(saga_mode=SagaMode.QUEUED, **OFF)
    web = world.running()
    fail(world, web)
    for _ in range(3):
        world.ask(RunTask, Task.REINCARNATION)
    assert [saga.kind.value for saga in world.nexus.sagas] == ["instance-start"]
    world.settle()
    assert world.public(web) == "running"
    assert len(list(world.nexus.records.vmms_of(web))) == 2


def test_the_cooldown_is_over_at_its_very_end_and_not_a_microsecond_before():
    world = World.make(**OFF)
    row = replace(world.row(world.create(start=False)), time_last_auto_restarted=1_000)
    assert not may_restart(row, 500, 1_499).now
    assert may_restart(row, 500, 1_500).now
    own = replace(row, auto_restart_cooldown_us=0)
    assert may_restart(own, 500, 1_000).now


# ---- undo of a VMM that has Failed ---------------------------------------------------------------------------------


UNREGISTERED_FAILS = pytest.mark.parametrize("fails", [True, False])
"""With the hazard as recorded, and without."""


def stopped_where_no_sled_knows_it(fails, *, over):
    """A stop that meets a VMM before its registration has arrived, or after its end was told; 404 it is."""
    hazards = ORIGINAL if fails else ORIGINAL - {Hazard.FAILS_UNREGISTERED}
    world = World.make(hazards=hazards, saga_mode=SagaMode.QUEUED, **OFF)
    if over:
        web = world.running()
        world.report(world.active(web).id, report(S.DESTROYED, 50))
    else:
        web = world.create()
    while world.row(web).active_propolis_id is None:
        world.wait(1_000)
    vmm = world.active(web)
    assert vmm.state is (VmmDbState.DESTROYED if over else VmmDbState.CREATING)
    ticket = world.open(Stop, web)
    [asked] = [call for call in world.calls if getattr(call.op, "requested", None) is not None]
    world.answer(asked, GONE)
    return world, web, world.nexus.records.vmms[vmm.id], ticket


@UNREGISTERED_FAILS
@pytest.mark.parametrize("over", [False, True])
def test_a_stop_that_meets_a_vmm_which_no_sled_need_know_fails_it_only_by_the_hazard(fails, over):
    world, web, vmm, ticket = stopped_where_no_sled_knows_it(fails, over=over)
    before = VmmDbState.DESTROYED if over else VmmDbState.CREATING
    assert vmm.state is (VmmDbState.FAILED if fails else before)
    world.settle()
    assert world.replies[ticket].status == 503
    if not fails:
        assert world.public(web) == ("stopped" if over else "running")


def start_whose_vmm_fails(rules):
    """The sled loses the VMM between register and run; the saga must then undo a Failed VMM."""
    world = World.make(rules=rules, **OFF)
    web = world.create()
    world.answer(world.calls[0])
    (vmm,) = world.nexus.records.vmms.values()
    world.ask(SetSled, vmm.sled_id, policy="expunged")
    world.ask(RunTask, Task.WATCHER)
    world.answer(world.calls[0], BUSY)
    world.settle()
    return world, web, world.nexus.records.vmms[vmm.id]


def test_the_undo_of_a_failed_vmm_is_stuck_at_head():
    world, web, vmm = start_whose_vmm_fails(RuleSet.HEAD)
    # the update saga has unlinked and deleted it in time: a deleted record is left alone, and the saga goes on
    assert vmm.time_deleted is not None
    assert vmm.failure_reason is FailureReason.SLED_EXPUNGED
    assert world.public(web) == "failed"


@pytest.mark.parametrize(("rules", "stuck"), [(RuleSet.HEAD, True), (RuleSet.R11294, False)])
def test_a_failed_vmm_is_unwound_from_11294_on_and_keeps_its_reason(rules, stuck):
    world = World.make(rules=rules, saga_mode=SagaMode.BACKGROUND, **OFF)
    web = world.create()
    world.answer(world.calls[0])
    (vmm,) = world.nexus.records.vmms.values()
    world.ask(SetSled, vmm.sled_id, policy="expunged")
    world.ask(RunTask, Task.WATCHER)  # Failed, and the update saga is left to the updater, which does not run here
    world.answer(world.calls[0], BUSY)
    world.settle()
    vmm = world.nexus.records.vmms[vmm.id]
    assert vmm.failure_reason is FailureReason.SLED_EXPUNGED
    assert vmm.state is (VmmDbState.FAILED if stuck else VmmDbState.SAGA_UNWOUND)
    assert [saga.kind.value for saga in world.nexus.sagas if saga.stuck] == (["instance-start"] if stuck else [])
    assert world.public(web) == "stopped"


# ---- the migrate saga ----------------------------------------------------------------------------------------------


def test_a_source_that_stops_meanwhile_is_not_migrated():
    world = World.make(saga_mode=SagaMode.QUEUED, **OFF)
    web = world.running()
    source = world.active(web)
    ticket = world.open(Migrate, web, sled_id(2))
    world.report(source.id, report(S.STOPPING, 50))
    world.settle()
    assert error(world.replies[ticket]) == (409, "another migration is already in progress")
    assert world.row(web).migration_id is None


# ---- the updater lock ----------------------------------------------------------------------------------------------


def test_a_lock_that_was_lost_and_taken_again_is_not_ours_in_the_old_generation():
    world = World.make(**OFF)
    lock = UUID(int=7)
    row = replace(world.row(world.create(start=False)), updater_id=lock, updater_gen=4)
    assert unlocked(row, lock, 2) is None
    assert unlocked(row, lock, 4).updater_gen == 5
    new = replace(row, state_generation=row.state_generation + 1)
    with pytest.raises(Refused, match="locked by another saga"):
        committed(row, new, lock, 2)


def test_a_commit_ran_before_only_if_both_generations_have_moved_on():
    world = World.make(**OFF)
    free = replace(world.row(world.create(start=False)), updater_gen=5)
    new = replace(free, state_generation=free.state_generation)
    lock = UUID(int=7)
    assert committed(free, new, lock, 4) is None, "unlocked since, and the state is there"
    with pytest.raises(Refused, match="is not locked"):
        committed(free, new, lock, 5)  # the state is there, but nobody has unlocked in this generation
    ahead = replace(new, state_generation=free.state_generation + 1)
    with pytest.raises(Refused, match="is not locked"):
        committed(free, ahead, lock, 4)


# ---- reservations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lags", [True, False])
def test_a_start_between_commit_and_clean_up_is_refused_only_by_the_hazard(lags):
    hazards = DEFAULT | {Hazard.RESERVATION_LAGS} if lags else DEFAULT
    world = World.make(saga_mode=SagaMode.QUEUED, hazards=hazards, **OFF)
    web = world.running()
    world.report(world.active(web).id, report(S.DESTROYED, 50))
    while world.public(web) != "stopped":
        world.wait(10_000)
    assert [held.kind for held in world.nexus.records.reservations.values()] == [ReservationKind.ACTIVE]
    ticket = world.start(web)
    world.settle()
    reply = world.replies[ticket]
    assert reply.status == (409 if lags else 202)
    if lags:
        assert error(reply) == (409, "Instance already starting")


# ---- the panic of the update decision ------------------------------------------------------------------------------


def lost_between_two_completions(hazards):
    """The health check gives the target up before either end was told; the source's `completed` is to come."""
    world = World.make(hazards=hazards, **OFF)
    web = world.running()
    source = world.active(web)
    world.migrate(web)
    world.answer(world.calls[0])
    world.answer(world.calls[0])
    target = next(vmm for vmm in world.nexus.records.vmms_of(web) if vmm.id != source.id)
    migration = world.row(web).migration_id
    world.ask(SetSled, target.sled_id, policy="expunged")
    world.ask(RunTask, Task.WATCHER)
    while world.calls:
        world.answer(world.calls[0])
    assert world.row(web).target_propolis_id is None
    return world, web, source, migration


def test_with_the_hazard_nexus_dies_of_it_and_again_at_each_start():
    world, _, source, migration = lost_between_two_completions(ORIGINAL)
    world.report(source.id, report(S.MIGRATING, 60, out=(migration, M.COMPLETED, 9)))
    for _ in range(3):
        assert not world.nexus.up
        world.do(Boot())
    assert not world.nexus.up


def test_without_it_the_instance_fails_and_nothing_shows_migrating_for_ever():
    world, web, source, migration = lost_between_two_completions(DEFAULT)
    world.report(source.id, report(S.MIGRATING, 60, out=(migration, M.COMPLETED, 9)))
    assert world.nexus.up
    world.report(source.id, report(S.DESTROYED, 61))
    world.settle()
    row = world.row(web)
    assert (row.migration_id, row.target_propolis_id) == (None, None)
    assert world.public(web) == "failed"
    world.ask(RunTask, Task.REINCARNATION)
    world.settle()
    assert world.public(web) == "running", "its user wants it to run"


# ---- a stop in a migration ---------------------------------------------------------------------------------------


def moved(*, stopped):
    """With the hazard off an instance has migrated, and was perhaps stopped meanwhile; what Nexus then asks."""
    world = World.make(hazards=DEFAULT - {Hazard.STOP_LOST_IN_MIGRATION}, **OFF)
    web = world.running()
    source = world.active(web)
    world.migrate(web)
    world.answer(world.calls[0])
    world.answer(world.calls[0])
    migration = world.row(web).migration_id
    target = world.row(web).target_propolis_id
    if stopped:
        world.stop(web)
        world.answer(world.calls[0])
    world.report(source.id, report(S.MIGRATING, 60, out=(migration, M.COMPLETED, 9)))
    assert not world.calls, "the target has not told its end"
    world.report(target, report(S.RUNNING, 60, into=(migration, M.COMPLETED, 9)))
    return world, web, target


def test_with_that_hazard_off_the_target_is_stopped_once_it_is_all_there_is():
    world, web, target = moved(stopped=True)
    [call] = world.calls
    assert (call.op.propolis_id, call.op.requested.type) == (target, Asked.STOPPED)
    world.answer(call, Answered(UpdatedRuntime(report(S.DESTROYED, 61))))
    assert world.public(web) == "stopped", "what the sled answers is news"


def test_a_stop_that_the_target_refuses_leaves_it_to_the_health_check():
    world, web, _ = moved(stopped=True)
    world.answer(world.calls[0], BUSY)
    assert world.public(web) == "running"
    assert world.nexus.quiet


def test_what_nobody_has_stopped_runs_on_after_its_migration():
    world, web, _ = moved(stopped=False)
    assert not world.calls
    assert world.public(web) == "running"


# ---- generations at the end of their range -------------------------------------------------------------------------


@in_one_test("gen", [GENERATION_MAX, GENERATION_MAX - 1])
@in_one_test("state", [S.RUNNING, S.STOPPING, S.FAILED, S.DESTROYED])
@in_one_test("mode", SagaMode)
def test_no_generation_that_a_sled_tells_ends_nexus(gen, state, mode):
    world = World.make(saga_mode=mode, **OFF)
    web = world.running()
    vmm = world.active(web)
    world.report(vmm.id, report(state, gen))
    world.ask(SetSled, vmm.sled_id, policy="expunged")
    for task in (Task.WATCHER, Task.UPDATER, Task.REAPER):
        world.ask(RunTask, task)
        world.settle()
    assert world.nexus.up
    assert not world.nexus.broken
    assert world.public(web) in ("failed", "stopped", "running"), "given up, whatever its generation"
    assert world.active(web) is None or world.active(web).id != vmm.id


@pytest.mark.parametrize("side", ["into", "out"])
def test_no_generation_of_a_migration_ends_nexus(side):
    world = World.make(**OFF)
    web = world.running()
    source = world.active(web)
    ticket = world.open(Migrate, web, sled_id(2))
    world.answer(world.calls[0])
    migration = world.row(web).migration_id
    who = source.id if side == "out" else next(v.id for v in world.nexus.records.vmms_of(web) if v.id != source.id)
    world.report(who, report(S.RUNNING, 60, **{side: (migration, M.IN_PROGRESS, GENERATION_MAX)}))
    world.answer(world.calls[0], BAD)  # the saga unwinds and marks both sides failed
    world.settle()
    assert world.replies[ticket].status == 400
    world.ask(RunTask, Task.UPDATER)
    world.settle()
    assert not world.nexus.broken
    assert world.public(web) == "running"


def test_a_start_that_unwinds_from_a_vmm_in_the_last_generation_goes_on():
    world = World.make(**OFF)
    web = world.create()
    world.answer(world.calls[0])
    (vmm,) = world.nexus.records.vmms.values()
    world.report(vmm.id, report(S.STARTING, GENERATION_MAX))
    world.answer(world.calls[0], BUSY)
    world.settle()
    assert world.public(web) == "stopped"
    assert world.nexus.records.vmms[vmm.id].state is VmmDbState.SAGA_UNWOUND


# ---- what breaks a rule of the database is contained ---------------------------------------------------------------


def break_on(monkeypatch, key):
    """Records that find a broken rule whenever this instance is written; the fixture must not raise it."""
    put = Records.put_instance

    def checked(records, new):
        if new.id == key:
            raise InvariantBroken(29, "planted")
        put(records, new)

    monkeypatch.setattr(Records, "put_instance", checked)
    monkeypatch.setattr(Nexus, "broken", [])


@pytest.mark.parametrize("mode", SagaMode)
def test_a_broken_rule_is_told_and_other_instances_go_on(monkeypatch, mode):
    world = World.make(saga_mode=mode, **OFF)
    bad, good = world.running("bad"), world.running("good")
    break_on(monkeypatch, bad)
    for web in (bad, good):
        world.report(world.active(web).id, report(S.DESTROYED, 50))
        world.settle()
        world.ask(RunTask, Task.UPDATER)
        world.settle()
    assert world.nexus.up
    assert world.public(good) == "stopped"
    assert any(line.what == "broken" and "property 29" in line.text for line in world.nexus.timeline(bad))
    assert not any(line.what == "broken" for line in world.nexus.timeline(good))


def test_a_user_whose_request_breaks_a_rule_reads_500(monkeypatch):
    world = World.make(**OFF)
    web = world.create(start=False)
    break_on(monkeypatch, web)
    assert world.ask(Start, web).status == 500


# ---- clocks --------------------------------------------------------------------------------------------------------


@in_one_test("back_us", [1, SECOND_US, 3_600 * SECOND_US, EPOCH_US])
def test_a_clock_that_is_set_back_does_not_stop_the_background_tasks(back_us):
    nexus = Nexus(Config(watcher_period_us=30 * SECOND_US))
    nexus.handle(Boot(), EPOCH_US)
    nexus.handle(Tick(), EPOCH_US + 10 * SECOND_US)
    clock_us = EPOCH_US + 10 * SECOND_US - back_us
    nexus.handle(Tick(), clock_us)
    due_us = nexus.next_deadline_us()
    assert 0 <= due_us - clock_us <= 30 * SECOND_US, "due as soon as before, by the clock as it is now"
    for _ in range(5):
        clock_us = nexus.next_deadline_us()
        nexus.handle(Tick(), clock_us)
        assert clock_us < nexus.next_deadline_us() <= clock_us + 60 * SECOND_US


def test_times_in_records_never_go_back():
    world = World.make(**OFF)
    web = world.create(start=False)
    before = world.row(web).time_state_updated
    world.now_us -= 3_600 * SECOND_US
    world.ask(Start, web)
    assert world.row(web).time_state_updated >= before


# ---- sizes and names -----------------------------------------------------------------------------------------------


@in_one_test(
    ("rules", "vcpus", "gib"),
    [(rules, 254, 1536) if RULES[rules].head else (rules, 64, 256) for rules in RuleSet],
)
def test_sizes_end_where_the_rule_set_says(rules, vcpus, gib):
    check_sizes(RULES[rules], vcpus, gib * GIB)
    check_sizes(RULES[rules], 0, GIB)
    for ncpus, memory, words in (
        (vcpus + 1, GIB, f"more than {vcpus} vCPUs"),
        (1, (gib + 1) * GIB, f"less than or equal to {gib} GiB"),
        (1, GIB - 1, "at least 1 GiB"),
        (1, GIB + 1, "divisible by 1 GiB"),
        (1, 3 * GIB // 2, "divisible by 1 GiB"),
        (-1, GIB, "negative"),
    ):
        with pytest.raises(Refused, match=words):
            check_sizes(RULES[rules], ncpus, memory)


@in_one_test("name", ["a", "a1", "Web".lower(), "aB-c", "a" * 63, "abcdef01-2345-4678-9abc-def01234567"])
def test_names_that_are_taken(name):
    check_name(name)


@in_one_test(
    "name",
    ["", "1a", "A", "a-", "-a", "a b", "ä", "a\n", "a" * 64, "abcdef01-2345-4678-9abc-def012345678", "a/b", "a%2f"],
)
def test_names_that_are_none(name):
    with pytest.raises(Refused):
        check_name(name)


@in_one_test("hostname", ["web", "web.example.org", "Web-1", "1", "a" * 253])
def test_hostnames_that_are_taken(hostname):
    check_hostname(hostname)


@in_one_test("hostname", ["", "-a", "a-", "a..b", ".a", "a.", "a b", "a_b", "ä", "a\n", "a" * 254])
def test_hostnames_that_are_none(hostname):
    with pytest.raises(Refused):
        check_hostname(hostname)


# ---- verdicts ------------------------------------------------------------------------------------------------------


def test_a_health_check_of_a_failed_vmm_changes_nothing_for_the_same_reason():
    world = World.make(saga_mode=SagaMode.BACKGROUND, **OFF)
    web = world.running()
    vmm = world.active(web)
    for _ in range(3):
        world.ask(RunTask, Task.WATCHER)
        world.answer(world.calls[0], GONE)
        row = world.nexus.records.vmms[vmm.id]
        assert (row.failure_reason, row.state_generation) == (
            FailureReason.NO_SUCH_INSTANCE,
            vmm.state_generation + 1,
        )
    world.ask(SetSled, vmm.sled_id, policy="expunged")
    world.ask(RunTask, Task.WATCHER)
    assert world.nexus.records.vmms[vmm.id].failure_reason is FailureReason.SLED_EXPUNGED
    assert world.public(web) == "stopping"


def test_a_deleted_instance_keeps_its_generation_and_its_addresses_are_free():
    world = World.make(**OFF)
    web = world.create(start=False)
    assert world.ask(AttachIp, web, IpKind.FLOATING, "203.0.113.9").status == 202
    before = world.row(web)
    world.delete(web)
    after = world.nexus.records.instances[web]
    assert (after.state, after.state_generation) == (InstanceDbState.DESTROYED, before.state_generation)
    assert not world.nexus.records.external_ips
