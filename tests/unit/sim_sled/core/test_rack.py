"""rack.py: the doors of the core, one by one: what is answered, what is published, what is kept and what is not."""

import pytest
from support.rack.driving import (
    ACK,
    DOWN,
    M1,
    REBOOT,
    RUNNING,
    SECOND,
    SLED_A,
    SLED_B,
    STOPPED,
    V1,
    V2,
    RackDriver,
    ScriptedPacer,
    contract,
    instance_of,
    refused,
    registration,
    snapshot,
    target,
)
from support.rows import in_one_test

from nexus_client.types import SledVmmState, UpdatedRuntime, VmmState
from propolis_stub.waiting import Pace, Point
from sim_sled.core import errors
from sim_sled.core.config import SimMode, SledConfig
from sim_sled.core.rack import Rack
from sim_sled.core.why import told

EXPLICIT = SimMode.EXPLICIT


def _refused_untouched(driver, call, *args, **named):
    """The refusal; the whole rack is as it was (house.md 3.13) and nothing came out of it."""
    before, posts = snapshot(driver.rack), list(driver.posts)
    error = refused(call, *args, **named)
    assert snapshot(driver.rack) == before
    assert driver.posts == posts
    return error


# --- the edge -------------------------------------------------------------------------------------------------------


def test_two_sleds_cannot_share_an_id():
    both = Rack()
    both.add_sled(SledConfig(SLED_A))
    with pytest.raises(ValueError, match="two sleds with the id"):
        both.add_sled(SledConfig(SLED_A))


def test_an_empty_rack_waits_for_nothing():
    driver = RackDriver()
    assert driver.rack.next_deadline_us() is None
    assert driver.do(contract.Tick()) == []


# --- register -------------------------------------------------------------------------------------------------------


def test_register_answers_with_the_record_and_publishes_nothing():
    driver = RackDriver()
    record = driver.register(gen=17)
    assert record == SledVmmState(registration(gen=17).vmm_runtime)
    driver.run_until_idle()
    assert driver.posts == []


def test_register_again_answers_with_what_is_stored():
    driver = RackDriver()
    driver.running()
    before = snapshot(driver.rack)
    assert told(driver.register()) == "running gen 4"
    assert snapshot(driver.rack) == before


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        pytest.param({"state": VmmState.RUNNING}, errors.InvalidRequest, id="an initial state that is none"),
        pytest.param({"ncpus": 17}, errors.Internal, id="more CPUs than the sled gives to one VMM"),
        pytest.param({"memory_mib": 2**30}, errors.Internal, id="more memory than there is"),
    ],
)
def test_a_refused_registration_leaves_nothing_behind(fields, kind):
    driver = RackDriver(config={"max_vcpus": 16, "enforce_capacity": True})
    error = _refused_untouched(driver, driver.register, V1, **fields)
    assert isinstance(error, kind)
    assert isinstance(refused(driver.get), errors.NoSuchVmm)


def test_register_of_another_instance_is_refused():
    driver = RackDriver()
    driver.running()
    error = _refused_untouched(driver, driver.register, V1, instance_id=instance_of(V2))
    assert isinstance(error, errors.Internal)


def test_the_same_id_may_live_on_two_sleds():
    """Sleds know nothing of each other; Nexus would never do it."""
    driver = RackDriver()
    driver.running(on=SLED_A)
    driver.register(on=SLED_B)
    driver.unregister(on=SLED_B)
    assert told(driver.get(on=SLED_A)) == "running gen 4"


# --- get, unregister ------------------------------------------------------------------------------------------------


@in_one_test("verb", ["get", "poke", "step", "migrate_out", "forget"])
def test_an_unknown_vmm_is_lost(verb):
    driver = RackDriver()
    error = _refused_untouched(driver, getattr(driver, verb), propolis_id=V1)
    assert isinstance(error, errors.NoSuchVmm)


@in_one_test("requested", [RUNNING, STOPPED, REBOOT, target("[::1]:1")])
def test_a_request_to_an_unknown_vmm_is_lost(requested):
    driver = RackDriver()
    assert isinstance(_refused_untouched(driver, driver.put, requested), errors.NoSuchVmm)


def test_get_changes_nothing():
    driver = RackDriver()
    driver.running()
    before = snapshot(driver.rack)
    assert told(driver.get()) == "running gen 4"
    assert snapshot(driver.rack) == before


def test_property_20_a_second_delete_answers_null():
    driver = RackDriver()
    driver.register()
    assert told(driver.unregister()) == "failed gen 3"
    assert driver.unregister() is None
    assert driver.unregister(V2) is None


@in_one_test("phase", ["registered", "starting", "running", "stopping", "retrying"])
def test_property_21_nothing_is_published_because_of_a_delete(phase):
    driver = RackDriver()
    driver.register()
    if phase != "registered":
        driver.put(RUNNING)
    if phase not in {"registered", "starting"}:
        driver.wait(SECOND)
    if phase == "stopping":
        driver.put(STOPPED)
    if phase == "retrying":
        driver.acks = False
        driver.put(REBOOT)
        driver.wait(1_000)
        driver.nexus_answers(DOWN)
    driver.acks = True
    before = len(driver.posts)
    gen = driver.get().vmm_state.gen
    answer = driver.unregister()
    assert (answer.vmm_state.state, answer.vmm_state.gen) == (VmmState.FAILED, gen + 1)
    driver.run_until_idle()
    assert len(driver.posts) == before
    assert isinstance(refused(driver.get), errors.NoSuchVmm)


def test_a_delete_of_a_destroyed_vmm_answers_with_its_end():
    """Nothing follows a terminal state, not even a DELETE's `failed` (D07)."""
    driver = RackDriver(acks=False)
    driver.register()
    driver.put(STOPPED)
    assert told(driver.unregister()) == "destroyed gen 3"
    driver.nexus_answers(ACK)
    driver.run_until_idle()
    assert driver.published() == ["destroyed gen 3"]


def test_a_deleted_target_fails_its_pending_migration():
    driver = RackDriver()
    driver.register(V1, VmmState.MIGRATING, migration_id=M1)
    assert told(driver.unregister()) == "failed gen 3 in=failed/2"


def test_an_answer_that_comes_after_the_delete_is_not_heard():
    driver = RackDriver(acks=False, pacer=ScriptedPacer(0))
    driver.register()
    driver.put(RUNNING)
    driver.unregister()
    before = snapshot(driver.rack)
    assert driver.nexus_answers(DOWN) == []
    assert snapshot(driver.rack) == before


def test_an_id_that_was_deleted_may_be_registered_anew():
    driver = RackDriver(acks=False, pacer=ScriptedPacer(0))
    driver.register()
    driver.put(RUNNING)
    old = driver.flying.pop()
    driver.unregister()
    driver.register()
    driver.put(RUNNING)
    assert driver.published() == ["running gen 3", "running gen 3"]
    driver.turn(contract.NexusReplied(SLED_A, V1, old.serial, DOWN))
    assert driver.vmm().acked is None, "the answer to the old one is not the answer to the new one"
    driver.nexus_answers(ACK)
    assert told(driver.vmm().acked) == "running gen 3"


# --- put state: auto mode -------------------------------------------------------------------------------------------


def test_auto_mode_carries_out_whatever_is_queued():
    driver = RackDriver()
    driver.register()
    assert told(driver.put(RUNNING)) == "starting gen 2"
    driver.run_until_idle()
    assert driver.published() == ["starting gen 3", "running gen 4"]
    assert told(driver.put(REBOOT)) == "rebooting gen 5"
    driver.run_until_idle()
    assert told(driver.put(STOPPED)) == "stopping gen 8"
    driver.run_until_idle()
    assert driver.published()[2:] == [
        "rebooting gen 6",
        "running gen 7",
        "stopping gen 9",
        "stopping gen 10",
        "destroyed gen 11",
    ]


def test_points_without_duration_are_seen_as_one():
    """A slow monitor client sees the last publication of an instant only (PR 3.7)."""
    driver = RackDriver(pacer=ScriptedPacer(0))
    driver.register()
    driver.put(RUNNING)
    driver.put(STOPPED)
    assert driver.published() == ["running gen 3", "destroyed gen 5"]


def test_the_answer_comes_before_what_it_causes():
    """Nexus must learn the answer's generation before the publications that follow it."""
    driver = RackDriver(pacer=ScriptedPacer(0))
    driver.register()
    effects = driver.do(contract.PutState(99, SLED_A, V1, RUNNING))
    assert [type(effect) for effect in effects] == [contract.Reply, contract.PutToNexus]
    assert effects[0].value == UpdatedRuntime(SledVmmState(registration().vmm_runtime))


def test_a_request_that_is_no_news_publishes_nothing():
    driver = RackDriver()
    driver.running()
    before = snapshot(driver.vmm())
    driver.put(RUNNING)
    assert driver.posts == []
    after = snapshot(driver.vmm())
    assert before.pop("asked") != after.pop("asked"), "but it is remembered for `why`"
    assert before == after


def test_stop_before_start_is_told_to_nexus_and_forgotten():
    driver = RackDriver(acks=False)
    driver.register()
    assert told(driver.put(STOPPED)) == "destroyed gen 3"
    assert driver.published() == ["destroyed gen 3"]
    assert told(driver.get()) == "destroyed gen 3"
    driver.nexus_answers(ACK)
    assert isinstance(refused(driver.get), errors.NoSuchVmm)


def test_stop_while_starting():
    """Backends that are slow: the stop aborts the start, Running is never seen (PR 3.2)."""
    driver = RackDriver(pacer=ScriptedPacer(1_000, {Point.BACKENDS: Pace(10 * SECOND)}))
    driver.register()
    driver.put(RUNNING)
    driver.wait(SECOND)
    assert told(driver.put(STOPPED)) == "stopping gen 4"
    driver.run_until_idle()
    assert driver.published() == ["starting gen 3", "stopping gen 5", "destroyed gen 6"]


@in_one_test("point", [Point.CREATE, Point.DEVICES, Point.BACKENDS])
@in_one_test("after_us", [0, 5_000])
def test_a_start_that_fails_is_published_and_forgotten(point, after_us):
    driver = RackDriver(pacer=ScriptedPacer(1_000, {point: Pace(after_us, fail=True)}))
    driver.register()
    assert told(driver.put(RUNNING)) == "starting gen 2"
    driver.run_until_idle()
    assert driver.published()[-1].startswith("failed gen ")
    assert V1 not in driver.sled().vmms


def test_a_reboot_that_propolis_denies_changes_nothing():
    driver = RackDriver()
    driver.register()
    driver.put(RUNNING)
    error = _refused_untouched(driver, driver.put, REBOOT)
    assert isinstance(error, errors.PropolisRefused)


@in_one_test(
    ("before", "requested", "kind"),
    [
        pytest.param([], REBOOT, errors.InvalidRequest, id="reboot before start"),
        pytest.param([RUNNING], target("[::1]:1"), errors.InvalidRequest, id="migrate in, registered to start"),
        pytest.param([RUNNING, STOPPED], RUNNING, errors.InvalidRequest, id="start while stopping"),
        pytest.param([RUNNING, STOPPED], REBOOT, errors.InvalidRequest, id="reboot while stopping"),
        pytest.param([STOPPED], RUNNING, errors.VmmTerminating, id="start once destroyed"),
        pytest.param([STOPPED], REBOOT, errors.VmmTerminating, id="reboot once destroyed"),
        pytest.param([STOPPED], target("[::1]:1"), errors.VmmTerminating, id="migrate in once destroyed"),
    ],
)
@in_one_test("mode", SimMode)
def test_a_refused_request_leaves_the_whole_rack_as_it_was(mode, before, requested, kind):
    driver = RackDriver(mode, acks=False)
    driver.register(V2)
    driver.register()
    for each in before:
        driver.put(each)
    assert type(_refused_untouched(driver, driver.put, requested)) is kind


def test_410_while_terminating_and_404_only_after_the_acknowledgement():
    driver = RackDriver(acks=False)
    driver.register()
    driver.put(STOPPED)
    assert type(refused(driver.put, RUNNING)) is errors.VmmTerminating
    assert type(refused(driver.migrate_out)) is errors.InvalidRequest
    assert told(driver.put(STOPPED)) == "destroyed gen 3"
    assert told(driver.register()) == "destroyed gen 3"
    driver.nexus_answers(ACK)
    assert type(refused(driver.put, STOPPED)) is errors.NoSuchVmm
