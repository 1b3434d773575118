"""rack.py: the doors of the core, one by one: what is answered, what is published, what is kept and what is not."""

import typing

import attrs
import pytest
from driving import (
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
    edge,
    instance_of,
    refused,
    registration,
    snapshot,
    target,
)

from nexus_client.outbox import Permanent
from nexus_client.registration import Decommissioned, Found, GetSledAgent, NotFound, PostSledAgent, Registered
from nexus_client.types import SledVmmState, UpdatedRuntime, VmmState
from propolis_stub.edge import EnsureSpec, GuestEvent, Published, Reconfigure, ReconfigureDone, Request
from propolis_stub.errors import RepairingRejected
from propolis_stub.timing import Pace, Point
from propolis_stub.types import InstanceState, RequestKind
from sim_sled import errors, rack
from sim_sled.config import SimMode, SledConfig
from sim_sled.history import told
from sim_sled.rack import Rack

EXPLICIT = SimMode.EXPLICIT


def _refused_untouched(driver, call, *args, **named):
    """The refusal; the whole rack is as it was (house.md 3.13) and nothing came out of it."""
    before, posts = snapshot(driver.rack), list(driver.posts)
    error = refused(call, *args, **named)
    assert snapshot(driver.rack) == before
    assert driver.posts == posts
    return error


# --- the edge --------------------------------------------------------------------------------------------------------


def test_every_input_has_a_door():
    assert set(rack._DOORS) == set(typing.get_args(edge.Input))


def test_two_sleds_cannot_share_an_id():
    both = Rack()
    both.add_sled(SledConfig(SLED_A))
    with pytest.raises(ValueError, match="two sleds with the id"):
        both.add_sled(SledConfig(SLED_A))


def test_an_empty_rack_waits_for_nothing():
    driver = RackDriver()
    assert driver.rack.next_deadline_us() is None
    assert driver.do(edge.Tick()) == []


# --- register --------------------------------------------------------------------------------------------------------


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


# --- get, unregister -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["get", "poke", "step", "migrate_out", "forget"])
def test_an_unknown_vmm_is_lost(verb):
    driver = RackDriver()
    error = _refused_untouched(driver, getattr(driver, verb), propolis_id=V1)
    assert isinstance(error, errors.NoSuchVmm)


@pytest.mark.parametrize("requested", [RUNNING, STOPPED, REBOOT, target("[::1]:1")])
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


@pytest.mark.parametrize("phase", ["registered", "starting", "running", "stopping", "retrying"])
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
    driver.turn(edge.NexusReplied(SLED_A, V1, old.serial, DOWN))
    assert driver.vmm().acked is None, "the answer to the old one is not the answer to the new one"
    driver.nexus_answers(ACK)
    assert told(driver.vmm().acked) == "running gen 3"


# --- put state: auto mode --------------------------------------------------------------------------------------------


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
    """A slow monitor client sees the last publication of an instant only (propolis.md 3.7)."""
    driver = RackDriver(pacer=ScriptedPacer(0))
    driver.register()
    driver.put(RUNNING)
    driver.put(STOPPED)
    assert driver.published() == ["running gen 3", "destroyed gen 5"]


def test_the_answer_comes_before_what_it_causes():
    """Nexus must learn the answer's generation before the publications that follow it."""
    driver = RackDriver(pacer=ScriptedPacer(0))
    driver.register()
    effects = driver.do(edge.PutState(99, SLED_A, V1, RUNNING))
    assert [type(effect) for effect in effects] == [edge.Reply, edge.PutToNexus]
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
    """Backends that are slow: the stop aborts the start, Running is never seen (propolis.md 3.2)."""
    driver = RackDriver(pacer=ScriptedPacer(1_000, {Point.BACKENDS: Pace(10 * SECOND)}))
    driver.register()
    driver.put(RUNNING)
    driver.wait(SECOND)
    assert told(driver.put(STOPPED)) == "stopping gen 4"
    driver.run_until_idle()
    assert driver.published() == ["starting gen 3", "stopping gen 5", "destroyed gen 6"]


@pytest.mark.parametrize("point", [Point.CREATE, Point.DEVICES, Point.BACKENDS])
@pytest.mark.parametrize("after_us", [0, 5_000])
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


@pytest.mark.parametrize(
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
@pytest.mark.parametrize("mode", SimMode)
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


# --- what Nexus answers ----------------------------------------------------------------------------------------------


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
    driver.do(edge.HurryOutbox(SLED_B))
    assert not driver.flying
    driver.do(edge.HurryOutbox(SLED_A))
    assert [told(post.body) for post in driver.flying] == ["running gen 3"]
    assert driver.rack.next_deadline_us() is None


# --- stop grace ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stuck",
    [
        pytest.param({Point.HALT: FOR_EVER}, id="the halt never ends"),
        pytest.param({Point.RUNDOWN: FOR_EVER}, id="the rundown never ends"),
        pytest.param({Point.REBOOT: FOR_EVER}, id="a reboot before it never ends"),
    ],
)
def test_a_stop_that_takes_too_long_is_ended_by_the_agent(stuck):
    driver = RackDriver(pacer=ScriptedPacer(0, stuck), config={"stop_grace_us": 30 * SECOND})
    driver.register()
    driver.put(RUNNING)
    if Point.REBOOT in stuck:
        driver.put(REBOOT)
    driver.put(STOPPED)
    driver.wait(30 * SECOND - 1)
    assert told(driver.get()).startswith("stopping") or Point.REBOOT in stuck
    assert V1 in driver.sled().vmms
    driver.wait(1)
    assert driver.published()[-1].startswith("destroyed")
    assert V1 not in driver.sled().vmms
    assert driver.rack.next_deadline_us() is None


def test_a_stop_in_the_last_moment_is_in_time():
    """What Propolis does at the very moment counts before the grace period does: one end, told once."""
    pacer = ScriptedPacer(0, {Point.HALT: Pace(30 * SECOND)})
    driver = RackDriver(pacer=pacer, config={"stop_grace_us": 30 * SECOND})
    driver.register()
    driver.put(RUNNING)
    driver.put(STOPPED)
    driver.run_until_idle()
    assert [text for text in driver.published() if text.startswith("destroyed")] == ["destroyed gen 6"]


def test_the_grace_of_a_vmm_that_is_gone_ends_nothing():
    driver = RackDriver(pacer=ScriptedPacer(0, {Point.HALT: FOR_EVER}))
    driver.register()
    driver.put(RUNNING)
    driver.put(STOPPED)
    driver.unregister()
    driver.register()
    driver.wait(700 * SECOND)
    assert told(driver.get()) == "starting gen 2"


def test_the_grace_ends_a_vmm_whose_propolis_died_while_it_stopped():
    driver = RackDriver(pacer=ScriptedPacer(0, {Point.HALT: FOR_EVER}))
    driver.register()
    driver.put(RUNNING)
    driver.put(STOPPED)
    driver.kill(restart=False)
    driver.run_until_idle()
    assert driver.published()[-1] == "destroyed gen 6"
    assert V1 not in driver.sled().vmms


def test_the_grace_ends_a_target_that_was_stopped_before_it_was_looked_at():
    """A pace of "for ever" in the agent itself once left a deadline in the past that nothing could serve."""
    driver = RackDriver(pacer=ScriptedPacer(0, {Point.WAKE: FOR_EVER}))
    driver.register(V1, VmmState.MIGRATING, migration_id=M1)
    driver.put(target("[fd00::99]:1"))
    driver.put(STOPPED)
    driver.run_until_idle()
    assert V1 not in driver.sled().vmms


# --- faults on demand ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [VmmState.FAILED, VmmState.DESTROYED])
@pytest.mark.parametrize("mode", SimMode)
def test_a_sled_may_force_a_vmm_to_its_end(mode, state):
    driver = RackDriver(mode, acks=False)
    driver.register()
    driver.put(RUNNING)
    record = driver.inject(state)
    assert told(record) == f"{state.value} gen 3"
    assert driver.vmm().vm is None
    assert driver.published() == [f"{state.value} gen 3"]
    driver.nexus_answers(ACK)
    assert V1 not in driver.sled().vmms


@pytest.mark.parametrize("state", [each for each in VmmState if each.value not in {"failed", "destroyed"}])
def test_what_no_sled_may_force_needs_a_word(state):
    driver = RackDriver()
    driver.running()
    error = _refused_untouched(driver, driver.inject, state)
    assert error.message == f"a sled cannot force running to {state.value}"
    assert driver.inject(state, illegal=True).vmm_state.state is state
    assert driver.published()[-1] == f"{state.value} gen 5"
    assert V1 in driver.sled().vmms


def test_nothing_is_forced_on_a_terminal_vmm_without_that_word():
    driver = RackDriver(acks=False)
    driver.register()
    driver.put(STOPPED)
    _refused_untouched(driver, driver.inject, VmmState.FAILED)
    assert told(driver.inject(VmmState.RUNNING, illegal=True)) == "running gen 4"


@pytest.mark.parametrize("state", VmmState)
@pytest.mark.parametrize("requested", [RUNNING, STOPPED, REBOOT, target("[fd00::99]:1")])
@pytest.mark.parametrize("started", [True, False])
def test_after_an_illegal_state_any_request_is_answered_or_refused(state, requested, started):
    """No input ends the process: not even a request to a VMM that somebody has bent."""
    driver = RackDriver(acks=False)
    driver.register(V1, VmmState.MIGRATING if not started else VmmState.STARTING, migration_id=M1)
    if started:
        driver.put(RUNNING)
    driver.inject(state, illegal=True)
    try:
        driver.put(requested)
    except errors.SledError:
        pass
    driver.acks = True
    driver.run_until_idle()
    driver.unregister()
    assert driver.rack.next_deadline_us() is None


def test_a_propolis_that_is_restarted_fails_its_vmm():
    driver = RackDriver()
    driver.running()
    driver.kill(restart=True)
    assert driver.published() == ["failed gen 5"]
    assert V1 not in driver.sled().vmms


def test_a_propolis_that_stays_dead_is_only_silent():
    driver = RackDriver()
    driver.running()
    driver.kill(restart=False)
    driver.run_until_idle()
    assert driver.posts == []
    assert told(driver.get()) == "running gen 4"
    assert type(_refused_untouched(driver, driver.put, STOPPED)) is errors.Internal
    assert told(driver.put(RUNNING)) == "running gen 4"
    assert told(driver.unregister()) == "failed gen 5"


@pytest.mark.parametrize("restart", [True, False])
def test_only_a_propolis_can_be_killed(restart):
    driver = RackDriver(acks=False)
    driver.register()
    assert type(_refused_untouched(driver, driver.kill, restart=restart)) is errors.InvalidRequest
    driver.put(STOPPED)
    assert type(_refused_untouched(driver, driver.kill, restart=restart)) is errors.InvalidRequest


def test_a_forgotten_vmm_is_lost_without_a_word():
    driver = RackDriver(acks=False)
    driver.register()
    driver.put(RUNNING)
    driver.wait(SECOND)
    driver.forget()
    assert isinstance(refused(driver.get), errors.NoSuchVmm)
    assert len(driver.published()) == 1
    driver.nexus_answers(DOWN)
    driver.run_until_idle()
    assert len(driver.published()) == 1


@pytest.mark.parametrize(
    ("event", "after"),
    [
        (GuestEvent.HALT, ["stopping gen 5", "stopping gen 6", "destroyed gen 7"]),
        (GuestEvent.CHIPSET_HALT, ["stopping gen 5", "stopping gen 6", "destroyed gen 7"]),
        (GuestEvent.RESET, ["rebooting gen 5", "running gen 6"]),
        (GuestEvent.CHIPSET_RESET, ["rebooting gen 5", "running gen 6"]),
        (GuestEvent.TRIPLE_FAULT, ["rebooting gen 5", "running gen 6"]),
    ],
)
def test_what_the_guest_does_is_published(event, after):
    driver = RackDriver()
    driver.running()
    driver.guest(event)
    driver.run_until_idle()
    assert driver.published() == after


@pytest.mark.parametrize("prepare", [[], [RUNNING], [STOPPED]])
def test_a_guest_that_does_not_run_does_nothing(prepare):
    driver = RackDriver(acks=False)
    driver.register()
    for each in prepare:
        driver.put(each)
    error = _refused_untouched(driver, driver.guest, GuestEvent.RESET)
    assert isinstance(error, errors.InvalidRequest)


# --- the Propolis API of a VMM ---------------------------------------------------------------------------------------


def _propolis(driver, item):
    return driver.ask(edge.PropolisInput, SLED_A, V1, item)


def test_an_input_of_the_propolis_api_is_answered_with_its_effects():
    driver = RackDriver()
    driver.running()
    done = _propolis(driver, Request(RequestKind.STOP))
    assert done
    driver.run_until_idle()
    assert driver.published() == ["stopping gen 5", "stopping gen 6", "destroyed gen 7"]


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        pytest.param(EnsureSpec(), errors.InvalidRequest, id="a second ensure"),
        pytest.param(Request(RequestKind.REBOOT), errors.PropolisRefused, id="what the queue denies"),
    ],
)
def test_what_propolis_refuses_is_a_refusal_of_the_sled(item, kind):
    driver = RackDriver()
    driver.register()
    driver.put(RUNNING)
    assert type(_refused_untouched(driver, _propolis, driver, item)) is kind


def test_a_queue_of_components_that_is_full_is_a_full_channel():
    driver = RackDriver(EXPLICIT)
    driver.running()
    for ticket in range(4_096):
        _propolis(driver, Reconfigure(ticket))
    before = snapshot(driver.rack)
    error = refused(_propolis, driver, Reconfigure(9_999))
    assert isinstance(error, errors.ChannelFull)
    assert snapshot(driver.rack) == before


def test_repairing_keeps_its_name_in_every_layer():
    driver = RackDriver()
    driver.running()
    before = snapshot(driver.rack)
    with pytest.raises(RepairingRejected):
        _propolis(driver, Request(InstanceState.REPAIRING))
    assert snapshot(driver.rack) == before


def test_without_a_propolis_there_is_no_propolis_api():
    driver = RackDriver()
    driver.register()
    assert type(_refused_untouched(driver, _propolis, driver, Request(RequestKind.RUN))) is errors.InvalidRequest


def test_an_exposed_rack_shows_what_its_vms_say():
    driver = RackDriver(expose=True)
    driver.running()
    driver.others.clear()
    _propolis(driver, Reconfigure(7, "disk"))
    driver.run_until_idle()
    said = [effect.effect for effect in driver.others if isinstance(effect, edge.FromPropolis)]
    assert any(isinstance(each, ReconfigureDone) and each.ticket == 7 for each in said)
    driver.put(STOPPED)
    driver.run_until_idle()
    assert any(isinstance(effect.effect, Published) for effect in driver.others)


# --- registration with Nexus -----------------------------------------------------------------------------------------


def test_a_sled_makes_itself_known_and_tells_changes():
    driver = RackDriver()
    info = driver.sled().info("[::1]:1", 1)
    driver.do(edge.Announce(SLED_A, info))
    [ask] = driver.others
    assert ask == edge.AskNexus(SLED_A, GetSledAgent(SLED_A))
    driver.do(edge.RegistrationReplied(SLED_A, edge.GetReplied(NotFound())))
    post = driver.others[-1].call
    assert isinstance(post, PostSledAgent)
    assert post.info.generation == 1
    driver.do(edge.RegistrationReplied(SLED_A, edge.PostReplied(ACK)))
    assert driver.others[-1] == edge.RegistrationNews(SLED_A, Registered(1))
    driver.do(edge.Announce(SLED_A, driver.sled().info("[::1]:2", 1)))
    assert driver.others[-1].call.info.generation == 2


def test_a_registration_that_fails_for_now_is_tried_again():
    driver = RackDriver()
    driver.do(edge.Announce(SLED_A, driver.sled().info("[::1]:1", 1)))
    driver.do(edge.RegistrationReplied(SLED_A, edge.GetReplied(DOWN)))
    assert T0 < driver.rack.next_deadline_us() < T0 + 2 * SECOND
    driver.run_until_idle()
    assert [type(effect.call) for effect in driver.others] == [GetSledAgent, GetSledAgent]


def test_a_decommissioned_sled_says_so_and_stays_silent():
    driver = RackDriver()
    info = driver.sled().info("[::1]:1", 1)
    driver.do(edge.Announce(SLED_A, info))
    gone = Found(attrs.evolve(info, decommissioned=True))
    driver.do(edge.RegistrationReplied(SLED_A, edge.GetReplied(gone)))
    assert driver.others[-1] == edge.RegistrationNews(SLED_A, Decommissioned())
    assert driver.rack.next_deadline_us() is None


# --- time ------------------------------------------------------------------------------------------------------------


def test_one_tick_serves_a_limited_number_so_that_io_gets_its_turn(monkeypatch):
    monkeypatch.setattr(rack, "TICKS_MAX", 2)
    driver = RackDriver()
    for propolis_id in (V1, V2, V3):
        driver.register(propolis_id)
        driver.put(RUNNING, propolis_id)
    driver.now_us += SECOND
    driver.do(edge.Tick())
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
    left = snapshot(driver.rack)
    for what in (empty, left):
        what["_scheduler"] = None  # counts on
        for sled in what["sleds"].values():
            sled["outbox"].pop("_serial")
    assert left == empty
    assert driver.rack._scheduler._heap == []


def test_failing_points_are_seen_by_nobody_else():
    driver = RackDriver(pacer=ScriptedPacer(1_000, {(V1, Point.BACKENDS): FAILS}))
    for propolis_id in (V1, V2):
        driver.register(propolis_id)
        driver.put(RUNNING, propolis_id)
    driver.run_until_idle()
    assert driver.published(V1)[-1] == "failed gen 4"
    assert driver.published(V2)[-1] == "running gen 4"
