"""rack.py: what Nexus answers to publications and registrations, and what time does."""

import pytest
from msgspec.structs import replace
from support.rack.driving import (
    ACK,
    DOWN,
    FAILS,
    FOR_EVER,
    GONE,
    M1,
    REBOOT,
    RUNNING,
    SECOND,
    SLED_A,
    SLED_B,
    STOPPED,
    T0,
    V1,
    V2,
    V3,
    RackDriver,
    ScriptedPacer,
    contract,
    refused,
    snapshot,
    target,
)

from nexus_client.outbox import Permanent
from nexus_client.registration import Decommissioned, Found, GetSledAgent, NotFound, PostSledAgent, Registered
from nexus_client.types import VmmState
from propolis_stub.types import InstanceState
from propolis_stub.waiting import Pace, Point
from sim_sled.core import errors, rack
from sim_sled.core.happenings import Kind
from sim_sled.core.why import told

# --- what Nexus answers ---------------------------------------------------------------------------------------------


def _stopped_without_ack():
    driver = RackDriver(acks=False, pacer=ScriptedPacer(0))
    driver.register()
    driver.put(RUNNING)
    driver.nexus_answers(ACK)
    driver.put(STOPPED)
    assert driver.published() == ["running gen 3", "destroyed gen 5"]
    return driver


@pytest.mark.parametrize("outcome", [ACK, GONE, Permanent("400: no", 400)])
def test_property_22_the_end_is_kept_until_it_is_acknowledged_or_refused_for_good(outcome):
    driver = _stopped_without_ack()
    assert told(driver.get()) == "destroyed gen 5"
    driver.nexus_answers(outcome)
    assert isinstance(refused(driver.get), errors.NoSuchVmm)
    assert driver.rack.next_deadline_us() is None


def test_property_24_the_end_is_told_until_nexus_is_back():
    driver = _stopped_without_ack()
    for _ in range(20):
        driver.nexus_answers(DOWN)
        assert told(driver.get()) == "destroyed gen 5"
        assert not driver.flying
        driver.run_until_idle()
    driver.nexus_answers(ACK)
    assert V1 not in driver.sled().vmms
    assert driver.published()[1:] == ["destroyed gen 5"] * 21


def test_property_25_a_refusal_of_one_state_does_not_stop_later_ones():
    driver = RackDriver(acks=False, pacer=ScriptedPacer(0))
    driver.register()
    driver.put(RUNNING)
    driver.nexus_answers(GONE)
    driver.put(REBOOT)
    driver.nexus_answers(ACK)
    assert driver.published() == ["running gen 3", "running gen 5"]


def test_property_23_a_retry_carries_the_newest_state_also_one_that_only_an_answer_has_told():
    """Nexus may have lost the answer to its PUT: what is on its way to it anyway is brought up to date."""
    driver = RackDriver(acks=False, pacer=ScriptedPacer(0, {Point.HALT: FOR_EVER, Point.WAKE: Pace(SECOND)}))
    driver.register()
    driver.put(RUNNING)
    driver.wait(SECOND)
    driver.nexus_answers(DOWN)
    assert told(driver.put(STOPPED)) == "stopping gen 4"
    driver.wait(SECOND // 2)
    assert driver.published() == ["running gen 3", "stopping gen 4"]


def test_what_was_refused_for_good_is_remembered_as_not_acknowledged():
    driver = RackDriver(acks=False, pacer=ScriptedPacer(0))
    driver.register()
    driver.put(RUNNING)
    driver.nexus_answers(GONE)
    assert driver.vmm().acked is None


def test_one_vmms_trouble_delays_nobody():
    driver = RackDriver(acks=False, pacer=ScriptedPacer(0))
    for propolis_id in (V1, V2):
        driver.register(propolis_id)
        driver.put(RUNNING, propolis_id)
    driver.nexus_answers(DOWN, V1)
    driver.nexus_answers(ACK, V2)
    driver.put(STOPPED, V2)
    driver.nexus_answers(ACK, V2)
    assert V2 not in driver.sled().vmms
    assert V1 in driver.sled().vmms


def test_hurry_tries_at_once_what_waits():
    driver = RackDriver(acks=False, pacer=ScriptedPacer(0))
    driver.register()
    driver.put(RUNNING)
    driver.nexus_answers(DOWN)
    driver.do(contract.HurryOutbox(SLED_B))
    assert not driver.flying
    driver.do(contract.HurryOutbox(SLED_A))
    assert [told(post.body) for post in driver.flying] == ["running gen 3"]
    assert driver.rack.next_deadline_us() is None


# --- registration with Nexus ----------------------------------------------------------------------------------------


def test_a_sled_makes_itself_known_and_tells_changes():
    driver = RackDriver()
    info = driver.sled().info("[::1]:1", 1)
    driver.do(contract.Announce(SLED_A, info))
    [ask] = driver.others
    assert ask == contract.AskNexus(SLED_A, GetSledAgent(SLED_A))
    driver.do(contract.RegistrationReplied(SLED_A, contract.GetReplied(NotFound())))
    post = driver.others[-1].call
    assert isinstance(post, PostSledAgent)
    assert post.info.generation == 1
    driver.do(contract.RegistrationReplied(SLED_A, contract.PostReplied(ACK)))
    assert driver.others[-1] == contract.RegistrationNews(SLED_A, Registered(1))
    driver.do(contract.Announce(SLED_A, driver.sled().info("[::1]:2", 1)))
    assert driver.others[-1].call.info.generation == 2


def test_a_registration_that_fails_for_now_is_tried_again():
    driver = RackDriver()
    driver.do(contract.Announce(SLED_A, driver.sled().info("[::1]:1", 1)))
    driver.do(contract.RegistrationReplied(SLED_A, contract.GetReplied(DOWN)))
    assert T0 < driver.rack.next_deadline_us() < T0 + 2 * SECOND
    driver.run_until_idle()
    assert [type(effect.call) for effect in driver.others] == [GetSledAgent, GetSledAgent]


def test_a_decommissioned_sled_says_so_and_stays_silent():
    driver = RackDriver()
    info = driver.sled().info("[::1]:1", 1)
    driver.do(contract.Announce(SLED_A, info))
    gone = Found(replace(info, decommissioned=True))
    driver.do(contract.RegistrationReplied(SLED_A, contract.GetReplied(gone)))
    assert driver.others[-1] == contract.RegistrationNews(SLED_A, Decommissioned())
    assert driver.rack.next_deadline_us() is None


# --- time -----------------------------------------------------------------------------------------------------------


def test_one_tick_serves_a_limited_number_so_that_io_gets_its_turn(monkeypatch):
    monkeypatch.setattr(rack, "TICKS_MAX", 2)
    driver = RackDriver()
    for propolis_id in (V1, V2, V3):
        driver.register(propolis_id)
        driver.put(RUNNING, propolis_id)
    driver.now_us += SECOND
    driver.do(contract.Tick())
    assert driver.rack.next_deadline_us() < driver.now_us, "there is more to do: come again at once"
    driver.run_until_idle()
    assert {driver.vmm(each).state for each in (V1, V2, V3)} == {VmmState.RUNNING}


def test_a_late_tick_does_all_that_was_due():
    driver = RackDriver()
    driver.register()
    driver.put(RUNNING)
    driver.now_us += 3_600 * SECOND
    driver.run_until_idle()
    assert driver.published()[-1] == "running gen 4"


def test_a_life_leaves_nothing_behind():
    driver = RackDriver()
    driver.rack.watch = None
    empty = snapshot(driver.rack)
    for _ in range(3):
        driver.running()
        driver.put(STOPPED)
        driver.run_until_idle()
    for sled in driver.rack.sleds.values():
        sled.ended.clear()  # the last few are remembered on purpose: their zone bundles
    left = snapshot(driver.rack)
    for what in (empty, left):
        what["_turn"]["scheduler"] = None  # counts on
        for sled in what["sleds"].values():
            sled["outbox"].pop("_serial")
    gone = left["_links"].pop("_gone"), empty["_links"].pop("_gone")
    assert tuple(map(len, gone)) == (1, 0), "where somebody was: one address, however often it was used"
    assert left == empty
    assert driver.rack._turn.scheduler._heap == []


def test_failing_points_are_seen_by_nobody_else():
    driver = RackDriver(pacer=ScriptedPacer(1_000, {(V1, Point.BACKENDS): FAILS}))
    for propolis_id in (V1, V2):
        driver.register(propolis_id)
        driver.put(RUNNING, propolis_id)
    driver.run_until_idle()
    assert driver.published(V1)[-1] == "failed gen 4"
    assert driver.published(V2)[-1] == "running gen 4"


# --- the end of a VMM ----------------------------------------------------------------------------------------------


def test_only_the_acknowledgement_of_its_end_ends_a_vmm():
    """The answer to an older state comes when the VMM has ended meanwhile: its end has not been heard."""
    driver = RackDriver(acks=False, pacer=ScriptedPacer(0))
    driver.register()
    driver.put(RUNNING)
    driver.put(STOPPED)
    driver.nexus_answers(ACK)
    assert told(driver.get()) == "destroyed gen 5"
    assert driver.published() == ["running gen 3", "destroyed gen 5"]
    driver.nexus_answers(ACK)
    assert isinstance(refused(driver.get), errors.NoSuchVmm)


def test_property_6_nothing_follows_an_end_that_nexus_has_not_heard_yet():
    """Propolis tells a failed import twice, the second time when its rundown is over (PR 3.6)."""
    driver = RackDriver(acks=False, pacer=ScriptedPacer(1_000, {Point.M_RAM_PUSH: Pace(1_000, fail=True)}))
    driver.register(V1, VmmState.MIGRATING, migration_id=M1)
    driver.put(target("[fd00::99]:12400"))
    driver.wait(SECOND)
    ended = driver.get()
    assert ended.vmm_state.state is VmmState.FAILED
    publications = [each.data[1].state for each in driver.happened if each.kind is Kind.PROPOLIS]
    assert publications[-2:] == [InstanceState.FAILED, InstanceState.FAILED]
    observed = [each.data[1] for each in driver.happened if each.kind is Kind.OBSERVED]
    assert observed[-1] is ended
    assert [each.vmm_state.state for each in observed].count(VmmState.FAILED) == 1
