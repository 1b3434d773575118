"""Reports of sleds: the three guards of NX 3.2 and every answer."""

from uuid import UUID

import pytest
from support.nexus.world import EPOCH_US, World, report, sled_id
from support.rows import in_one_test

from nexus_client.stub.config import SagaMode, UnknownVmm
from nexus_client.stub.contract import Delete, ErrorBody
from nexus_client.stub.records import FailureReason, VmmDbState
from nexus_client.stub.rules import RuleSet
from nexus_client.types import MigrationState, VmmState

S, M = VmmState, MigrationState
STRANGER = UUID(int=0xBAD)


@pytest.fixture
def world():
    return World.make()


@pytest.fixture
def web(world):
    return world.running()


def moving(world, web):
    """(source, target, migration) of an instance whose migration has been accepted but has not begun."""
    world.migrate(web)
    while world.calls:
        world.answer(world.calls[0])
    row = world.row(web)
    return row.active_propolis_id, row.target_propolis_id, row.migration_id


def rows(world):
    records = world.nexus.records
    return (dict(records.instances), dict(records.vmms), dict(records.migrations))


def error(reply):
    assert isinstance(reply.body, ErrorBody)
    return (reply.status, reply.body.error_code, reply.body.message)


def test_a_newer_generation_is_stored_with_its_time(world, web):
    vmm = world.active(web)
    assert world.report(vmm.id, report(S.REBOOTING, 9, now_us=EPOCH_US + 5)).status == 204
    vmm = world.active(web)
    assert (vmm.state, vmm.state_generation) == (VmmDbState.REBOOTING, 9)
    assert vmm.time_state_updated == EPOCH_US + 5


@pytest.mark.parametrize("back", [0, 1])
def test_an_equal_or_older_generation_is_accepted_and_ignored(world, web, back):
    vmm = world.active(web)
    before = rows(world)
    assert world.report(vmm.id, report(S.DESTROYED, vmm.state_generation - back)).status == 204
    assert rows(world) == before
    assert not world.nexus.sagas


def test_the_order_of_states_does_not_matter_only_generations_do(world, web):
    vmm = world.active(web)
    assert world.report(vmm.id, report(S.STARTING, 50)).status == 204
    assert world.public(web) == "starting"


def test_an_unknown_vmm_is_a_500(world, web):
    before = rows(world)
    assert error(world.report(STRANGER, report(S.RUNNING, 3))) == (500, "Internal", "Internal Server Error")
    assert rows(world) == before


@pytest.mark.parametrize("rules", [RuleSet.R5854, RuleSet.R5855])
def test_before_5749_an_unknown_vmm_is_a_204(rules):
    world = World.make(rules=rules)
    assert world.report(STRANGER, report(S.RUNNING, 3)).status == 204
    assert not world.nexus.records.vmms


def test_an_unknown_vmm_can_be_ignored_on_request():
    world = World.make(unknown_vmm=UnknownVmm.IGNORE)
    assert world.report(STRANGER, report(S.RUNNING, 3)).status == 204
    assert not world.nexus.records.vmms


def test_an_unknown_vmm_can_be_adopted_on_request():
    world = World.make(sleds=1, unknown_vmm=UnknownVmm.ADOPT)
    assert world.report(STRANGER, report(S.RUNNING, 3)).status == 204
    (row,) = world.nexus.instances()
    assert row.active_propolis_id == STRANGER
    assert world.public(row.id) == "running"
    assert world.active(row.id).sled_id == sled_id(1)
    assert world.report(STRANGER, report(S.DESTROYED, 9)).status == 204
    assert world.public(row.id) == "stopped"


def test_migrating_from_a_vmm_to_itself_is_a_409(world, web):
    source, _, migration = moving(world, web)
    before = rows(world)
    both = report(S.MIGRATING, 90, into=(migration, M.IN_PROGRESS, 2), out=(migration, M.IN_PROGRESS, 2))
    assert error(world.report(source, both)) == (
        409,
        "Conflict",
        "migrating from a VMM to itself is nonsensical",
    )
    assert rows(world) == before


@pytest.mark.parametrize("role", ["source", "target"])
def test_the_wrong_side_of_a_migration_is_a_400_and_rolls_back(world, web, role):
    source, target, migration = moving(world, web)
    before = rows(world)
    wrong = target if role == "source" else source
    side = {"out" if role == "source" else "into": (migration, M.IN_PROGRESS, 5)}
    assert error(world.report(wrong, report(S.MIGRATING, 90, **side))) == (
        400,
        "InvalidValue",
        f'unsupported value for "{role} propolis UUID": {wrong} is not the {role} VMM of this migration',
    )
    assert rows(world) == before


def test_an_unknown_migration_is_a_500_and_rolls_back(world, web):
    before = rows(world)
    body = report(S.MIGRATING, 90, out=(STRANGER, M.IN_PROGRESS, 2))
    assert error(world.report(world.active(web).id, body))[0] == 500
    assert rows(world) == before


def test_the_generations_are_independent(world, web):
    source, _, migration = moving(world, web)
    # the VMM part is stale, the migration part is news
    assert world.report(source, report(S.STARTING, 1, out=(migration, M.IN_PROGRESS, 2))).status == 204
    row = world.nexus.records.migrations[migration]
    assert (row.source_state, row.source_gen) == (M.IN_PROGRESS, 2)
    assert world.nexus.records.vmms[source].state is VmmDbState.RUNNING
    # and the other way round
    assert world.report(source, report(S.MIGRATING, 90, out=(migration, M.PENDING, 2))).status == 204
    assert world.nexus.records.migrations[migration].source_state is M.IN_PROGRESS
    assert world.nexus.records.vmms[source].state is VmmDbState.MIGRATING


def test_an_absent_migration_means_no_news(world, web):
    source, _, migration = moving(world, web)
    world.report(source, report(S.MIGRATING, 90, out=(migration, M.IN_PROGRESS, 2)))
    world.report(source, report(S.RUNNING, 91))
    assert world.nexus.records.migrations[migration].source_state is M.IN_PROGRESS


def test_a_deleted_migration_is_a_410(world, web):
    source, target, migration = moving(world, web)
    world.settle()
    world.stop(web)
    world.settle()
    world.ask(Delete, web)
    assert error(world.report(source, report(S.MIGRATING, 900, out=(migration, M.FAILED, 90)))) == (
        410,
        "Gone",
        "Gone",
    )
    # deleted is looked at before the side is
    assert error(world.report(target, report(S.MIGRATING, 900, out=(migration, M.FAILED, 90))))[0] == 410


def test_a_failed_report_gets_the_sled_as_reason():
    world = World.make(saga_mode=SagaMode.BACKGROUND)
    web = world.running()
    vmm = world.active(web)
    world.report(vmm.id, report(S.FAILED, 90))
    assert world.active(web).failure_reason is FailureReason.FROM_SLED_AGENT


def test_leaving_failed_breaks_the_constraint_and_is_a_500():
    world = World.make(saga_mode=SagaMode.BACKGROUND)
    web = world.running()
    vmm = world.active(web)
    world.report(vmm.id, report(S.FAILED, 90))
    before = rows(world)
    assert error(world.report(vmm.id, report(S.RUNNING, 91)))[0] == 500
    assert rows(world) == before
    assert world.report(vmm.id, report(S.FAILED, 92)).status == 204


def test_reports_of_a_deleted_vmm_are_accepted_and_ignored(world, web):
    vmm = world.active(web)
    world.report(vmm.id, report(S.DESTROYED, 90))
    assert world.nexus.records.vmms[vmm.id].time_deleted is not None
    before = rows(world)
    assert world.report(vmm.id, report(S.RUNNING, 91)).status == 204
    assert rows(world) == before


def test_a_saga_for_a_deleted_instance_is_a_404_after_the_rows_are_written(world, web):
    """A VMM that is no longer linked outlives its instance's record."""
    source, _, _ = moving(world, web)
    _, fake = world.fake(source)
    fake.plan.pop()  # the source never gets to destroyed
    world.settle()
    assert world.active(web).id != source
    world.stop(web)
    world.settle()
    world.ask(Delete, web)
    late = report(S.DESTROYED, 90)
    assert error(world.report(source, late)) == (
        404,
        "ObjectNotFound",
        f'not found: instance with id "{web}"',
    )
    assert world.nexus.records.vmms[source].state is VmmDbState.DESTROYED


@in_one_test(
    ("rules", "starts"), [(RuleSet.HEAD, True), (RuleSet.R6455, True), (RuleSet.R5749, False), (RuleSet.R5854, False)]
)
def test_a_failed_vmm_starts_an_update_saga_since_6455(rules, starts):
    world = World.make(rules=rules, reincarnation_period_us=None)
    web = world.running()
    world.report(world.active(web).id, report(S.FAILED, 90))
    assert (world.row(web).active_propolis_id is None) == starts
    assert world.public(web) == "failed"


@pytest.mark.parametrize("state", [M.COMPLETED, M.FAILED])
@pytest.mark.parametrize("role", ["source", "target"])
def test_a_terminal_side_of_a_migration_starts_an_update_saga(world, web, state, role):
    source, target, migration = moving(world, web)
    key = source if role == "source" else target
    body = report(S.MIGRATING, 1, **{"out" if role == "source" else "into": (migration, state, 5)})
    world.lines.clear()
    assert world.report(key, body).status == 204
    begun = [line.text for line in world.lines if getattr(line, "what", "") == "saga"]
    assert begun[0] == "instance-update begins"
    # the same again changes no row, so no saga is begun
    world.lines.clear()
    assert world.report(key, body).status == 204
    assert not [line for line in world.lines if getattr(line, "what", "") in ("saga", "record")]


def test_other_changes_start_no_saga(world, web):
    source, target, migration = moving(world, web)
    world.lines.clear()
    world.report(source, report(S.MIGRATING, 90, out=(migration, M.IN_PROGRESS, 2)))
    world.report(target, report(S.MIGRATING, 90, into=(migration, M.IN_PROGRESS, 2)))
    world.report(source, report(S.STOPPING, 91))
    assert not [line for line in world.lines if getattr(line, "what", "") == "saga"]
