"""registration.py: the real sled's sequence (NX 3.3; 7 #27; SA 6 #34)."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nexus_client.outbox import Delivered, Permanent, Tick, Transient
from nexus_client.registration import (
    Decommissioned,
    Found,
    GetReplied,
    GetSledAgent,
    InfoChanged,
    NotFound,
    Phase,
    PostReplied,
    PostSledAgent,
    Registered,
    Registration,
    RegistrationRefused,
)
from nexus_client.types import GENERATION_MAX, Baseboard, SledAgentInfo, SledCpuFamily, SledRole

_SLED = UUID(int=7)
_T0 = 1_700_000_000_000_000
_GET = GetSledAgent(_SLED)
_INFO = SledAgentInfo(
    sa_address="[::1]:12345",
    repo_depot_port=12348,
    role=SledRole.GIMLET,
    baseboard=Baseboard("serial", "part", 3),
    usable_hardware_threads=32,
    usable_physical_ram=2**36,
    reservoir_size=2**35,
    cpu_family=SledCpuFamily.AMD_MILAN,
    generation=0,
    decommissioned=False,
)
_BIGGER = replace(_INFO, reservoir_size=2**35 + 1)
_DOWN = Transient("connection refused")


def _stored(generation, info=_INFO, *, decommissioned=False):
    return Found(replace(info, generation=generation, decommissioned=decommissioned))


def _post(generation, info=_INFO):
    return PostSledAgent(_SLED, replace(info, generation=generation))


@pytest.fixture
def reading():
    registration = Registration(_SLED, _INFO)
    assert registration.handle(Tick(), _T0) == [_GET]
    return registration


def _got(registration, outcome, now_us=_T0):
    return registration.handle(GetReplied(outcome), now_us)


def _posted(registration, outcome, now_us=_T0):
    return registration.handle(PostReplied(outcome), now_us)


def test_it_begins_at_the_first_tick():
    registration = Registration(_SLED, _INFO)
    assert registration.phase is Phase.NEW
    assert registration.next_deadline_us() == 0
    assert registration.handle(Tick(), _T0) == [_GET]
    assert registration.next_deadline_us() is None
    assert registration.handle(Tick(), _T0) == [], "one request at a time"


def test_an_unknown_sled_registers_with_generation_1(reading):
    assert _got(reading, NotFound()) == [_post(1)]
    assert _posted(reading, Delivered()) == [Registered(1)]
    assert (reading.phase, reading.generation) == (Phase.REGISTERED, 1)
    assert reading.next_deadline_us() is None


def test_a_sled_that_nexus_knows_as_it_is_says_nothing(reading):
    assert _got(reading, _stored(5)) == [Registered(5)]
    assert reading.generation == 5


def test_a_sled_that_has_changed_registers_with_the_stored_generation_and_one(reading):
    assert _got(reading, _stored(5, _BIGGER)) == [_post(6)]
    assert _posted(reading, Delivered()) == [Registered(6)]


@pytest.mark.parametrize(
    "change",
    [
        {"sa_address": "[::1]:2"},
        {"repo_depot_port": 1},
        {"role": SledRole.SCRIMLET},
        {"baseboard": Baseboard("serial", "part", 4)},
        {"usable_hardware_threads": 16},
        {"usable_physical_ram": 2**37},
        {"reservoir_size": 1},
        {"cpu_family": SledCpuFamily.AMD_TURIN},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_of_the_info_counts_as_a_change(reading, change):
    assert _got(reading, _stored(2, replace(_INFO, **change))) == [_post(3)]


def test_a_decommissioned_sled_is_silent_for_ever(reading):
    assert _got(reading, _stored(5, decommissioned=True)) == [Decommissioned()]
    assert reading.phase is Phase.SILENT
    for item in (InfoChanged(_BIGGER), Tick(), GetReplied(NotFound()), PostReplied(Delivered())):
        assert reading.handle(item, _T0 + 10**12) == []
    assert reading.next_deadline_us() is None


@pytest.mark.parametrize("status", [400, 401, 403, 409, 410])
def test_a_4xx_to_the_post_stops_with_a_clear_message(reading, status):
    """SA 6 #34: the original retries it for ever, which looks like a slow Nexus."""
    _got(reading, NotFound())
    [refused] = _posted(reading, Permanent(f"{status}: already exists: sled", status))
    assert refused == RegistrationRefused(
        f"Nexus refuses to register sled {_SLED}: {status}: already exists: sled", status
    )
    assert reading.phase is Phase.REFUSED
    assert reading.why == refused.message
    assert reading.next_deadline_us() is None
    assert reading.handle(Tick(), _T0 + 10**12) == []


def test_a_4xx_to_the_get_stops_as_well(reading):
    [refused] = _got(reading, Permanent("400: missing api-version", 400))
    assert refused.status == 400
    assert "missing api-version" in refused.message
    assert reading.next_deadline_us() is None


def test_a_refused_sled_tries_again_when_it_has_changed(reading):
    _got(reading, NotFound())
    _posted(reading, Permanent("400: bad", 400))
    assert reading.handle(InfoChanged(_BIGGER), _T0) == [_GET]
    assert _got(reading, NotFound()) == [_post(1, _BIGGER)]


@pytest.mark.parametrize("answered", ["get", "post"])
def test_after_a_transient_failure_nothing_is_known_and_it_reads_again(reading, answered):
    if answered == "post":
        _got(reading, _stored(5, _BIGGER))
        assert _posted(reading, _DOWN) == []
    else:
        assert _got(reading, _DOWN) == []
    assert (reading.phase, reading.generation, reading.why) == (Phase.WAITING, None, "connection refused")
    due_us = reading.next_deadline_us()
    assert reading.handle(Tick(), due_us - 1) == []
    assert reading.handle(Tick(), due_us) == [_GET]


def test_a_post_whose_answer_was_lost_is_found_by_reading(reading):
    _got(reading, NotFound())
    _posted(reading, _DOWN)
    reading.handle(Tick(), reading.next_deadline_us())
    assert _got(reading, _stored(1)) == [Registered(1)]


def test_the_waits_start_short_and_settle_at_the_two_seconds_of_the_real_sled(reading):
    now_us, waits_us = _T0, []
    for _ in range(40):
        _got(reading, _DOWN, now_us)
        due_us = reading.next_deadline_us()
        waits_us.append(due_us - now_us)
        now_us = due_us
        assert reading.handle(Tick(), now_us) == [_GET]
    assert 50_000 <= waits_us[0] <= 150_000
    assert all(1_000_000 <= wait_us <= 3_000_000 for wait_us in waits_us[20:])


def test_the_waits_start_again_after_a_success(reading):
    now_us = _T0
    for _ in range(30):
        _got(reading, _DOWN, now_us)
        now_us = reading.next_deadline_us()
        reading.handle(Tick(), now_us)
    _got(reading, _stored(1))
    reading.handle(InfoChanged(_BIGGER), now_us)
    _posted(reading, _DOWN, now_us)
    assert reading.next_deadline_us() - now_us <= 150_000


def test_property_27_each_change_raises_the_generation_by_one(reading):
    _got(reading, NotFound())
    _posted(reading, Delivered())
    assert reading.handle(InfoChanged(_BIGGER), _T0) == [_post(2, _BIGGER)]
    assert _posted(reading, Delivered()) == [Registered(2)]
    assert reading.handle(InfoChanged(_BIGGER), _T0) == [Registered(2)], "no change, no call"
    assert reading.handle(InfoChanged(_INFO), _T0) == [_post(3)]


def test_a_change_while_a_post_is_on_its_way_is_told_next(reading):
    _got(reading, NotFound())
    assert reading.handle(InfoChanged(_BIGGER), _T0) == []
    assert _posted(reading, Delivered()) == [_post(2, _BIGGER)]


def test_a_change_that_is_taken_back_while_a_post_is_on_its_way_needs_no_call(reading):
    _got(reading, NotFound())
    reading.handle(InfoChanged(_BIGGER), _T0)
    reading.handle(InfoChanged(_INFO), _T0)
    assert _posted(reading, Delivered()) == [Registered(1)]


def test_a_change_before_the_first_answer_is_what_gets_registered(reading):
    assert reading.handle(InfoChanged(_BIGGER), _T0) == []
    assert _got(reading, NotFound()) == [_post(1, _BIGGER)]


def test_the_last_generation_cannot_be_raised(reading):
    [refused] = _got(reading, _stored(GENERATION_MAX, _BIGGER))
    assert "last generation" in refused.message


def test_answers_that_nobody_waits_for_are_ignored(reading):
    assert _posted(reading, Delivered()) == []
    assert reading.phase is Phase.READING
    _got(reading, NotFound())
    assert _got(reading, _stored(4)) == []
    assert reading.phase is Phase.POSTING


@given(st.data())
def test_property_27_against_a_nexus_that_loses_answers(data):
    """Whatever is lost: one request at a time, each stored generation one more than the last, none after the end."""
    registration = Registration(_SLED, _INFO, seed=data.draw(st.integers(0, 9)))
    stored, decommissioned, now_us = None, False, _T0
    out = registration.handle(Tick(), now_us)
    for _ in range(data.draw(st.integers(1, 25))):
        calls = [effect for effect in out if isinstance(effect, GetSledAgent | PostSledAgent)]
        assert len(calls) <= 1
        if not calls:
            change = data.draw(st.sampled_from([_INFO, _BIGGER, None, "decommission"]))
            if change == "decommission":
                decommissioned = True
                out = []
            elif change is not None:
                out = registration.handle(InfoChanged(change), now_us)
            else:
                now_us = max(now_us, registration.next_deadline_us() or now_us)
                out = registration.handle(Tick(), now_us)
            continue
        [call] = calls
        arrives, answered = data.draw(st.sampled_from([(True, True), (True, False), (False, False)]))
        outcome = _DOWN
        if isinstance(call, GetSledAgent):
            if answered:
                outcome = NotFound() if stored is None else Found(replace(stored, decommissioned=decommissioned))
            out = registration.handle(GetReplied(outcome), now_us)
            continue
        accepted = not decommissioned and (stored is None or stored.generation < call.info.generation)
        if arrives and accepted:
            assert call.info.generation == (1 if stored is None else stored.generation + 1)
            stored = call.info
        if answered:
            outcome = Delivered() if accepted else Transient("500: Internal Server Error")
        out = registration.handle(PostReplied(outcome), now_us)
        if registration.phase is Phase.SILENT:
            assert registration.next_deadline_us() is None
    if registration.phase is Phase.REGISTERED and not decommissioned:
        assert stored is not None
        assert registration.generation == stored.generation
        assert replace(registration.info, generation=stored.generation) == stored


# ---- whether Nexus still knows it ----

_LOOK = 30_000_000


@pytest.fixture
def looking():
    """Registered under generation 3, and the time has come to look."""
    registration = Registration(_SLED, _INFO, recheck_us=_LOOK)
    registration.handle(Tick(), _T0)
    assert _got(registration, _stored(3)) == [Registered(3)]
    assert registration.next_deadline_us() == _T0 + _LOOK
    assert registration.handle(Tick(), _T0 + _LOOK - 1) == []
    assert registration.handle(Tick(), _T0 + _LOOK) == [_GET]
    assert registration.next_deadline_us() is None, "one request at a time"
    return registration


def test_a_sled_that_is_still_known_says_nothing_and_looks_again(looking):
    assert _got(looking, _stored(3), _T0 + _LOOK) == []
    assert (looking.phase, looking.generation) == (Phase.REGISTERED, 3)
    assert looking.next_deadline_us() == _T0 + 2 * _LOOK


def test_a_sled_that_nexus_has_forgotten_registers_again(looking):
    assert _got(looking, NotFound()) == [_post(1)]
    assert _posted(looking, Delivered()) == [Registered(1)]


def test_a_sled_that_nexus_remembers_otherwise_registers_under_the_next_generation(looking):
    assert _got(looking, _stored(8, _BIGGER)) == [_post(9)]


def test_a_sled_that_nexus_has_under_another_generation_says_so(looking):
    assert _got(looking, _stored(8)) == [Registered(8)]
    assert looking.generation == 8


def test_a_look_that_is_refused_changes_nothing(looking):
    assert _got(looking, Permanent("403: no", 403), _T0 + _LOOK) == []
    assert looking.next_deadline_us() == _T0 + 2 * _LOOK


def test_a_look_that_fails_is_repeated_soon(looking):
    assert _got(looking, _DOWN, _T0 + _LOOK) == []
    assert looking.next_deadline_us() <= _T0 + _LOOK + 3_000_000


@pytest.mark.parametrize("changes", ["between looks", "while one looks", "no"])
def test_what_changes_in_an_outage_is_told_as_soon_as_nexus_is_back(looking, changes):
    """Not at the pace of looks, which bring nothing new."""
    now_us = _T0 + _LOOK
    while now_us < _T0 + 10 * _LOOK:
        _got(looking, _DOWN, now_us)
        now_us = looking.next_deadline_us()
        looking.handle(Tick(), now_us)
    if changes == "while one looks":
        looking.handle(InfoChanged(_BIGGER), now_us)
    _got(looking, _DOWN, now_us)
    if changes == "between looks":
        now_us += 10
        looking.handle(InfoChanged(_BIGGER), now_us)
    assert (looking.next_deadline_us() - now_us <= 3_000_000) is (changes != "no")
    now_us = looking.next_deadline_us()
    looking.handle(Tick(), now_us)
    assert _got(looking, _stored(3), now_us) == ([Registered(3)] if changes == "no" else [_post(4, _BIGGER)])


def test_looks_during_a_long_outage_are_no_more_than_looks_are_otherwise_and_a_few(looking):
    """A thousand sleds that asked every 2 s were all that a daemon did meanwhile."""
    now_us, looks, pauses = _T0 + _LOOK, 0, []
    while now_us < _T0 + 21 * _LOOK:
        assert _got(looking, _DOWN, now_us) == []
        pauses.append(looking.next_deadline_us() - now_us)
        now_us = looking.next_deadline_us()
        assert looking.handle(Tick(), now_us) == [_GET]
        looks += 1
    assert 20 <= looks <= 32
    assert max(pauses) == _LOOK, "whenever Nexus comes back, it is asked as soon as without an outage"


def test_a_look_that_finds_it_decommissioned_is_the_last(looking):
    assert _got(looking, _stored(3, decommissioned=True)) == [Decommissioned()]
    assert looking.next_deadline_us() is None


def test_a_sled_stays_registered_when_nexus_first_does_not_answer_its_look_and_then_refuses_it(looking):
    """A proxy before a Nexus that restarts says 503, and then perhaps 400: no reason to end a sled with guests."""
    assert _got(looking, _DOWN, _T0 + _LOOK) == []
    again = looking.next_deadline_us()
    assert looking.handle(Tick(), again) == [_GET]
    assert _got(looking, Permanent("400: no", 400), again) == []
    assert (looking.phase, looking.generation, looking.why) == (Phase.REGISTERED, 3, "")
    assert looking.next_deadline_us() == again + _LOOK
    assert looking.handle(InfoChanged(_BIGGER), again) == [_post(4, _BIGGER)]


def test_after_a_look_that_failed_it_is_said_that_nexus_knows_it_again(looking):
    _got(looking, _DOWN, _T0 + _LOOK)
    looking.handle(Tick(), looking.next_deadline_us())
    assert _got(looking, _stored(3)) == [Registered(3)]


def test_what_a_look_had_to_post_and_nexus_then_refuses_is_refused(looking):
    """Forgotten, and its new registration may have arrived or not: that is no look any more."""
    assert _got(looking, NotFound()) == [_post(1)]
    assert _posted(looking, _DOWN) == []
    assert looking.generation is None
    looking.handle(Tick(), looking.next_deadline_us())
    assert isinstance(_got(looking, Permanent("400: no", 400))[0], RegistrationRefused)
