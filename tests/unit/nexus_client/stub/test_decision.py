"""What an update saga decides: the table of NX 5.2, row by row."""

from uuid import UUID

import pytest
from msgspec.structs import replace
from support.rows import in_one_test

from nexus_client.stub.records import (
    FailureReason,
    Instance,
    InstanceDbState,
    IntendedState,
    Migration,
    Vmm,
    VmmDbState,
)
from nexus_client.stub.rules import RULES, RuleSet
from nexus_client.stub.update_decision import decide
from nexus_client.types import MigrationState

THE, A, T, MIG = (UUID(int=n) for n in (1, 2, 3, 4))
SLED_A, SLED_T = UUID(int=10), UUID(int=11)
HEAD = RULES[RuleSet.HEAD]
LIVE = ["starting", "running", "stopping", "rebooting", "migrating", "stopped"]


def instance(**changes):
    row = Instance(
        id=THE,
        ordinal=1,
        name="i",
        description="",
        hostname="i",
        ncpus=1,
        memory=2**30,
        project_id=THE,
        silo_id=THE,
        time_created=0,
        time_state_updated=0,
        state=InstanceDbState.VMM,
        state_generation=5,
        active_propolis_id=A,
        intended_state=IntendedState.RUNNING,
    )
    return replace(row, **changes)


def vmm(key, state):
    reason = FailureReason.FROM_SLED_AGENT if state == "failed" else None
    sled = SLED_A if key == A else SLED_T
    return Vmm(key, THE, sled, "::1", VmmDbState(state), 0, 0, failure_reason=reason)


def run(active, source=None, target_side=None, target=None, *, rules=HEAD, same=False, **changes):
    """The decision for an instance with this active VMM and perhaps this migration.

    `same`: an earlier saga has already made the target VMM active.
    """
    row = instance(**changes)
    migration = None
    if source is not None:
        row = replace(row, target_propolis_id=T, migration_id=MIG)
        sides = {"source_state": MigrationState(source), "target_state": MigrationState(target_side)}
        migration = Migration(MIG, THE, A, T, 0, **sides)
    target_row = None if target is None else vmm(T, target)
    active_row = target_row if same else vmm(A, active)
    if same:
        row = replace(row, active_propolis_id=T)
    return decide(rules, row, active_row, target_row, migration)


def outcome(decision):
    names = {A: "A", T: "T", MIG: "kept", None: None}
    destroyed = {names[key] for key in (decision.destroy_active, decision.destroy_target) if key is not None}
    migration = "kept" if decision.migration else None
    return (names[decision.active], names[decision.target], migration, decision.state.value, destroyed)


@in_one_test("state", [*LIVE, "saga_unwound", "creating"])
def test_a_live_or_unwound_vmm_needs_no_update(state):
    assert run(state) is None


def test_a_destroyed_vmm_ends_in_no_vmm_and_a_guest_shutdown():
    decision = run("destroyed")
    assert outcome(decision) == (None, None, None, "no_vmm", {"A"})
    assert decision.intended is IntendedState.GUEST_SHUTDOWN
    assert decision.deprovision


def test_a_vmm_destroyed_because_the_user_stopped_it_leaves_the_intent_alone():
    assert run("destroyed", intended_state=IntendedState.STOPPED).intended is None


def test_a_failed_vmm_ends_in_failed_and_leaves_the_intent_alone():
    decision = run("failed")
    assert outcome(decision) == (None, None, None, "failed", {"A"})
    assert decision.intended is None
    assert decision.deprovision


ROWS = [
    # A, source, target side, T -> active, target, migration, state, destroyed
    (
        "source completed first: the target becomes active, ids are kept",
        "stopping completed in_progress migrating",
        "T T kept vmm",
    ),
    ("source completed, target pending", "running completed pending migrating", "T T kept vmm"),
    ("target completed alone: both steps in one saga", "migrating in_progress completed running", "T - - vmm"),
    ("both completed, source still there", "stopping completed completed running", "T - - vmm"),
    ("source destroyed, target not yet there", "destroyed completed in_progress migrating", "T T kept vmm A"),
    ("source destroyed, both completed", "destroyed completed completed running", "T - - vmm A"),
    ("target completed and then destroyed", "stopping completed completed destroyed", "- - - no_vmm T"),
    ("target completed and then failed", "stopping completed completed failed", "- - - no_vmm T"),
    ("source failed and target died after completing", "failed completed completed failed", "- - - failed A,T"),
    ("a side failed, both VMMs live: the target is orphaned", "running failed in_progress migrating", "A - - vmm"),
    ("a side failed, the target unwound", "running failed failed saga_unwound", "A - - vmm"),
    ("failed beats completed", "running completed failed running", "A - - vmm"),
    ("a side failed, target over", "running in_progress failed failed", "A - - vmm T"),
    ("a side failed, source destroyed, target live", "destroyed failed in_progress migrating", "- - - no_vmm A"),
    ("a side failed, both over", "destroyed failed failed destroyed", "- - - no_vmm A,T"),
    ("a side failed, source failed", "failed failed pending migrating", "- - - failed A"),
    ("a side failed, both failed", "failed failed failed failed", "- - - failed A,T"),
    ("target over while the migration goes on", "running in_progress in_progress destroyed", "A - kept vmm T"),
    ("source completed, target over without a word", "stopping completed in_progress failed", "- - kept no_vmm T"),
    ("source destroyed as well", "destroyed completed in_progress failed", "- - kept no_vmm A,T"),
]


@in_one_test(("given", "expected"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_decision_table(given, expected):
    active, source, target_side, target = given.split()
    *parts, state, gone = [*expected.split(), ""] if len(expected.split()) == 4 else expected.split()
    new_active, new_target, migration = (None if part == "-" else part for part in parts)
    decision = run(active, source, target_side, target)
    assert outcome(decision) == (new_active, new_target, migration, state, set(filter(None, gone.split(","))))
    assert decision.deprovision == (new_active is None)
    assert decision.intended is None  # with a migration the source's end is no shutdown


def test_second_run_with_the_target_already_active_finds_nothing_to_do():
    assert run(None, "completed", "in_progress", "running", same=True) is None


def test_target_active_and_completed_clears_the_ids():
    assert outcome(run(None, "completed", "completed", "running", same=True)) == ("T", None, None, "vmm", set())


def test_target_active_and_destroyed_ends_in_no_vmm():
    decision = run(None, "completed", "completed", "destroyed", same=True)
    assert outcome(decision) == (None, None, None, "no_vmm", {"T"})


def test_a_target_that_an_earlier_saga_destroyed_never_becomes_active():
    assert run("stopping", "completed", "in_progress", None) is None
    # the guest was lost with the target: Failed, so that it may be restarted, and nothing of the migration is left
    assert outcome(run("destroyed", "completed", "in_progress", None)) == (None, None, None, "failed", {"A"})


def test_network_follows_the_active_vmm():
    assert run("stopping", "completed", "in_progress", "migrating").network_to == SLED_T
    assert run("running", "failed", "in_progress", "migrating").network_to == SLED_A
    assert run("destroyed", "failed", "in_progress", "migrating").network_to is None


def test_reservations_swap_when_the_target_has_completed_and_lives():
    assert run("stopping", "completed", "completed", "running").swap == (A, T)
    assert run("stopping", "completed", "in_progress", "migrating").swap is None
    # as the original decides it; the saga swaps nothing if it destroys the target
    both_over = run("stopping", "completed", "completed", "destroyed")
    assert (both_over.swap, both_over.destroy_target) == ((A, T), T)


@pytest.mark.parametrize("rules", [RuleSet.R5854, RuleSet.R5855, RuleSet.R5749])
def test_before_6455_only_destroyed_is_terminal(rules):
    assert run("failed", rules=RULES[rules]) is None
    decision = run("destroyed", rules=RULES[rules])
    assert outcome(decision) == (None, None, None, "no_vmm", {"A"})
    assert decision.intended is None
    assert run("stopping", "completed", "completed", "running", rules=RULES[rules]).swap is None
