"""rack.py: two VMMs of one migration, moving by themselves (PR 3.5, 3.6; SA 2.8)."""

import contextlib
from uuid import UUID

import pytest
from support.rack.driving import (
    FAILS,
    FOR_EVER,
    M1,
    M2,
    M3,
    REBOOT,
    RUNNING,
    SECOND,
    SLED_A,
    SLED_B,
    STOPPED,
    V1,
    V2,
    V3,
    RackDriver,
    ScriptedPacer,
    address_of,
    refused,
    snapshot,
    target,
)
from support.rack.migrating import (
    AUTO,
    BOTH_SIDES,
    EXPLICIT,
    IN,
    MOVED,
    MOVING_MS,
    PHASES,
    STAYED,
    migrating,
    pair,
    sides,
    state_of,
)
from support.rows import in_one_test

from nexus_client.types import MIGRATION_TERMINAL, MigrationState, VmmState
from propolis_stub.contract import FromPeer, Hold, Release
from propolis_stub.migration.messages import Malformed
from propolis_stub.waiting import Pace, Point
from sim_sled.core import contract, errors, links
from sim_sled.core.config import MIGRATIONS_OUT_MAX, SimMode
from sim_sled.core.happenings import Kind
from sim_sled.core.why import told

# --- success --------------------------------------------------------------------------------------------------------


def test_both_sides_move_by_themselves():
    driver = pair()
    assert told(driver.put(IN, V2, on=SLED_B)) == "migrating gen 2 in=pending/1"
    driver.run_until_idle()
    source, moved = driver.published(V1), driver.published(V2)
    assert source[0] == "migrating gen 5 out=in_progress/2"
    assert [text.split(" ")[0] for text in source[-2:]] == ["stopping", "destroyed"]
    assert source[-1].endswith("out=completed/3")
    assert {text.split(" ")[0] for text in source} == {"migrating", "stopping", "destroyed"}
    assert moved[0] == "migrating gen 3 in=in_progress/2"
    assert moved[-1].startswith("running")
    assert moved[-1].endswith("in=completed/3")
    assert {text.split(" ")[0] for text in moved} == {"migrating", "running"}
    assert V1 not in driver.sled(SLED_A).vmms
    assert driver.vmm(V2, on=SLED_B).peer is None


def test_instances_move_within_one_sled_too():
    driver = RackDriver()
    driver.running(V1)
    driver.register(V2, VmmState.MIGRATING, migration_id=M1)
    driver.put(IN, V2)
    driver.run_until_idle()
    assert sides(driver) == MOVED


def test_without_durations_the_migration_is_over_at_once():
    driver = migrating(pacer=ScriptedPacer(0))
    driver.wait(0)
    assert sides(driver) == MOVED


def test_the_moved_vmm_is_a_vmm_like_any_other():
    driver = migrating()
    driver.run_until_idle()
    driver.put(REBOOT, V2, on=SLED_B)
    driver.run_until_idle()
    driver.put(STOPPED, V2, on=SLED_B)
    driver.run_until_idle()
    assert state_of(driver.published(V2)) == "destroyed"
    assert V2 not in driver.sled(SLED_B).vmms


def test_it_may_move_on():
    driver = migrating()
    driver.run_until_idle()
    driver.register(V3, VmmState.MIGRATING, migration_id=M2)
    driver.put(target(address_of(V2)), V3)
    driver.run_until_idle()
    last_of_v2 = driver.published(V2)[-1]
    assert last_of_v2.startswith("destroyed")
    assert last_of_v2.endswith("in=completed/3 out=completed/3")
    assert state_of(driver.published(V3)) == "running"


def test_nexus_is_told_of_both_by_their_own_sleds():
    driver = migrating()
    driver.run_until_idle()
    assert {(post.propolis_id, post.sled_id) for post in driver.posts} == {(V1, SLED_A), (V2, SLED_B)}


# --- explicit and mixed modes ---------------------------------------------------------------------------------------


def test_explicit_the_source_follows_the_steps_of_its_target():
    driver = migrating(mode=EXPLICIT, pacer=ScriptedPacer(0))
    assert driver.published(V1) == []
    for published in (
        "migrating gen 3 in=in_progress/2",
        "migrating gen 4 in=in_progress/2",
        "migrating gen 5 in=completed/3",
        "running gen 6 in=completed/3",
    ):
        driver.step(V2, on=SLED_B)
        assert driver.published(V2)[-1] == published
    assert state_of(driver.published(V1)) == "stopping"
    driver.poke(V1)
    assert sides(driver) == MOVED


@pytest.mark.parametrize(("source", "moved"), [(AUTO, EXPLICIT), (EXPLICIT, AUTO)])
def test_sleds_of_different_modes_understand_each_other(source, moved):
    driver = migrating(mode=source, mode_b=moved)
    for _ in range(20):
        driver.run_until_idle()
        for propolis_id, sled_id in ((V1, SLED_A), (V2, SLED_B)):
            if propolis_id in driver.sled(sled_id).vmms:
                driver.poke(propolis_id, on=sled_id)
    assert sides(driver) == MOVED


# --- failures -------------------------------------------------------------------------------------------------------


@in_one_test("point", BOTH_SIDES)
@in_one_test("after_us", [0, 1_000])
def test_the_source_fails_in_a_phase(point, after_us):
    pacer = ScriptedPacer(1_000, {(V1, point): Pace(after_us, fail=True)})
    driver = migrating(pacer=pacer)
    driver.run_until_idle()
    source, moved = sides(driver)
    if point is Point.M_FINISH:
        # it has said Finish already, and Nexus acts on the first end it hears (NX 7 #8)
        assert source == ("running", "completed" if after_us else source[1])
        assert moved[0] == "failed"
    else:
        assert (source, moved) == STAYED
    assert V2 not in driver.sled(SLED_B).vmms, "told, acknowledged, forgotten"
    assert driver.vmm(V1).peer is None


@in_one_test("point", [*PHASES, Point.CREATE])
@in_one_test("after_us", [0, 1_000])
def test_the_target_fails_in_a_phase(point, after_us):
    pacer = ScriptedPacer(1_000, {(V2, point): Pace(after_us, fail=True)})
    driver = migrating(pacer=pacer)
    driver.run_until_idle()
    source, moved = sides(driver)
    assert moved[0] == "failed"
    if point is Point.M_CONNECT:
        assert source is None, "the source was never asked"
    elif point is Point.M_FINISH:
        assert source[0] == "running"
    else:
        assert (source, moved) == STAYED
    assert V2 not in driver.sled(SLED_B).vmms


@pytest.mark.parametrize("point", [Point.DEVICES, Point.BACKENDS])
def test_a_target_that_cannot_start_after_the_import_has_failed_alone(point):
    """The hand-over is behind them: the source is gone, and the instance with it."""
    driver = migrating(pacer=ScriptedPacer(1_000, {(V2, point): FAILS}))
    driver.run_until_idle()
    assert sides(driver) == (("destroyed", "completed"), ("failed", "completed"))


def test_after_a_failure_the_source_can_migrate_to_another_target():
    driver = migrating(pacer=ScriptedPacer(1_000, {(V2, Point.M_DEVICE): FAILS}))
    driver.run_until_idle()
    driver.register(V3, VmmState.MIGRATING, on=SLED_B, migration_id=M2)
    driver.put(IN, V3, on=SLED_B)
    driver.run_until_idle()
    assert state_of(driver.published(V1)) == "destroyed"
    assert state_of(driver.published(V3)) == "running"
    ends = {
        (side.migration_id, side.state)
        for post in driver.posts
        if post.propolis_id == V1
        and (side := post.body.migration_out) is not None
        and side.state in MIGRATION_TERMINAL
    }
    assert ends == {(M1, MigrationState.FAILED), (M2, MigrationState.COMPLETED)}, "both are told, each with its id"


@in_one_test("who", ["target", "source"])
@in_one_test("point", [Point.M_SYNC, Point.M_DEVICE, Point.M_FINISH])
def test_after_a_failure_neither_side_hears_the_other_any_more(who, point):
    """Nexus does not answer, so that both VMMs are still there to be looked at."""
    failing = V2 if who == "target" else V1
    driver = pair(pacer=ScriptedPacer(1_000, {(failing, point): FAILS}))
    driver.acks = False
    source, moving = driver.vmm(V1), driver.vmm(V2, on=SLED_B)
    driver.put(IN, V2, on=SLED_B)
    driver.run_until_idle()
    assert moving.state is VmmState.FAILED
    assert (source.state, source.peer, moving.peer) == (VmmState.RUNNING, None, None)
    seen = source.record
    driver.forget(V2, on=SLED_B)
    driver.run_until_idle()
    assert source.record is seen, "what becomes of the old target is nothing to the source"


def test_the_side_that_hangs_up_without_a_word_has_no_peer_any_more():
    """A source that cannot read the offer: it closes, the target notices, and nobody closes a second time."""
    driver = pair()
    driver.acks = False
    source, moving = driver.vmm(V1), driver.vmm(V2, on=SLED_B)
    driver.ask(contract.PropolisInput, SLED_A, V1, Hold())
    driver.put(IN, V2, on=SLED_B)
    driver.wait(SECOND)
    assert (source.peer, moving.peer) == (moving, source)
    driver.ask(contract.PropolisInput, SLED_A, V1, FromPeer(Malformed("garbage")))
    driver.ask(contract.PropolisInput, SLED_A, V1, Release())
    driver.wait(SECOND)
    assert (source.state, moving.state) == (VmmState.RUNNING, VmmState.FAILED)
    assert (source.peer, moving.peer) == (None, None)


def test_after_success_neither_side_hears_the_other_any_more():
    driver = pair(acks=True)
    source, moving = driver.vmm(V1), driver.vmm(V2, on=SLED_B)
    driver.put(IN, V2, on=SLED_B)
    driver.run_until_idle()
    assert (source.peer, moving.peer) == (None, None)


@pytest.mark.parametrize("gone_by", ["unregister", "forget"])
def test_an_address_that_was_given_anew_leads_to_the_newer_vmm(gone_by):
    """Else the newer one's migration is imagined, and one guest runs twice."""
    driver = RackDriver()
    driver.running(V1)
    driver.running(V3, propolis_addr=address_of(V1))
    getattr(driver, gone_by)(V1)
    driver.register(V2, VmmState.MIGRATING, on=SLED_B, migration_id=M1)
    driver.put(IN, V2, on=SLED_B)
    driver.run_until_idle()
    assert state_of(driver.published(V3)) == "destroyed"
    assert told(driver.get(V2, on=SLED_B)).startswith("running")


@pytest.mark.parametrize(
    "spelling",
    ["[FD00:1122:3344:101::F1]:12400", "[fd00:1122:3344:0101:0:0:0:00f1]:12400", "[fd00:1122:3344:101::f1]:0012400"],
)
def test_a_source_is_found_however_its_address_is_spelt(spelling):
    driver = pair()
    driver.put(target(spelling), V2, on=SLED_B)
    driver.run_until_idle()
    assert sides(driver) == MOVED


def test_a_target_is_seen_when_its_first_phase_is_due_before_the_agents_look():
    """WAKE is when the agent looks; the migration does not wait for it."""
    driver = migrating(pacer=ScriptedPacer(1_000, {(V2, Point.WAKE): Pace(60 * SECOND)}))
    driver.wait(4_000)
    assert driver.published(V2)[0] == "migrating gen 3 in=in_progress/2"
    driver.run_until_idle()
    assert sides(driver) == MOVED


def test_a_vmm_tries_no_more_migrations_out_than_the_limit():
    driver = pair()
    driver.vmm(V1).tried = tuple(UUID(int=number) for number in range(MIGRATIONS_OUT_MAX - 1))
    driver.migrate_out(M3, succeeds=False)
    driver.run_until_idle()
    before = snapshot(driver.vmm(V1))
    assert isinstance(refused(driver.migrate_out, M2), errors.InvalidRequest)
    assert snapshot(driver.vmm(V1)) == before
    driver.put(IN, V2, on=SLED_B)
    driver.run_until_idle()
    assert state_of(driver.published(V2)) == "failed", "a target that dials is refused as well"


def test_property_8_a_migration_that_failed_is_not_tried_again_by_another_target():
    driver = migrating(pacer=ScriptedPacer(1_000, {(V2, Point.M_DEVICE): FAILS}))
    driver.run_until_idle()
    driver.posts.clear()
    driver.register(V3, VmmState.MIGRATING, on=SLED_B, migration_id=M1)
    driver.put(IN, V3, on=SLED_B)
    driver.run_until_idle()
    assert state_of(driver.published(V3)) == "failed"
    assert driver.published(V1) == [], "the source was not bothered"
    assert told(driver.get(V1)).endswith("out=failed/3")


def test_property_11_a_vmm_does_not_leave_by_the_migration_that_brought_it():
    driver = migrating()
    driver.run_until_idle()
    driver.register(V3, VmmState.MIGRATING, migration_id=M1)
    driver.put(target(address_of(V2)), V3)
    driver.run_until_idle()
    assert state_of(driver.published(V3)) == "failed"
    assert told(driver.get(V2, on=SLED_B)).endswith("in=completed/3")


# --- the source refuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param([], id="it was never started"),
        pytest.param([RUNNING, "wait", STOPPED], id="it is stopping"),
        pytest.param([STOPPED], id="it is destroyed"),
    ],
)
def test_a_source_that_cannot_migrate_fails_its_target(prepare):
    driver = RackDriver(pacer=ScriptedPacer(1_000, {(V1, Point.HALT): FOR_EVER}), acks=False)
    driver.register(V1)
    for each in prepare:
        driver.wait(SECOND) if each == "wait" else driver.put(each)
    driver.register(V2, VmmState.MIGRATING, on=SLED_B, migration_id=M1)
    driver.put(IN, V2, on=SLED_B)
    driver.wait(SECOND)
    assert driver.vmm(V2, on=SLED_B).state is VmmState.FAILED
    assert driver.get(V1).migration_out is None


def test_a_source_that_is_starting_migrates_once_it_runs():
    driver = RackDriver(pacer=ScriptedPacer(1_000, {(V1, Point.BACKENDS): Pace(10 * SECOND)}))
    driver.register(V1)
    driver.put(RUNNING)
    driver.register(V2, VmmState.MIGRATING, on=SLED_B, migration_id=M1)
    driver.put(IN, V2, on=SLED_B)
    driver.wait(5 * SECOND)
    assert state_of(driver.published(V2)) == "migrating"
    driver.run_until_idle()
    assert sides(driver) == MOVED


def test_a_source_that_propolis_lost_fails_its_target():
    driver = pair()
    driver.kill(V1, restart=False)
    driver.put(IN, V2, on=SLED_B)
    driver.run_until_idle()
    assert state_of(driver.published(V2)) == "failed"


def test_why_the_source_refused_is_told():
    driver = pair(pacer=ScriptedPacer(1_000, {(V1, Point.HALT): FOR_EVER}))
    driver.put(STOPPED, V1)
    driver.put(IN, V2, on=SLED_B)
    driver.wait(SECOND)
    texts = [each.data for each in driver.happened if each.kind is Kind.MIGRATION and each.propolis_id == V2]
    assert texts == [
        f"source {address_of(V1)} in this rack",
        "the source refuses: instance state change not allowed: Instance is preparing to stop",
    ]


def test_a_source_that_is_nowhere_is_imagined():
    """As the existing simulator has it: `src_propolis_addr` of a VMM that is not in this process."""
    driver = pair()
    driver.put(target("[fd00::99]:12400"), V2, on=SLED_B)
    driver.run_until_idle()
    assert sides(driver) == (None, ("running", "completed"))
    assert told(driver.get(V1)) == "running gen 4"


def test_a_target_is_not_its_own_source():
    driver = pair()
    driver.put(target(address_of(V2)), V2, on=SLED_B)
    driver.run_until_idle()
    assert state_of(driver.published(V2)) == "running"


@pytest.mark.parametrize("gone_by", ["unregister", "forget"])
def test_a_source_that_is_gone_is_not_imagined_and_no_guest_comes_from_nowhere(gone_by):
    """As on a network: nobody answers at the address where it was."""
    driver = pair()
    getattr(driver, gone_by)(V1)
    driver.put(IN, V2, on=SLED_B)
    driver.run_until_idle()
    assert sides(driver) == (None, ("failed", "failed"))
    texts = [each.data for each in driver.happened if each.kind is Kind.MIGRATION and each.propolis_id == V2]
    assert texts == [f"source {address_of(V1)} gone from this rack"]


def test_a_source_that_has_ended_and_is_forgotten_before_it_is_dialled_is_nobody():
    """It refuses nothing, and nobody is asked what it takes along: whoever would serve it is gone, too."""
    driver = pair(pacer=ScriptedPacer(1_000, {(V2, Point.M_CONNECT): Pace(10 * SECOND)}))
    driver.put(IN, V2, on=SLED_B)
    driver.put(STOPPED, V1)
    driver.wait(SECOND)
    assert isinstance(refused(driver.get, V1), errors.NoSuchVmm)
    driver.run_until_idle()
    assert sides(driver) == (("destroyed", None), ("failed", "failed"))
    texts = [each.data for each in driver.happened if each.kind is Kind.MIGRATION and each.propolis_id == V2]
    assert texts == [f"source {address_of(V1)} in this rack"]


def test_an_address_is_free_again_when_its_vmm_is_gone():
    driver = pair()
    driver.unregister(V1)
    driver.running(V3, propolis_addr=address_of(V1))
    driver.put(IN, V2, on=SLED_B)
    driver.run_until_idle()
    assert state_of(driver.published(V3)) == "destroyed"
    assert told(driver.get(V2, on=SLED_B)).startswith("running")


def test_so_many_addresses_are_remembered_and_no_more(monkeypatch):
    monkeypatch.setattr(links, "GONE_MAX", 1)
    driver = pair()
    driver.running(V3)
    driver.unregister(V1)
    driver.unregister(V3)
    driver.put(IN, V2, on=SLED_B)
    driver.run_until_idle()
    assert sides(driver) == (None, ("running", "completed")), "as one that never was here"


# --- two targets ----------------------------------------------------------------------------------------------------


@in_one_test("between_us", [0, 1_500, 3_500, 9_500])
@in_one_test("same_migration", [True, False])
def test_of_two_targets_of_one_source_only_one_gets_the_guest(between_us, same_migration):
    driver = pair()
    driver.register(V3, VmmState.MIGRATING, on=SLED_B, migration_id=M1 if same_migration else M2)
    driver.put(IN, V2, on=SLED_B)
    driver.wait(between_us)
    driver.put(IN, V3, on=SLED_B)
    driver.run_until_idle()
    assert sides(driver) == MOVED
    assert state_of(driver.published(V3)) == "failed"


def test_of_two_targets_in_explicit_mode_the_one_that_dials_first_gets_the_guest():
    driver = pair(EXPLICIT, pacer=ScriptedPacer(0))
    driver.register(V3, VmmState.MIGRATING, on=SLED_B, migration_id=M2)
    driver.put(IN, V2, on=SLED_B)
    driver.put(IN, V3, on=SLED_B)
    driver.poke(V3, on=SLED_B)
    driver.poke(V2, on=SLED_B)
    assert state_of(driver.published(V3)) == "running"
    assert state_of(driver.published(V2)) == "failed"


# --- something happens to the source meanwhile ----------------------------------------------------------------------


@in_one_test("after_ms", MOVING_MS)
def test_the_source_is_stopped_meanwhile(after_ms):
    """The stop waits for the migration; a migration that succeeds has done its work (PR 3.5)."""
    driver = migrating()
    driver.wait(after_ms * 1_000)
    if V1 in driver.sled().vmms:
        with contextlib.suppress(errors.VmmTerminating):
            driver.put(STOPPED, V1)
    driver.run_until_idle()
    source, moved = sides(driver)
    assert source[0] == "destroyed"
    if source[1] == "completed":
        assert moved == ("running", "completed")
    else:
        assert after_ms == 1, "asked before the target dialled: the stop came first"
        assert moved[0] == "failed"


@in_one_test("after_ms", range(3, 10))
def test_a_source_that_was_stopped_meanwhile_stops_if_the_migration_fails(after_ms):
    driver = migrating(pacer=ScriptedPacer(1_000, {(V2, Point.M_SERVER): FAILS}))
    driver.wait(after_ms * 1_000)
    asked = driver.vmm(V1).resting() is VmmState.DESTROYED
    driver.put(STOPPED, V1)
    driver.run_until_idle()
    source, moved = sides(driver)
    assert source == ("destroyed", "failed")
    assert moved[0] == "failed"
    assert asked or after_ms > 8
    assert V1 not in driver.sled().vmms


LOSSES = {
    "unregistered": lambda driver, who, on: driver.unregister(who, on=on),
    "forgotten": lambda driver, who, on: driver.forget(who, on=on),
    "failed by force": lambda driver, who, on: driver.inject(VmmState.FAILED, who, on=on),
    "killed and restarted": lambda driver, who, on: driver.kill(who, restart=True, on=on),
    "killed": lambda driver, who, on: driver.kill(who, restart=False, on=on),
}


def _lose(driver, how, who, on):
    """False if it is gone or has ended already."""
    if who not in driver.sled(on).vmms or driver.vmm(who, on=on).terminal:
        return False
    if driver.vmm(who, on=on).vm is None:
        return False
    LOSSES[how](driver, who, on)
    return True


@in_one_test("how", LOSSES)
@in_one_test("after_ms", MOVING_MS)
def test_the_source_is_lost_meanwhile(how, after_ms):
    """Its peer notices at once: before the hand-over it fails, after it it runs on."""
    driver = migrating()
    driver.wait(after_ms * 1_000)
    lost = _lose(driver, how, V1, SLED_A)
    driver.run_until_idle()
    _, moved = sides(driver)
    handed_over = moved == ("running", "completed")
    assert handed_over or moved[0] == "failed"
    assert handed_over or lost
    if not handed_over:
        assert V2 not in driver.sled(SLED_B).vmms
    assert all(vmm.vm is None or vmm.vm.waits_for() is None for vmm in driver.sled(SLED_B).vmms.values())


@in_one_test("how", LOSSES)
@in_one_test("after_ms", range(14))
def test_the_target_is_lost_meanwhile(how, after_ms):
    """The source runs on, or had handed over already and is destroyed; it never waits for a peer that is gone."""
    driver = migrating()
    driver.wait(after_ms * 1_000)
    lost = _lose(driver, how, V2, SLED_B)
    driver.run_until_idle()
    source, _ = sides(driver)
    if source is not None and source[0] == "destroyed":
        assert source[1] == "completed"
        assert V1 not in driver.sled().vmms
    else:
        assert lost
        assert source in {None, ("running", "failed"), ("running", "completed")}
        assert driver.vmm(V1).vm.waits_for() is None
        assert driver.vmm(V1).peer is None


@in_one_test("after_ms", MOVING_MS)
def test_a_lost_target_leaves_a_source_that_can_be_stopped(after_ms):
    driver = migrating()
    driver.wait(after_ms * 1_000)
    driver.unregister(V2, on=SLED_B)
    driver.run_until_idle()
    if V1 in driver.sled().vmms:
        driver.put(STOPPED, V1)
        driver.run_until_idle()
    assert V1 not in driver.sled().vmms
    assert driver.rack.next_deadline_us() is None


def test_a_migration_leaves_nothing_behind():
    driver = RackDriver()
    empty = snapshot(driver.sled().networking)
    driver.running(V1)
    driver.register(V2, VmmState.MIGRATING, on=SLED_B, migration_id=M1)
    driver.put(IN, V2, on=SLED_B)
    driver.run_until_idle()
    driver.unregister(V2, on=SLED_B)
    for sled_id in (SLED_A, SLED_B):
        assert driver.sled(sled_id).vmms == {}
        assert len(driver.sled(sled_id).outbox) == 0
        assert snapshot(driver.sled(sled_id).networking) == empty
    assert driver.rack._links._sources == {}
    assert not driver.rack._links.messages
    assert not driver.rack._turn.touched


# --- sim-migration-source -------------------------------------------------------------------------------------------


@in_one_test("mode", SimMode)
@in_one_test(("succeeds", "end"), [(True, ("destroyed", "completed")), (False, ("running", "failed"))])
def test_a_migration_to_nobody(mode, succeeds, end):
    driver = RackDriver(mode)
    driver.running(V1)
    assert driver.migrate_out(M1, succeeds=succeeds) is None
    if mode is EXPLICIT:
        assert driver.posts == [], "explicit: not before it is poked"
        driver.poke(V1)
    driver.run_until_idle()
    assert sides(driver)[0] == end
    states = [text.split(" ")[0] for text in driver.published(V1)]
    assert states[0] == "migrating", "`stopping` is said when it stops (weakness 17)"


def test_a_source_busy_with_nobody_refuses_a_real_target():
    driver = pair()
    driver.migrate_out(M2)
    driver.put(IN, V2, on=SLED_B)
    driver.wait(2_000)
    driver.run_until_idle()
    assert sides(driver) == (("destroyed", "completed"), ("failed", "failed"))


def test_a_migration_to_nobody_is_refused_while_a_real_one_runs():
    driver = migrating()
    driver.wait(4_000)
    before = snapshot(driver.rack)
    assert isinstance(refused(driver.migrate_out, M2), errors.InvalidRequest)
    assert snapshot(driver.rack) == before


def test_a_migration_state_that_has_ended_never_changes():
    """The whole of property 8 over every failure of this file's kind, as Nexus would see it."""
    for who, point in [(who, point) for who in (V1, V2) for point in BOTH_SIDES]:
        driver = migrating(pacer=ScriptedPacer(1_000, {(who, point): Pace(1_000, fail=True)}))
        driver.run_until_idle()
        for propolis_id, side in ((V1, "migration_out"), (V2, "migration_in")):
            ended = None
            for post in driver.posts:
                migration = getattr(post.body, side)
                if post.propolis_id != propolis_id or migration is None:
                    continue
                assert ended in {None, migration.state}, (who, point)
                if migration.state in {MigrationState.COMPLETED, MigrationState.FAILED}:
                    ended = migration.state
