"""Sagas: calls in order, unwinding, idempotence, crashes, the updater lock (NX 4.1, 4.3, 5.1, 5.3).

Over 500 lines: all sagas share the same few helpers and the same world.
"""

from uuid import UUID

import pytest
from msgspec.structs import replace
from support.nexus.world import BAD, EPOCH_US, GONE, World, report, sled_id
from support.rows import in_one_test

from nexus_client.stub.config import SagaMode
from nexus_client.stub.contract import (
    Answered,
    ArmCrash,
    Boot,
    Crash,
    Crashed,
    CrashPoint,
    CreateInstance,
    Delete,
    Dropped,
    ErrorAnswered,
    ErrorBody,
    NoConnection,
    PutVmmState,
    RegisterVmm,
    RunTask,
    Start,
    Stop,
    Task,
    Tick,
    TimedOut,
    UnregisterVmm,
    VmmReported,
)
from nexus_client.stub.records import FailureReason, InstanceDbState, ReservationKind, VmmDbState
from nexus_client.stub.rules import RuleSet
from nexus_client.stub.sagas.lock import acquired, inherited, unlocked
from nexus_client.types import Asked, MigrationState, VmmState

S, M = VmmState, MigrationState
BUSY = ErrorAnswered(503, "INSTANCE_CHANNEL_FULL", "full")
OFF = {
    "watcher_period_us": None,
    "updater_period_us": None,
    "reaper_period_us": None,
    "reincarnation_period_us": None,
}


def ops(world):
    return [type(call.op).__name__ for call, _ in world.exchanges]


def commits(world, instance_id):
    return [line.text for line in world.nexus.timeline(instance_id) if line.what == "commit"]


# ---- what is asked of sleds, in order ------------------------------------------------------------------------------


def test_create_alone_calls_no_sled_and_ends_in_generation_2():
    world = World.make()
    ticket = world.open(CreateInstance, "web", "web", start=False)
    assert world.replies[ticket].status == 201
    row = world.nexus.find("web")
    assert (row.state, row.state_generation) == (InstanceDbState.NO_VMM, 2)
    assert world.seen(row.id) == ["creating", "stopped"]
    assert not world.calls


def test_create_with_start_registers_then_runs_and_answers_starting():
    world = World.make()
    ticket = world.open(CreateInstance, "web", "web")
    assert ticket not in world.replies
    (register,) = world.calls
    assert isinstance(register.op, RegisterVmm)
    assert (register.op.state, register.op.gen, register.op.migration_id) == ("starting", 2, None)
    assert register.op.propolis_addr == "[fd00:1122:3344:101::1:1]:12400"
    world.answer(register)
    (run,) = world.calls
    assert (run.op.propolis_id, run.op.requested.type) == (register.op.propolis_id, Asked.RUNNING)
    world.answer(run)
    assert world.replies[ticket].status == 201
    assert world.replies[ticket].body["run_state"] == "starting"
    vmm = world.active(world.nexus.find("web").id)
    assert (vmm.state, vmm.state_generation) == (VmmDbState.STARTING, 2)


@in_one_test(("rules", "gen"), [(RuleSet.R5854, 1), (RuleSet.R5749, 1), (RuleSet.R6455, 2), (RuleSet.HEAD, 2)])
def test_first_generation_is_2_since_vmms_begin_as_creating(rules, gen):
    world = World.make(rules=rules)
    world.create()
    assert world.calls[0].op.gen == gen


def test_an_answer_below_generation_2_leaves_the_row_creating():
    world = World.make()
    web = world.create()
    world.answer(world.calls[0], Answered(report(S.STARTING, 1)))
    assert world.active(web).state is VmmDbState.CREATING


def test_migrate_registers_and_moves_on_the_target_only():
    world = World.make()
    web = world.running()
    world.exchanges.clear()
    ticket = world.migrate(web)
    assert world.public(web) == "migrating", "from here on"
    register = world.calls[0].op
    assert (register.state, register.gen) == ("migrating", 2)
    assert register.migration_id == world.row(web).migration_id
    world.settle()
    assert world.replies[ticket].status == 200
    assert ops(world) == ["RegisterVmm", "PutVmmState"]
    world.rest()
    assert world.public(web) == "running"
    assert world.active(web).sled_id == sled_id(2)


def test_a_failed_start_does_not_fail_the_create():
    world = World.make()
    ticket = world.open(CreateInstance, "web", "web")
    world.answer(world.calls[0], BUSY)
    assert world.replies[ticket].status == 201
    assert world.public(world.nexus.find("web").id) == "stopped"


def test_loopback_sleds_get_addresses_of_their_own_in_127():
    world = World.make(sleds=0, loopback_net=77, loopback_port=4242)
    world.add_sled(1, sa_address="[::1]:12345")
    for name in ("a", "b"):
        world.create(name)
    assert [call.op.propolis_addr for call in world.calls] == ["127.77.0.1:4242", "127.77.0.2:4242"]


def test_a_full_rack_is_a_507():
    world = World.make(sleds=1)
    web = world.create(start=False, ncpus=64)
    big = [world.create(f"big-{n}", ncpus=64) for n in range(2)]
    assert len(world.calls) == len(big)
    reply = world.ask(Start, web)
    assert (reply.status, reply.body.error_code) == (507, "InsufficientCapacity")
    assert reply.body.message.startswith("Insufficient capacity: ")
    assert world.public(web) == "stopped"


# ---- unwinding -----------------------------------------------------------------------------------------------------

STARTS = [
    pytest.param(BAD, 400, id="4xx"),
    pytest.param(BUSY, 503, id="503"),
    pytest.param(ErrorAnswered(500), 500, id="500"),
    pytest.param(NoConnection(), 500, id="refused"),
    pytest.param(TimedOut(), 500, id="timeout"),
]


@in_one_test(("outcome", "status"), STARTS)
def test_a_failing_run_unregisters_and_unwinds(outcome, status):
    world = World.make(**OFF)
    web = world.create(start=False)
    ticket = world.start(web)
    world.answer(world.calls[0])
    propolis_id = world.row(web).active_propolis_id
    world.answer(world.calls[0], outcome)
    (undo,) = world.calls
    assert undo.op == UnregisterVmm(propolis_id)
    assert ticket not in world.replies
    world.answer(undo)
    assert world.replies[ticket].status == status
    assert world.public(web) == "stopped"
    row, vmm = world.row(web), world.nexus.records.vmms[propolis_id]
    assert (row.state, row.active_propolis_id) == (InstanceDbState.NO_VMM, None)
    assert (vmm.state, vmm.state_generation) == (VmmDbState.SAGA_UNWOUND, 3)
    assert not world.nexus.records.reservations
    assert not world.nexus.records.provisions
    assert not world.nexus.records.networks
    assert vmm.time_deleted is None
    world.ask(RunTask, Task.REAPER)
    assert world.nexus.records.vmms[propolis_id].time_deleted is not None


@in_one_test(("outcome", "status"), STARTS)
def test_a_failing_register_unwinds_without_unregister(outcome, status):
    world = World.make(**OFF)
    web = world.create(start=False)
    ticket = world.start(web)
    world.answer(world.calls[0], outcome)
    assert not world.calls
    assert world.replies[ticket].status == status
    assert world.public(web) == "stopped"


def test_every_other_error_of_the_undo_lets_unwinding_continue():
    for outcome in (
        ErrorAnswered(500),
        BUSY,
        NoConnection(),
        ErrorAnswered(404, None, ""),
        ErrorAnswered(410, "NO_SUCH_INSTANCE"),
    ):
        world = World.make(**OFF)
        web = world.create()
        world.answer(world.calls[0])
        world.answer(world.calls[0], BUSY)
        world.answer(world.calls[0], outcome)
        assert world.public(web) == "stopped"
        assert not world.nexus.sagas


def test_404_with_the_code_on_unregister_jams_the_saga_and_fails_the_vmm():
    world = World.make(**OFF)
    web = world.create(start=False)
    ticket = world.start(web)
    world.answer(world.calls[0])
    propolis_id = world.row(web).active_propolis_id
    world.answer(world.calls[0], BUSY)
    world.answer(world.calls[0], GONE)
    (saga,) = world.nexus.sagas
    assert saga.stuck
    assert world.replies[ticket].status == 503
    vmm = world.nexus.records.vmms[propolis_id]
    assert (vmm.state, vmm.failure_reason) == (VmmDbState.FAILED, FailureReason.NO_SUCH_INSTANCE)
    world.do(Crash())
    world.do(Boot())
    assert world.nexus.sagas == [saga]
    assert not world.calls


def test_404_with_the_code_on_register_ends_failed():
    world = World.make(**OFF)
    web = world.create(start=False)
    ticket = world.start(web)
    propolis_id = world.row(web).active_propolis_id
    world.answer(world.calls[0], GONE)
    assert world.replies[ticket].status == 400
    assert world.nexus.records.vmms[propolis_id].failure_reason is FailureReason.NO_SUCH_INSTANCE
    assert world.public(web) == "failed"
    assert world.row(web).state is InstanceDbState.FAILED
    assert not world.calls


def test_a_moved_generation_leaves_the_unwound_vmm_linked_and_the_next_start_replaces_it():
    world = World.make(**OFF)
    web = world.create()
    row = world.row(web)
    world.nexus.records.put_instance(replace(row, state_generation=row.state_generation + 1))
    world.answer(world.calls[0], BUSY)
    old = world.active(web)
    assert old.state is VmmDbState.SAGA_UNWOUND
    assert world.public(web) == "failed"
    world.start(web)
    world.settle()
    assert world.public(web) == "running"
    assert world.active(web).id != old.id
    world.wait(20_000)
    assert world.nexus.records.vmms[old.id].time_deleted is not None, "the start has woken the reaper"


def test_a_failing_migrate_leaves_the_ids_to_the_update_saga():
    world = World.make(**OFF)
    web = world.running()
    source = world.active(web)
    ticket = world.migrate(web)
    world.answer(world.calls[0])
    row = world.row(web)
    world.answer(world.calls[0], BUSY)
    assert isinstance(world.calls[0].op, UnregisterVmm)
    assert world.calls[0].sled_id == sled_id(2)
    world.answer(world.calls[0])
    assert world.replies[ticket].status == 503
    assert world.row(web).migration_id == row.migration_id
    migration = world.nexus.records.migrations[row.migration_id]
    assert (migration.source_state, migration.target_state) == (M.FAILED, M.FAILED)
    assert (migration.source_gen, migration.target_gen) == (2, 2)
    target = world.nexus.records.vmms[row.target_propolis_id]
    assert target.state is VmmDbState.SAGA_UNWOUND
    assert world.public(web) == "migrating"
    world.ask(RunTask, Task.UPDATER)
    assert world.public(web) == "running"
    assert world.row(web).migration_id is None
    assert world.row(web).target_propolis_id is None
    assert world.active(web) == source
    world.ask(RunTask, Task.REAPER)
    assert world.nexus.records.vmms[target.id].time_deleted is not None


def test_an_instance_deleted_before_its_start_is_linked_is_not_started():
    world = World.make(saga_mode=SagaMode.QUEUED, **OFF)
    web = world.create(start=False)
    world.settle()
    ticket = world.start(web)
    world.ask(Delete, web)
    world.settle()
    reply = world.replies[ticket]
    assert (reply.status, reply.body.message) == (404, f'not found: instance with id "{web}"')
    assert not world.calls


def test_of_two_starts_at_once_one_loses():
    world = World.make(saga_mode=SagaMode.QUEUED, **OFF)
    web = world.create(start=False)
    world.settle()
    tickets = [world.start(web), world.start(web)]
    world.settle()
    assert sorted(world.replies[ticket].status for ticket in tickets) == [202, 409]
    assert world.public(web) == "running"
    assert [held.kind for held in world.nexus.records.reservations.values()] == [ReservationKind.ACTIVE]


# ---- the update saga -----------------------------------------------------------------------------------------------


def lock_free(world, web):
    row = world.row(web)
    return row.updater_id is None, row.updater_gen


def test_a_full_run_moves_the_lock_by_3_and_the_record_by_1():
    world = World.make(**OFF)
    web = world.running()
    before = world.row(web)
    world.report(world.active(web).id, report(S.DESTROYED, 50))
    row = world.row(web)
    assert row.updater_gen == before.updater_gen + 3
    assert row.state_generation == before.state_generation + 1
    assert row.updater_id is None
    assert not world.nexus.records.provisions
    assert not world.nexus.records.networks


def test_a_run_without_work_moves_the_lock_by_2():
    world = World.make(**OFF)
    web = world.running()
    world.migrate(web)
    while world.calls:
        world.answer(world.calls[0])
    before = world.row(web)
    world.report(before.active_propolis_id, report(S.RUNNING, 3, out=(before.migration_id, M.COMPLETED, 2)))
    world.report(before.active_propolis_id, report(S.DESTROYED, 50))  # the old source: no longer linked
    after = world.row(web)
    assert after.updater_gen == before.updater_gen + 3 + 2
    assert after.state_generation == before.state_generation + 1


def test_the_answer_to_a_report_never_waits_for_the_saga():
    world = World.make(saga_mode=SagaMode.QUEUED, **OFF)
    web = world.running()
    vmm = world.active(web)
    assert world.report(vmm.id, report(S.DESTROYED, 50)).status == 204
    assert world.public(web) == "stopping"
    assert world.row(web).active_propolis_id == vmm.id
    world.wait(500_000)
    assert world.public(web) == "stopped"
    assert not world.nexus.sagas


def test_background_only_mode_waits_for_the_updater_task():
    world = World.make(saga_mode=SagaMode.BACKGROUND)
    web = world.running()
    world.report(world.active(web).id, report(S.DESTROYED, 50))
    world.wait(1_000_000)
    assert world.public(web) == "stopping"
    world.wait(30_000_000)
    assert world.public(web) == "stopped"


def test_vmm_records_are_deleted_only_after_the_commit():
    world = World.make(saga_mode=SagaMode.QUEUED, **OFF)
    web = world.running()
    vmm = world.active(web)
    world.report(vmm.id, report(S.DESTROYED, 50))
    while world.row(web).active_propolis_id is not None:
        assert world.nexus.records.vmms[vmm.id].time_deleted is None
        world.now_us = world.nexus.next_deadline_us()
        world.do(Tick())
    assert world.nexus.records.vmms[vmm.id].time_deleted is None
    assert world.public(web) == "stopped"
    assert world.nexus.would_start(web)


def test_a_start_between_commit_and_release_is_accepted_all_the_same():
    """Property 38: `stopped` promises that a start proceeds, though the old reservation is still held."""
    world = World.make(saga_mode=SagaMode.QUEUED, **OFF)
    web = world.running()
    old = world.active(web).id
    world.report(old, report(S.DESTROYED, 50))
    while world.public(web) != "stopped":
        world.now_us = world.nexus.next_deadline_us()
        world.do(Tick())
    assert old in world.nexus.records.reservations
    ticket = world.start(web)
    world.settle()
    assert world.replies[ticket].status == 202
    assert world.public(web) == "running"
    assert list(world.nexus.records.reservations) == [world.active(web).id]


def test_of_two_sagas_one_finds_the_lock_taken_and_only_one_commits():
    world = World.make(saga_mode=SagaMode.QUEUED, **OFF)
    web = world.running()
    vmm = world.active(web)
    world.report(vmm.id, report(S.STOPPING, 50))
    world.report(vmm.id, report(S.DESTROYED, 51))
    world.report(vmm.id, report(S.DESTROYED, 52))
    assert len(world.nexus.sagas) == 2
    world.wait(500_000)
    assert len(commits(world, web)) == 1
    assert "instance-update finds the lock taken" in world.story(web)
    assert lock_free(world, web) == (True, 4)


def test_a_migrate_between_decision_and_commit_unwinds_the_saga_and_the_updater_repeats_it():
    """The migrate moves the state generation while the lock is held: 409, unlock, updater woken."""
    world = World.make(saga_mode=SagaMode.QUEUED)
    web = world.running()
    vmm = world.active(web)
    world.report(vmm.id, report(S.DESTROYED, 50))
    while not any(saga.decision for saga in world.nexus.sagas):
        world.now_us = world.nexus.next_deadline_us()
        world.do(Tick())
    row = world.row(web)
    world.nexus.records.put_instance(replace(row, state_generation=row.state_generation + 1))
    world.wait(500_000)
    assert "instance state has changed" in world.story(web)
    assert world.public(web) == "stopped"
    assert world.row(web).updater_id is None


def test_what_comes_in_during_a_saga_is_chained():
    world = World.make(saga_mode=SagaMode.QUEUED, **OFF)
    web = world.running()
    world.migrate(web)
    for _ in range(20):
        world.wait(10_000)
        if world.calls:
            world.answer(world.calls[0])
    row = world.row(web)
    source, target, migration = row.active_propolis_id, row.target_propolis_id, row.migration_id
    world.report(source, report(S.MIGRATING, 50, out=(migration, M.COMPLETED, 5)))
    while not any(saga.decision for saga in world.nexus.sagas):
        world.wait(10_000)
    # the lock is held: this one's own saga ends at once, the first one's chain finds the news
    world.report(target, report(S.RUNNING, 50, into=(migration, M.COMPLETED, 5)))
    world.wait(1_000_000)
    assert len(commits(world, web)) == 2
    assert world.row(web).active_propolis_id == target
    assert world.row(web).migration_id is None


# ---- the lock as functions (NX 5.3) --------------------------------------------------------------------------


@pytest.fixture
def row():
    world = World.make()
    return world.row(world.create(start=False))


PARENT, CHILD, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)


def test_acquire_takes_a_free_lock_and_is_idempotent(row):
    taken = acquired(row, PARENT)
    assert (taken.updater_id, taken.updater_gen) == (PARENT, row.updater_gen + 1)
    assert acquired(taken, PARENT) is taken
    assert acquired(taken, OTHER) is None


def test_inherit_passes_the_lock_on_and_is_idempotent(row):
    taken = acquired(row, PARENT)
    child = inherited(taken, PARENT, taken.updater_gen, CHILD)
    assert (child.updater_id, child.updater_gen) == (CHILD, taken.updater_gen + 1)
    assert inherited(child, PARENT, taken.updater_gen, CHILD) is child
    assert inherited(taken, PARENT, taken.updater_gen + 1, CHILD) is None
    assert inherited(row, PARENT, row.updater_gen, CHILD) is None


def test_unlock_of_something_no_longer_held_is_false_and_no_error(row):
    taken = acquired(row, PARENT)
    free = unlocked(taken, PARENT, taken.updater_gen)
    assert (free.updater_id, free.updater_gen) == (None, taken.updater_gen + 1)
    assert unlocked(free, PARENT, taken.updater_gen) is None
    assert unlocked(taken, OTHER, taken.updater_gen) is None


# ---- idempotence and crashes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", SagaMode)
def test_a_whole_life_with_every_node_run_twice(mode):
    world = World.make(nodes_twice=True, saga_mode=mode)
    world.real_agents = True  # a simulated sled refuses the second `migration_target`, and the migration is given up
    web = world.running()
    world.migrate(web)
    world.rest()
    assert world.public(web) == "running"
    assert world.active(web).sled_id == sled_id(2)
    world.reboot(web)
    world.rest()
    world.stop(web)
    world.rest()
    assert world.public(web) == "stopped"
    records = world.nexus.records
    assert not records.reservations
    assert not records.provisions
    assert not records.networks
    assert all(vmm.time_deleted is not None for vmm in records.vmms.values())
    assert len(records.vmms) == 2
    assert len(records.migrations) == 1
    assert world.ask(Delete, web).status == 204


def test_every_node_run_twice_while_unwinding():
    world = World.make(nodes_twice=True, **OFF)
    web = world.create()
    world.answer(world.calls[0])
    world.answer(world.calls[0])  # registered twice, with the same answer
    world.answer(world.calls[0], BUSY)
    world.answer(world.calls[0])
    world.answer(world.calls[0])  # unregistered twice: the second answer is null
    assert world.public(web) == "stopped"
    (vmm,) = world.nexus.records.vmms.values()
    assert (vmm.state, vmm.state_generation) == (VmmDbState.SAGA_UNWOUND, 4), "one more each time (NX 4.3)"
    assert world.row(web).state_generation == 4


def test_a_crash_drops_tickets_and_calls_and_boot_repeats_the_node():
    world = World.make()
    ticket = world.open(CreateInstance, "web", "web")
    (call,) = world.calls
    effects = world.do(Crash())
    assert Dropped(ticket) in effects
    assert Crashed() in effects
    assert world.nexus.next_deadline_us() is None
    assert not world.nexus.up
    late = world.open(Start, world.nexus.find("web").id)
    assert isinstance(world.replies[late], Dropped)
    world.do(Boot())
    again = world.calls[-1]
    assert again.op == call.op
    assert again.call_id != call.call_id
    world.answer(call)  # the answer to the dead Nexus changes nothing
    assert world.active(world.nexus.find("web").id).state is VmmDbState.CREATING
    world.settle()
    assert world.public(world.nexus.find("web").id) == "running"


def test_a_crash_between_commit_and_saga_is_healed_by_the_updater():
    world = World.make(reincarnation_period_us=None)
    web = world.running()
    vmm = world.active(web)
    world.ask(ArmCrash, CrashPoint.AFTER_COMMIT)
    reply = world.report(vmm.id, report(S.DESTROYED, 50))
    assert isinstance(reply, Dropped)
    assert world.nexus.records.vmms[vmm.id].state is VmmDbState.DESTROYED
    world.do(Boot())
    # the sled repeats its report, which is no news any more
    assert world.report(vmm.id, report(S.DESTROYED, 50)).status == 204
    assert world.public(web) == "stopping"
    world.wait(31_000_000)
    assert world.public(web) == "stopped"


def test_a_crash_inside_the_commit_writes_the_record_once():
    world = World.make(**OFF)
    web = world.running()
    vmm = world.active(web)
    world.ask(ArmCrash, CrashPoint.IN_COMMIT)
    world.report(vmm.id, report(S.DESTROYED, 50))
    assert not world.nexus.up
    after = world.row(web)
    assert after.state is InstanceDbState.NO_VMM
    assert world.nexus.records.vmms[vmm.id].time_deleted is None
    world.do(Boot())
    assert world.row(web) == after
    assert world.nexus.records.vmms[vmm.id].time_deleted is not None
    assert len(commits(world, web)) == 1


@in_one_test("when", range(12))
def test_a_crash_at_any_point_of_a_start_changes_nothing_in_the_end(when):
    world = World.make(saga_mode=SagaMode.QUEUED)
    web = world.create()
    for _ in range(when):
        if world.calls:
            world.answer(world.calls[0])
        else:
            world.now_us = max(world.now_us, world.nexus.next_deadline_us() or 0)
            world.do(Tick())
    world.do(Crash())
    world.calls.clear()
    world.do(Boot())
    world.rest()
    assert world.public(web) == "running"
    assert len(world.nexus.records.vmms) == 1
    assert world.active(web).state is VmmDbState.RUNNING


def test_ids_follow_from_the_seed_alone():
    def ids(seed):
        world = World.make(seed=seed)
        world.running("a")
        world.running("b")
        return [*world.nexus.records.instances, *world.nexus.records.vmms]

    assert ids(1) == ids(1)
    assert not set(ids(1)) & set(ids(2))
    assert all(key.version == 5 for key in ids(1))


def test_the_same_inputs_give_the_same_effects():
    def run():
        world = World.make(saga_mode=SagaMode.QUEUED)
        web = world.running()
        world.migrate(web)
        world.rest()
        return world.lines

    assert run() == run()


def test_time_never_goes_back():
    world = World.make()
    web = world.running()
    world.now_us = EPOCH_US - 10**12
    world.report(world.active(web).id, report(S.DESTROYED, 50))
    assert world.row(web).time_state_updated == EPOCH_US


def test_a_name_is_used_once_and_sizes_have_limits():
    world = World.make()
    world.create(start=False)
    reply = world.ask(CreateInstance, "web", "web")
    assert (reply.status, reply.body.message) == (400, 'already exists: instance "web"')
    for bad in ({"ncpus": -1}, {"ncpus": 255}, {"memory": 1}, {"auto_restart_policy": "always"}):
        assert isinstance(world.ask(CreateInstance, "x", "x", **bad).body, ErrorBody)
    assert [row.name for row in world.nexus.instances()] == ["web"]


def test_put_state_body_of_stop_goes_to_the_active_vmm():
    world = World.make()
    web = world.running()
    world.open(Stop, web)
    assert world.calls[0].op == PutVmmState(world.active(web).id, world.calls[0].op.requested)
    assert isinstance(world.open(VmmReported, world.active(web).id, report(S.STOPPING, 50)), int)
