"""What users may ask in each public state, and what they read when they may not (NX 4.2, 4.4)."""

from uuid import UUID

import pytest
from msgspec.structs import replace
from support.nexus.world import BAD, GONE, World, report, sled_id
from support.rows import in_one_test

from nexus_client.stub.actions import TABLE, Action, Situation, clear_failed
from nexus_client.stub.config import SagaMode
from nexus_client.stub.contract import (
    Answered,
    Delete,
    ErrorAnswered,
    ErrorBody,
    Malformed,
    Migrate,
    NoConnection,
    PutVmmState,
    Reboot,
    RunTask,
    Start,
    Stop,
    Task,
    TimedOut,
)
from nexus_client.stub.records import FailureReason, InstanceDbState, IntendedState, VmmDbState
from nexus_client.stub.refusal import Refused
from nexus_client.stub.rules import RuleSet
from nexus_client.types import Asked, UpdatedRuntime, VmmState

S = VmmState
KIND = {"start": Start, "stop": Stop, "reboot": Reboot, "delete": Delete}
OFF = {
    "watcher_period_us": None,
    "updater_period_us": None,
    "reaper_period_us": None,
    "reincarnation_period_us": None,
}


def error(reply):
    assert isinstance(reply.body, ErrorBody), reply
    return (reply.status, reply.body.message)


# ---- one instance in each situation --------------------------------------------------------------------------------


def in_creating():
    world = World.make(saga_mode=SagaMode.QUEUED, **OFF)
    return world, world.create()


def with_report(state, **config):
    world = World.make(saga_mode=SagaMode.BACKGROUND, **OFF, **config)
    web = world.running()
    if state is not None:
        world.report(world.active(web).id, report(state, 50))
    return world, web


def in_starting():
    return with_report(S.STARTING)


def in_running():
    return with_report(None)


def in_rebooting():
    return with_report(S.REBOOTING)


def in_migrating():
    world, web = with_report(None)
    world.migrate(web)
    while world.calls:
        world.answer(world.calls[0])
    return world, web


def in_stopping():
    return with_report(S.STOPPING)


def in_stopped():
    world = World.make(**OFF)
    return world, world.create(start=False)


def in_failed():
    world = World.make(**OFF)
    web = world.running()
    world.report(world.active(web).id, report(S.FAILED, 50))
    return world, web


def in_unwound():
    """The start unwinds, but somebody has advanced the state generation meanwhile."""
    world = World.make(saga_mode=SagaMode.INLINE, **OFF)
    web = world.create()
    row = world.row(web)
    world.nexus.records.put_instance(replace(row, state_generation=row.state_generation + 1))
    world.answer(world.calls[0], ErrorAnswered(503, None, "busy"))
    assert world.active(web).state is VmmDbState.SAGA_UNWOUND
    return world, web


SITUATIONS = {
    "creating": in_creating,
    "starting": in_starting,
    "running": in_running,
    "rebooting": in_rebooting,
    "migrating": in_migrating,
    "stopping": in_stopping,
    "stopped": in_stopped,
    "failed": in_failed,
    "unwound": in_unwound,
}
BEING_CREATED = "cannot change instance state while it is still being created"
NOT_STOPPED = "cannot delete instance: instance is running or has not yet fully stopped"
NOT_FROM = 'instance state cannot be changed from state "failed"'

# NX 4.2: situation, public state, then start, stop, reboot, delete
ROWS = [
    (
        "creating",
        "creating",
        (409, "instance is in state creating but it must be stopped to be started"),
        (400, BEING_CREATED),
        (400, BEING_CREATED),
        (400, 'instance cannot be deleted in state "creating"'),
    ),
    ("starting", "starting", "nothing", "sent", "sent", (400, NOT_STOPPED)),
    ("running", "running", "nothing", "sent", "sent", (400, NOT_STOPPED)),
    ("rebooting", "rebooting", "nothing", "sent", "sent", (400, NOT_STOPPED)),
    ("migrating", "migrating", "nothing", "sent", "sent", (400, NOT_STOPPED)),
    (
        "stopping",
        "stopping",
        (409, "instance must finish stopping before it can be started"),
        "sent",
        "sent",
        (400, NOT_STOPPED),
    ),
    (
        "stopped",
        "stopped",
        "saga",
        "nothing",
        (400, "cannot reboot an instance in state stopped with no VMM"),
        "record",
    ),
    ("failed", "failed", "saga", "record", (400, "instance state cannot be changed from failed"), "record"),
    ("unwound", "failed", "saga", (400, NOT_FROM), (400, NOT_FROM), (400, NOT_STOPPED)),
]
CELLS = [
    pytest.param(situation, public, action, verdict, id=f"{action} of {situation}: {verdict}")
    for situation, public, *verdicts in ROWS
    for action, verdict in zip(("start", "stop", "reboot", "delete"), verdicts, strict=True)
]


@in_one_test(("situation", "public", "action", "verdict"), CELLS)
def test_public_state_and_action(situation, public, action, verdict):
    world, web = SITUATIONS[situation]()
    assert world.public(web) == public
    before, active = world.row(web), world.active(web)
    world.calls.clear()
    reply = world.ask(KIND[action], web)
    after = world.row(web)
    wanted = {"start": "running", "reboot": "running", "stop": "stopped", "delete": "destroyed"}[action]
    assert after.intended_state is IntendedState(wanted), "written before the checks"
    if isinstance(verdict, tuple):
        assert error(reply) == verdict
        assert not world.calls
        assert replace(after, intended_state=before.intended_state) == before
    elif verdict == "nothing":
        assert reply.status == 202
        assert not world.calls
        assert replace(after, intended_state=before.intended_state) == before
    elif verdict == "sent":
        assert reply is None, "the answer waits for the sled"
        (call,) = world.calls
        asked = Asked.STOPPED if action == "stop" else Asked.REBOOT
        assert (call.op.propolis_id, call.op.requested.type) == (active.id, asked)
        assert call.sled_id == active.sled_id
        world.answer(call, Answered(UpdatedRuntime(None)))
        assert next(reversed(world.replies.values())).status == 202
    elif verdict == "saga":
        assert reply is None
        assert after.active_propolis_id not in (None, before.active_propolis_id)
        assert after.state_generation == before.state_generation + 1
        world.settle()
        assert next(reversed(world.replies.values())).status in (202, 204)
        assert world.public(web) == "running"
    else:
        assert reply.status == (204 if action == "delete" else 202)
        assert not world.calls, "no sled is called"
        assert after.state_generation == before.state_generation + (action == "stop"), "a delete raises none"
        assert after.state is (InstanceDbState.DESTROYED if action == "delete" else InstanceDbState.NO_VMM)
        assert (after.time_deleted is not None) == (action == "delete")


def test_the_table_is_total():
    assert set(TABLE) == {(situation, action) for situation in Situation for action in Action}


@in_one_test("action", KIND)
def test_a_deleted_or_unknown_instance_is_a_404(action):
    world, web = in_stopped()
    assert world.ask(Delete, web).status == 204
    for key in (web, UUID(int=77)):
        assert error(world.ask(KIND[action], key)) == (404, f'not found: instance with id "{key}"')


def test_stop_of_a_failed_instance_loses_the_race_against_a_change():
    world, web = in_failed()
    row = world.row(web)
    with pytest.raises(Refused) as refused:
        clear_failed(world.nexus._ctx, row, row.state_generation - 1)
    assert refused.value.refusal.status == 409
    assert refused.value.refusal.message.endswith("changed before the request could be completed")
    assert world.row(web) == row


# ---- the older rule sets -------------------------------------------------------------------------------------------

OLD_START = [
    ("starting", 202, None),
    ("running", 202, None),
    ("rebooting", 202, None),
    ("stopped", 500, None),
    ("stopping", 409, "instance is in state stopping but must be stopped to be started"),
    ("migrating", 409, "instance is in state migrating but must be stopped to be started"),
    ("failed", 409, "instance is in state failed but must be stopped to be started"),
    ("destroyed", 409, "instance is in state destroyed but must be stopped to be started"),
]


@in_one_test("rules", [RuleSet.R5854, RuleSet.R5855])
@in_one_test(("state", "status", "message"), OLD_START)
def test_start_before_6278_looked_at_the_vmm_record(rules, state, status, message):
    world, web = with_report(S(state), rules=rules)
    reply = world.ask(Start, web)
    assert reply.status == status
    if message is not None:
        assert error(reply)[1] == message


@pytest.mark.parametrize("rules", [RuleSet.R5749, RuleSet.R6455])
def test_stop_of_a_failed_instance_was_refused_before_6652(rules):
    world, web = with_report(S.FAILED, rules=rules)
    if rules is RuleSet.R6455:
        world.ask(RunTask, Task.UPDATER)
    assert world.public(web) == "failed"
    # a Failed VMM that is still linked has its name in quotes, a Failed record has not
    without_vmm = "instance state cannot be changed from failed"
    assert error(world.ask(Stop, web)) == (400, NOT_FROM if rules is RuleSet.R5749 else without_vmm)


# ---- answers of the sled to stop and reboot ------------------------------------------------------------------------

ANSWERS = [
    pytest.param(Answered(UpdatedRuntime(None)), 202, None, id="200 null"),
    pytest.param(Answered(UpdatedRuntime(report(S.STOPPING, 50))), 202, None, id="200 with a state"),
    pytest.param(ErrorAnswered(404, None, "Not Found"), 400, "Not Found", id="404 without the code"),
    pytest.param(ErrorAnswered(404, "OTHER", "no"), 400, "no", id="404 with another code"),
    pytest.param(ErrorAnswered(410, "NO_SUCH_INSTANCE", "going"), 400, "going", id="410 with the code"),
    pytest.param(BAD, 400, "the sled refuses this", id="400"),
    pytest.param(ErrorAnswered(409, "Conflict", "hm"), 400, "hm", id="409"),
    pytest.param(ErrorAnswered(503, "INSTANCE_CHANNEL_FULL", "full"), 503, "Service Unavailable", id="503"),
    pytest.param(ErrorAnswered(500, "Internal", "oh"), 500, "Internal Server Error", id="500"),
    pytest.param(ErrorAnswered(502, None, "oh"), 500, "Internal Server Error", id="502"),
    pytest.param(NoConnection(), 502, "Internal Server Error", id="refused"),
    pytest.param(TimedOut(), 504, "Internal Server Error", id="timeout"),
    pytest.param(Malformed(), 500, "Internal Server Error", id="malformed"),
]


@in_one_test(("outcome", "status", "message"), ANSWERS)
@in_one_test("action", ["stop", "reboot"])
def test_classification_of_the_sleds_answer(action, outcome, status, message):
    world, web = in_running()
    before = world.active(web)
    ticket = world.open(KIND[action], web)
    world.answer(world.calls[0], outcome)
    reply = world.replies[ticket]
    assert reply.status == status
    if message is not None:
        assert error(reply) == (status, message)
        assert world.active(web) == before
    elif outcome.body.updated_runtime is not None:
        assert world.active(web).state is VmmDbState.STOPPING


@pytest.mark.parametrize(("action", "restarts"), [("stop", False), ("reboot", True)])
def test_a_lost_vmm_is_failed_and_the_user_reads_503(action, restarts):
    world = World.make()
    web = world.running()
    lost = world.active(web)
    ticket = world.open(KIND[action], web)
    world.answer(world.calls[0], GONE)
    reply = world.replies[ticket]
    text = "The instance was running but is no longer reachable. It is being moved to the Failed state."
    assert error(reply) == (503, text)
    assert reply.body.error_code is None
    row = world.nexus.records.vmms[lost.id]
    assert (row.state, row.failure_reason) == (VmmDbState.FAILED, FailureReason.NO_SUCH_INSTANCE)
    assert row.state_generation == lost.state_generation + 1
    assert world.public(web) == "failed", "the update saga was awaited"
    # after a stop the intent is `stopped`: no auto-restart; after a reboot there is
    world.wait(1_000_000)
    world.settle()
    assert world.public(web) == ("running" if restarts else "failed")


def test_marking_failed_is_lost_if_the_sled_was_faster():
    world = World.make()
    web = world.running()
    vmm = world.active(web)
    ticket = world.open(Stop, web)
    world.report(vmm.id, report(S.STOPPING, vmm.state_generation + 1))
    world.answer(world.calls[0], GONE)
    assert world.replies[ticket].status == 503
    assert world.active(web).state is VmmDbState.STOPPING


def test_a_late_404_turns_destroyed_into_failed():
    """NX 4.4: a stop sent between "destroyed stored" and "unlinked"."""
    world, web = with_report(S.DESTROYED)
    assert world.public(web) == "stopping"
    world.open(Stop, web)
    world.answer(world.calls[0], GONE)
    world.ask(RunTask, Task.UPDATER)
    assert world.public(web) == "failed"


def test_a_stop_answered_with_destroyed_ends_at_once():
    """A VMM that never ran is destroyed in the answer (property 15)."""
    world = World.make()
    web = world.create()
    world.answer(world.calls[0])
    ticket = world.open(Stop, web)
    stop = next(call for call in world.calls if call.op.requested.type is Asked.STOPPED)
    world.answer(stop)
    assert world.replies[ticket].status == 202
    assert world.public(web) == "stopped"
    world.settle()  # the start saga finds its VMM destroyed and unwinds
    assert world.public(web) == "stopped"
    assert world.row(web).active_propolis_id is None


# ---- migrate -------------------------------------------------------------------------------------------------------


def test_migrate_refuses_local_storage_first():
    world = World.make()
    web = world.create(start=False, uses_local_storage=True)
    assert error(world.ask(Migrate, web, sled_id(2))) == (
        400,
        f"cannot migrate instance {web} as it uses local storage",
    )


@in_one_test("situation", ["creating", "starting", "rebooting", "stopping", "stopped", "failed"])
def test_migrate_wants_a_running_vmm(situation):
    world, web = SITUATIONS[situation]()
    assert error(world.ask(Migrate, web, sled_id(2))) == (400, "instance must be running before it can migrate")


def test_migrate_to_its_own_sled_is_refused():
    world, web = in_running()
    here = world.active(web).sled_id
    assert error(world.ask(Migrate, web, here)) == (400, "instance is already running on destination sled")


def test_a_second_migrate_is_a_conflict():
    world, web = in_migrating()
    world.report(world.active(web).id, report(S.RUNNING, 60))
    other = next(key for key in world.sleds if key != world.active(web).sled_id)
    assert error(world.ask(Migrate, web, other)) == (409, "instance is already migrating")


def test_two_migrates_at_once_one_of_them_loses():
    world = World.make(sleds=3, saga_mode=SagaMode.QUEUED)
    web = world.running()
    others = [key for key in world.sleds if key != world.active(web).sled_id]
    tickets = [world.open(Migrate, web, key) for key in others]
    world.settle()
    first, second = (world.replies[ticket] for ticket in tickets)
    assert first.status == 200
    assert error(second) == (409, "Instance already migrating")
    world.rest()
    assert world.active(web).sled_id == others[0]
    assert not world.nexus.records.breaches()


def test_migrate_to_an_unknown_or_full_sled():
    world = World.make()
    web = world.running()
    nowhere = (
        "Insufficient capacity: Failed to place instance: "
        "Could not find any valid sled on which this instance can be placed"
    )
    assert error(world.ask(Migrate, web, UUID(int=5))) == (507, nowhere)
    world.add_sled(3, usable_hardware_threads=1)
    assert error(world.ask(Migrate, web, sled_id(3))) == (507, nowhere)
    assert world.public(web) == "running"


def test_the_source_sled_is_never_called_for_a_migration():
    world = World.make()
    web = world.running()
    source = world.active(web)
    world.exchanges.clear()
    world.migrate(web)
    world.settle()
    called = [(call.sled_id, call.op) for call, _ in world.exchanges]
    assert {sled for sled, _ in called} == {sled_id(2)}
    put = called[-1][1]
    assert isinstance(put, PutVmmState)
    assert put.requested.value.src_propolis_addr == source.address
