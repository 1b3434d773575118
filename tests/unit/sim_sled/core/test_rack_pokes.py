"""rack.py: pokes (SA 2.8 to 2.10): steps, drains, waiting for Nexus, and when it is down."""

import pytest
from support.rack.driving import (
    ACK,
    DOWN,
    FOR_EVER,
    GONE,
    LATER,
    M1,
    REBOOT,
    RUNNING,
    SECOND,
    STOPPED,
    V1,
    V2,
    RackDriver,
    ScriptedPacer,
    contract,
    refused,
    snapshot,
    target,
)
from support.rows import in_one_test

from nexus_client.types import VmmState
from propolis_stub.waiting import Point
from sim_sled.core import rack
from sim_sled.core.config import POKES_WAITING_MAX, SimMode
from sim_sled.core.errors import ChannelFull, NexusUnreachable, NoSuchVmm
from sim_sled.core.why import told

EXPLICIT = SimMode.EXPLICIT
IN = target("[fd00::99]:12400")


def _driver(**options):
    return RackDriver(EXPLICIT, **({"pacer": ScriptedPacer(0)} | options))


def _steps(driver, propolis_id=V1):
    """Single steps until one changes nothing; what was published by each."""
    told_now = []
    for _ in range(50):
        before = driver.vmm(propolis_id).record if propolis_id in driver.sled().vmms else None
        if before is None:
            return told_now
        driver.step(propolis_id)
        told_now.append(driver.published(propolis_id)[-1])
        if driver.posts[-1].body is before:
            return told_now[:-1]
    raise AssertionError("no end of steps")


# --- the traces of SA 2.7 ----------------------------------------------------------------------------


@in_one_test(
    ("prepare", "requested", "answer", "steps"),
    [
        pytest.param([], RUNNING, "starting gen 2", ["running gen 3"], id="start"),
        pytest.param(
            [RUNNING, "poke"],
            STOPPED,
            "stopping gen 4",
            ["stopping gen 5", "stopping gen 6", "destroyed gen 7"],
            id="stop of running",
        ),
        pytest.param(
            [RUNNING, "poke"],
            REBOOT,
            "rebooting gen 4",
            ["rebooting gen 5", "running gen 6"],
            id="reboot of running",
        ),
        pytest.param(
            [RUNNING],
            STOPPED,
            "stopping gen 3",
            ["running gen 4", "stopping gen 5", "stopping gen 6", "destroyed gen 7"],
            id="start, then stop before the start was executed",
        ),
        pytest.param(
            [RUNNING, "poke", REBOOT],
            STOPPED,
            "stopping gen 5",
            ["rebooting gen 6", "running gen 7", "stopping gen 8", "stopping gen 9", "destroyed gen 10"],
            id="reboot, then stop before it was executed",
        ),
    ],
)
@in_one_test("drain", [True, False])
def test_one_step_per_item_and_one_notification_per_step(drain, prepare, requested, answer, steps):
    driver = _driver()
    driver.register()
    for each in prepare:
        driver.poke() if each == "poke" else driver.put(each)
    assert told(driver.put(requested)) == answer
    driver.posts.clear()
    if drain:
        assert driver.poke() is None
        assert driver.published() == steps
    else:
        assert _steps(driver) == steps


@pytest.mark.parametrize("drain", [True, False])
def test_a_poke_of_a_vmm_at_rest_tells_nexus_once_and_changes_nothing(drain):
    driver = _driver()
    driver.running()
    before = snapshot(driver.vmm())
    (driver.poke if drain else driver.step)()
    assert driver.published() == ["running gen 3"]
    assert snapshot(driver.vmm()) == before


def test_nothing_moves_in_explicit_mode_without_a_poke():
    driver = _driver()
    driver.register()
    driver.put(RUNNING)
    driver.run_until_idle()
    assert told(driver.get()) == "starting gen 2"
    assert driver.posts == []


def test_a_poke_hurries_what_auto_mode_would_do_later():
    driver = RackDriver(SimMode.AUTO)
    driver.register()
    driver.put(RUNNING)
    driver.poke()
    assert driver.vmm().state is VmmState.RUNNING
    published = list(driver.published())
    driver.run_until_idle()
    assert driver.published() == published, "a stale timer does nothing"


def test_a_poke_steps_over_the_wake_of_a_new_target():
    """Auto: the agent has not looked yet; the poke makes it look (one step), then goes on."""
    driver = RackDriver(SimMode.AUTO)
    driver.register(V1, VmmState.MIGRATING, migration_id=M1)
    driver.put(IN)
    driver.step()
    assert driver.published() == ["migrating gen 3 in=in_progress/2"]
    driver.poke()
    assert driver.vmm().state is VmmState.RUNNING
    told_so_far = driver.published()
    assert told_so_far[1].startswith("migrating gen 4 in=in_progress/2")
    driver.run_until_idle()
    assert driver.published() == told_so_far


def test_a_drain_stops_at_what_lasts_for_ever():
    driver = _driver(pacer=ScriptedPacer(0, {Point.BACKENDS: FOR_EVER}))
    driver.register()
    driver.put(RUNNING)
    assert driver.poke() is None
    assert driver.published() == ["starting gen 3"]


def test_a_drain_without_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(rack, "DRAIN_STEPS_MAX", 3)
    driver = _driver()
    driver.running()
    driver.put(REBOOT)
    driver.put(STOPPED)
    assert driver.poke() is None
    assert len(driver.posts) == 3


# --- waiting for Nexus ----------------------------------------------------------------------------------------------


def test_a_poke_answers_after_the_acknowledgement():
    driver = _driver(acks=False)
    driver.register()
    driver.put(RUNNING)
    ticket = driver.ticket + 1
    assert driver.poke() is LATER
    assert driver.published() == ["running gen 3"]
    driver.nexus_answers(ACK)
    assert driver.answer(ticket) is None


def test_a_drain_goes_on_after_each_acknowledgement():
    driver = _driver(acks=False)
    driver.register()
    driver.put(RUNNING)
    driver.put(STOPPED)
    ticket = driver.ticket + 1
    driver.poke()
    for published in ("running gen 4", "stopping gen 5", "stopping gen 6", "destroyed gen 7"):
        assert driver.answer(ticket) is LATER
        assert driver.published()[-1] == published
        driver.nexus_answers(ACK)
    assert driver.answer(ticket) is None
    assert V1 not in driver.sled().vmms


def test_a_refusal_of_nexus_lets_the_drain_go_on():
    """Nothing is gained by stopping: the next state is another matter (NX 7 #25)."""
    driver = _driver(acks=False)
    driver.register()
    driver.put(RUNNING)
    driver.put(STOPPED)
    ticket = driver.ticket + 1
    driver.poke()
    for _ in range(4):
        driver.nexus_answers(GONE)
    assert driver.answer(ticket) is None
    assert V1 not in driver.sled().vmms


def test_a_poke_waits_for_its_own_publication_not_for_an_older_one():
    driver = _driver(acks=False)
    driver.register()
    driver.put(RUNNING)
    driver.inject(VmmState.REBOOTING, illegal=True)  # something that is still on its way to Nexus
    driver.step()
    assert driver.published() == ["rebooting gen 3"]
    driver.nexus_answers(ACK)
    assert driver.answer(driver.ticket) is LATER
    assert driver.published() == ["rebooting gen 3", "running gen 4"]
    driver.nexus_answers(ACK)
    assert driver.answer(driver.ticket) is None


def test_pokes_of_one_vmm_come_one_after_the_other():
    driver = _driver(acks=False)
    driver.register()
    driver.put(RUNNING)
    driver.put(STOPPED)
    tickets = []
    for _ in range(3):
        driver.step()
        tickets.append(driver.ticket)
    assert driver.published() == ["running gen 4"]
    for number, published in enumerate(("stopping gen 5", "stopping gen 6")):
        driver.nexus_answers(ACK)
        assert driver.answer(tickets[number]) is None
        assert driver.published()[-1] == published
    driver.nexus_answers(ACK)
    assert driver.answer(tickets[2]) is None


def test_pokes_of_different_vmms_do_not_wait_for_each_other():
    driver = _driver(acks=False)
    for propolis_id in (V1, V2):
        driver.register(propolis_id)
        driver.put(RUNNING, propolis_id)
    driver.poke(V1)
    driver.poke(V2)
    ticket = driver.ticket
    driver.nexus_answers(ACK, V2)
    assert driver.answer(ticket) is None


def test_the_channel_takes_as_many_as_the_real_agents():
    driver = _driver(acks=False)
    driver.register()
    driver.put(RUNNING)
    tickets = []
    for _ in range(1 + POKES_WAITING_MAX):
        assert driver.step() is LATER
        tickets.append(driver.ticket)
    before = snapshot(driver.rack)
    assert isinstance(refused(driver.step), ChannelFull)
    assert isinstance(refused(driver.poke), ChannelFull)
    assert snapshot(driver.rack) == before
    assert driver.put(STOPPED), "requests are not pokes"
    while driver.flying:
        driver.nexus_answers(ACK)
    # four steps to the end of the VMM; who still waited then finds it lost
    answers = [driver.answers[ticket] for ticket in tickets]
    assert [type(each) for each in answers] == [contract.Reply] * 4 + [contract.ReplyError] * (len(tickets) - 4)


# --- Nexus is down --------------------------------------------------------------------------------------------------


def test_a_poke_gives_up_after_a_while_and_the_state_is_delivered_all_the_same():
    driver = _driver(acks=False, config={"poke_timeout_us": 15 * SECOND})
    driver.register()
    driver.put(RUNNING)
    ticket = driver.ticket + 1
    driver.poke()
    asked_us = driver.now_us
    while ticket not in driver.answers:
        if driver.flying:
            driver.nexus_answers(DOWN)
        driver.now_us = max(driver.now_us, driver.rack.next_deadline_us())
        driver.do(contract.Tick())
    assert driver.now_us == asked_us + 15 * SECOND
    with pytest.raises(NexusUnreachable):
        driver.answer(ticket)
    assert told(driver.get()) == "running gen 3", "the step stays done"
    while not driver.flying:
        driver.now_us = driver.rack.next_deadline_us()
        driver.do(contract.Tick())
    driver.nexus_answers(ACK)
    assert told(driver.vmm().acked) == "running gen 3"
    assert driver.rack.next_deadline_us() is None


def test_a_nexus_that_hangs_is_a_nexus_that_is_down():
    driver = _driver(acks=False)
    driver.register()
    driver.put(RUNNING)
    driver.step()
    first = driver.ticket
    driver.step()
    driver.wait(15 * SECOND)
    for ticket in (first, driver.ticket):
        with pytest.raises(NexusUnreachable):
            driver.answer(ticket)
    assert told(driver.get()) == "running gen 3"
    driver.acks = True
    driver.nexus_answers(ACK)
    driver.put(STOPPED)
    assert driver.poke() is None, "the next poke is as good as any"
    assert V1 not in driver.sled().vmms


def test_a_drain_that_gave_up_does_not_go_on_by_itself():
    driver = _driver(acks=False)
    driver.register()
    driver.put(RUNNING)
    driver.put(STOPPED)
    driver.poke()
    driver.wait(15 * SECOND)
    driver.nexus_answers(ACK)
    assert driver.published() == ["running gen 4"]
    assert told(driver.get()) == "running gen 4"


# --- a VMM that ends meanwhile --------------------------------------------------------------------------------------


def test_a_vmm_deleted_under_a_poke_is_lost_to_all_who_wait():
    driver = _driver(acks=False)
    driver.register()
    driver.put(RUNNING)
    driver.poke()
    first = driver.ticket
    driver.poke()
    second = driver.ticket
    driver.unregister()
    for ticket in (first, second):
        with pytest.raises(NoSuchVmm):
            driver.answer(ticket)
    assert driver.rack.next_deadline_us() is None


def test_a_poke_of_a_terminal_vmm_repeats_its_end_until_it_is_heard():
    driver = _driver(acks=False)
    driver.register()
    driver.put(STOPPED)
    driver.poke()
    ticket = driver.ticket
    driver.nexus_answers(ACK)
    assert driver.answer(ticket) is None
    assert V1 not in driver.sled().vmms
    assert driver.published() == ["destroyed gen 3"], "what was forgotten is not sent again"
    assert not driver.flying


def test_what_waits_behind_a_forgotten_vmm_is_not_sent():
    """A poke during the last delivery queues the same end behind it; the acknowledgement settles both."""
    driver = _driver(acks=False)
    driver.register()
    driver.put(STOPPED)
    driver.poke()
    driver.poke()
    effects = driver.nexus_answers(ACK)
    assert not any(isinstance(effect, contract.PutToNexus) for effect in effects)
    assert len(driver.sled().outbox) == 0
    assert [driver.answers[ticket].__class__ for ticket in (driver.ticket - 1, driver.ticket)] == [
        contract.Reply,
        contract.ReplyError,
    ]


def test_a_poke_of_an_unknown_vmm_is_refused():
    driver = _driver()
    assert isinstance(refused(driver.poke), NoSuchVmm)
    assert isinstance(refused(driver.step), NoSuchVmm)
