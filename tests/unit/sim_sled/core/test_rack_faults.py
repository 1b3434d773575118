"""rack.py: faults on demand, the stop grace, and the Propolis API of a VMM: answered, refused, never an accident."""

import contextlib

import pytest
from support.rack.driving import (
    ACK,
    DOWN,
    FOR_EVER,
    M1,
    REBOOT,
    RUNNING,
    SECOND,
    SLED_A,
    STOPPED,
    V1,
    RackDriver,
    ScriptedPacer,
    contract,
    refused,
    snapshot,
    target,
)
from support.rows import in_one_test

from nexus_client.types import VmmState
from propolis_stub.contract import EnsureSpec, GuestEvent, Published, Reconfigure, ReconfigureDone, Request
from propolis_stub.errors import RepairingRejected
from propolis_stub.types import InstanceState, RequestKind
from propolis_stub.waiting import Pace, Point
from sim_sled.core import errors
from sim_sled.core.config import SimMode
from sim_sled.core.why import told

EXPLICIT = SimMode.EXPLICIT


def _refused_untouched(driver, call, *args, **named):
    """The refusal; the whole rack is as it was (house.md 3.13) and nothing came out of it."""
    before, posts = snapshot(driver.rack), list(driver.posts)
    error = refused(call, *args, **named)
    assert snapshot(driver.rack) == before
    assert driver.posts == posts
    return error


# --- stop grace -----------------------------------------------------------------------------------------------------


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


# --- faults on demand -----------------------------------------------------------------------------------------------


@in_one_test("state", [VmmState.FAILED, VmmState.DESTROYED])
@in_one_test("mode", SimMode)
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


@in_one_test("state", [each for each in VmmState if each.value not in {"failed", "destroyed"}])
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


@in_one_test("state", VmmState)
@in_one_test("requested", [RUNNING, STOPPED, REBOOT, target("[fd00::99]:1")])
@in_one_test("started", [True, False])
def test_after_an_illegal_state_any_request_is_answered_or_refused(state, requested, started):
    """No input ends the process: not even a request to a VMM that somebody has bent."""
    driver = RackDriver(acks=False)
    driver.register(V1, VmmState.MIGRATING if not started else VmmState.STARTING, migration_id=M1)
    if started:
        driver.put(RUNNING)
    driver.inject(state, illegal=True)
    with contextlib.suppress(errors.SledError):
        driver.put(requested)
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
    assert type(_refused_untouched(driver, driver.put, STOPPED)) is errors.PropolisSilent
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


@in_one_test(
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


# --- the Propolis API of a VMM --------------------------------------------------------------------------------------


def _propolis(driver, item):
    return driver.ask(contract.PropolisInput, SLED_A, V1, item)


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
    said = [each for told in driver.others if isinstance(told, contract.FromPropolis) for each in told.effects]
    assert any(isinstance(each, ReconfigureDone) and each.ticket == 7 for each in said)
    driver.put(STOPPED)
    driver.run_until_idle()
    assert any(isinstance(each, Published) for told in driver.others for each in told.effects)


@pytest.mark.parametrize("event", [GuestEvent.RESET, GuestEvent.CHIPSET_RESET, GuestEvent.TRIPLE_FAULT])
def test_a_reboot_that_is_asked_for_while_the_guest_reboots_is_the_same_reboot(event):
    driver = RackDriver()
    driver.running(V1)
    driver.guest(event)
    driver.wait(1_000)
    assert driver.published(V1) == ["rebooting gen 5"]
    for _ in range(3):
        assert told(driver.put(REBOOT)) == "rebooting gen 5"
    driver.run_until_idle()
    assert driver.published(V1) == ["rebooting gen 5", "running gen 6"]
