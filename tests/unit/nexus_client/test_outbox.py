"""outbox.py: who is told what, when, how often (NX 3.2; 7 #23 to #26)."""

from uuid import UUID

import pytest

from nexus_client.backoff import INTERNAL_SERVICE, base_us
from nexus_client.outbox import (
    Delivered,
    Forget,
    Hurry,
    Outbox,
    Pending,
    Permanent,
    Replied,
    Send,
    Settled,
    Submit,
    Tick,
    Transient,
)
from nexus_client.types import SledVmmState, VmmRuntimeState, VmmState, time_of

_VMM = UUID(int=1)
_OTHER = UUID(int=2)
_T0 = 1_700_000_000_000_000
_DOWN = Transient("connection refused")
_REFUSED = Permanent("404: not found", 404)


def _body(gen, state=VmmState.RUNNING):
    return SledVmmState(VmmRuntimeState(state, gen, time_of(_T0)))


def _submit(outbox, gen, who=_VMM, now_us=_T0):
    return outbox.handle(Submit(who, _body(gen)), now_us)


def _reply(outbox, send, outcome, now_us=_T0):
    return outbox.handle(Replied(send.propolis_id, send.serial, outcome), now_us)


@pytest.fixture
def outbox():
    return Outbox()


def test_the_first_state_is_sent_at_once(outbox):
    assert _submit(outbox, 3) == [Send(_VMM, _body(3), attempt=0, serial=1)]
    assert outbox.next_deadline_us() is None


def test_an_acknowledged_state_leaves_nothing_behind(outbox):
    [send] = _submit(outbox, 3)
    assert _reply(outbox, send, Delivered()) == [Settled(_VMM, _body(3), Delivered())]
    assert len(outbox) == 0
    assert list(outbox.pending()) == []


def test_property_23_while_one_is_in_flight_only_the_newest_waits_behind_it(outbox):
    [first] = _submit(outbox, 3)
    assert [_submit(outbox, gen) for gen in (4, 5, 6)] == [[], [], []]
    settled, second = _reply(outbox, first, Delivered())
    assert settled == Settled(_VMM, _body(3), Delivered())
    assert (second.body, second.attempt) == (_body(6), 0)
    assert _reply(outbox, second, Delivered()) == [Settled(_VMM, _body(6), Delivered())]


def test_property_23_a_retry_carries_the_newest_state(outbox):
    [first] = _submit(outbox, 3)
    _submit(outbox, 4)
    assert _reply(outbox, first, _DOWN) == []
    assert _submit(outbox, 5) == [], "a new state must not defeat the backoff"
    due_us = outbox.next_deadline_us()
    assert outbox.handle(Tick(), due_us - 1) == []
    [retry] = outbox.handle(Tick(), due_us)
    assert (retry.body, retry.attempt) == (_body(5), 1)
    # what the retry replaced is never settled
    assert _reply(outbox, retry, Delivered(), due_us) == [Settled(_VMM, _body(5), Delivered())]
    assert len(outbox) == 0


def test_property_24_it_is_tried_until_nexus_is_back(outbox):
    [send] = _submit(outbox, 3)
    now_us = _T0
    for _ in range(200):
        assert _reply(outbox, send, _DOWN, now_us) == []
        now_us = outbox.next_deadline_us()
        [send] = outbox.handle(Tick(), now_us)
    assert send.attempt == 200
    assert _reply(outbox, send, Delivered(), now_us) == [Settled(_VMM, _body(3), Delivered())]


def test_property_25_a_refusal_stops_this_publication_but_not_later_ones(outbox):
    [first] = _submit(outbox, 3)
    _submit(outbox, 4)
    settled, second = _reply(outbox, first, _REFUSED)
    assert settled == Settled(_VMM, _body(3), _REFUSED)
    assert second.body == _body(4)
    assert _reply(outbox, second, _REFUSED) == [Settled(_VMM, _body(4), _REFUSED)]
    assert outbox.next_deadline_us() is None, "a refusal is not retried"
    assert [effect.body for effect in _submit(outbox, 5)] == [_body(5)]


def test_property_26_delays_double_from_a_quarter_second_and_start_again_after_success(outbox):
    [send] = _submit(outbox, 3)
    now_us, waits_us = _T0, []
    for _ in range(14):
        _reply(outbox, send, _DOWN, now_us)
        due_us = outbox.next_deadline_us()
        waits_us.append(due_us - now_us)
        now_us = due_us
        [send] = outbox.handle(Tick(), now_us)
    for attempt, wait_us in enumerate(waits_us):
        base = base_us(INTERNAL_SERVICE, attempt)
        assert 0.5 * base <= wait_us <= 1.5 * base
    _submit(outbox, 4)
    _, fresh = _reply(outbox, send, Delivered(), now_us)
    _reply(outbox, fresh, _DOWN, now_us)
    assert 125_000 <= outbox.next_deadline_us() - now_us <= 375_000


def test_jitter_spreads_vmms_that_failed_together():
    outbox = Outbox(seed=5)
    dues = set()
    for number in range(100):
        [send] = _submit(outbox, 3, UUID(int=number))
        _reply(outbox, send, _DOWN)
        dues.add(outbox.pending_of(UUID(int=number)).due_us)
    assert len(dues) > 90


def test_the_same_seed_gives_the_same_delays_whoever_else_is_there():
    def due_us(seed, others):
        outbox = Outbox(seed=seed)
        for number in range(others):
            [send] = _submit(outbox, 3, UUID(int=100 + number))
            _reply(outbox, send, _DOWN)
        [send] = _submit(outbox, 3)
        _reply(outbox, send, _DOWN)
        return outbox.pending_of(_VMM).due_us

    assert due_us(1, 0) == due_us(1, 7)
    assert due_us(1, 0) != due_us(2, 0)


def test_one_vmms_trouble_does_not_delay_another(outbox):
    [stuck] = _submit(outbox, 3)
    [free] = _submit(outbox, 3, _OTHER)
    _reply(outbox, stuck, _DOWN)
    assert _reply(outbox, free, Delivered()) == [Settled(_OTHER, _body(3), Delivered())]
    assert [effect.body for effect in _submit(outbox, 4, _OTHER)] == [_body(4)]


def test_a_forgotten_vmm_is_neither_sent_nor_heard(outbox):
    [send] = _submit(outbox, 3)
    _submit(outbox, 4)
    assert outbox.handle(Forget(_VMM), _T0) == []
    assert _reply(outbox, send, Delivered()) == []
    assert len(outbox) == 0


def test_a_forgotten_retry_never_comes_due(outbox):
    [send] = _submit(outbox, 3)
    _reply(outbox, send, _DOWN)
    outbox.handle(Forget(_VMM), _T0)
    assert outbox.next_deadline_us() is None
    assert outbox.handle(Tick(), _T0 + 10**12) == []


@pytest.mark.parametrize("late", [Delivered(), _DOWN, _REFUSED], ids=["delivered", "transient", "permanent"])
def test_a_late_answer_is_not_taken_for_one_to_a_new_vmm_with_the_same_id(outbox, late):
    [old] = _submit(outbox, 9)
    outbox.handle(Forget(_VMM), _T0)
    [new] = _submit(outbox, 2)
    assert new.serial != old.serial
    assert _reply(outbox, old, late) == []
    assert outbox.pending_of(_VMM).in_flight
    assert _reply(outbox, new, Delivered()) == [Settled(_VMM, _body(2), Delivered())]


def test_an_old_timer_does_not_fire_for_a_new_vmm_with_the_same_id(outbox):
    [old] = _submit(outbox, 3)
    _reply(outbox, old, _DOWN)
    due_us = outbox.next_deadline_us()
    outbox.handle(Forget(_VMM), _T0)
    _submit(outbox, 3)
    assert outbox.handle(Tick(), due_us) == []


def test_an_answer_that_comes_twice_counts_once(outbox):
    [send] = _submit(outbox, 3)
    _reply(outbox, send, _DOWN)
    due_us = outbox.next_deadline_us()
    assert _reply(outbox, send, Delivered()) == []
    assert outbox.next_deadline_us() == due_us


def test_the_same_state_may_be_told_again(outbox):
    """A poke on an empty queue re-sends (SA 2.10)."""
    [first] = _submit(outbox, 3)
    _submit(outbox, 3)
    settled, again = _reply(outbox, first, Delivered())
    assert settled.body == again.body == _body(3)


def test_a_fallen_generation_is_a_bug_of_the_caller(outbox):
    _submit(outbox, 4)
    with pytest.raises(AssertionError, match="generation fell"):
        _submit(outbox, 3)


def test_hurry_tries_everything_that_waits_at_once(outbox):
    for who in (_VMM, _OTHER):
        [send] = _submit(outbox, 3, who)
        _reply(outbox, send, _DOWN)
    [flying] = _submit(outbox, 3, UUID(int=3))
    retries = outbox.handle(Hurry(), _T0)
    assert {send.propolis_id for send in retries} == {_VMM, _OTHER}
    assert all(send.attempt == 1 for send in retries)
    assert outbox.next_deadline_us() is None
    assert outbox.handle(Tick(), _T0 + 10**12) == [], "what was hurried does not come due a second time"
    assert _reply(outbox, flying, Delivered()) == [Settled(UUID(int=3), _body(3), Delivered())]


def test_pending_says_what_could_not_be_told_and_why(outbox):
    [first] = _submit(outbox, 3)
    _submit(outbox, 3, _OTHER)
    _reply(outbox, first, _DOWN)
    _submit(outbox, 4)
    waiting, flying = outbox.pending()
    assert waiting == Pending(
        _VMM, _body(4), in_flight=False, attempt=1, due_us=outbox.next_deadline_us(), why="connection refused"
    )
    assert flying == Pending(_OTHER, _body(3), in_flight=True, attempt=0, due_us=None, why="")
    assert outbox.pending_of(UUID(int=9)) is None


def test_ticks_come_in_the_order_of_their_dues(outbox):
    sends = [_submit(outbox, 3, UUID(int=number))[0] for number in range(50)]
    for send in sends:
        _reply(outbox, send, _DOWN)
    dues = [pending.due_us for pending in outbox.pending()]
    retried = outbox.handle(Tick(), max(dues))
    order = [send.propolis_id.int for send in retried]
    assert order == sorted(range(50), key=lambda number: dues[number])


def test_memory_is_bounded_while_vmms_come_and_go_during_an_outage(outbox):
    for number in range(5000):
        [send] = _submit(outbox, 3, UUID(int=number))
        _reply(outbox, send, _DOWN)
        outbox.handle(Forget(UUID(int=number)), _T0)
        assert len(outbox._retries) <= 2 * len(outbox) + 65
    assert len(outbox) == 0


def test_memory_is_bounded_however_much_a_vmm_has_to_say_during_an_outage(outbox):
    [send] = _submit(outbox, 3)
    _reply(outbox, send, _DOWN)
    for gen in range(4, 5000):
        assert _submit(outbox, gen) == []
    assert len(outbox) == len(outbox._retries) == 1


def test_hurry_keeps_the_order_in_which_they_would_have_come_due(outbox):
    """OU5: the one that failed first has backed off longer, and is due last."""
    [first] = _submit(outbox, 3)
    for _ in range(6):  # a long series of failures
        _reply(outbox, first, _DOWN)
        [first] = outbox.handle(Tick(), outbox.next_deadline_us())
    _reply(outbox, first, _DOWN, _T0)
    [second] = _submit(outbox, 3, _OTHER)
    _reply(outbox, second, _DOWN, _T0)
    dues = {pending.propolis_id: pending.due_us for pending in outbox.pending()}
    assert dues[_OTHER] < dues[_VMM]
    assert [send.propolis_id for send in outbox.handle(Hurry(), _T0)] == [_OTHER, _VMM]


def test_an_acknowledgement_ends_the_talk_of_an_earlier_failure(outbox):
    """OU7: what is told of the next state is not why the last one took so long."""
    [send] = _submit(outbox, 3)
    _reply(outbox, send, _DOWN)
    assert outbox.pending_of(_VMM).why == "connection refused"
    [retry] = outbox.handle(Tick(), outbox.next_deadline_us())
    _submit(outbox, 4)
    _reply(outbox, retry, Delivered())
    assert outbox.pending_of(_VMM) == Pending(_VMM, _body(4), in_flight=True, attempt=0, due_us=None, why="")
