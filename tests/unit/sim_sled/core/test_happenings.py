"""happenings.py: what a rack tells its watch, kind by kind, with the data that it promises."""

import pytest
from support.rack.driving import (
    DOWN,
    GONE,
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
    address_of,
    contract,
    refused,
    target,
)
from support.rows import in_one_test

from nexus_client.outbox import Permanent, Transient
from nexus_client.registration import Decommissioned, Registered, RegistrationRefused
from nexus_client.types import SledVmmState, VmmState, VmmStateRequested
from nexus_client.verdict import verdict
from propolis_stub.types import Publication
from sim_sled.core.errors import SledError
from sim_sled.core.event import event_of
from sim_sled.core.happenings import Happening, Kind
from sim_sled.core.rules import Verdict
from sim_sled.daemon.history import text_of


def _is(*kinds):
    return lambda data: (
        isinstance(data, tuple)
        and len(data) == len(kinds)
        and all(isinstance(part, kind) for part, kind in zip(data, kinds, strict=True))
    )


_DATA = {
    Kind.REGISTERED: lambda data: isinstance(data, SledVmmState),
    Kind.ASKED: _is(VmmStateRequested, Verdict),
    Kind.REFUSED: _is(VmmStateRequested, SledError),
    Kind.PROPOLIS: _is(Publication | None, Publication),
    Kind.OBSERVED: _is(SledVmmState, SledVmmState),
    Kind.SENT: _is(SledVmmState, int),
    Kind.ACKED: lambda data: isinstance(data, SledVmmState),
    Kind.RETRYING: lambda data: isinstance(data, Transient),
    Kind.GIVEN_UP: lambda data: isinstance(data, Permanent),
    Kind.POKED: lambda data: isinstance(data, bool),
    Kind.MIGRATION: lambda data: isinstance(data, str),
    Kind.INJECTED: lambda data: isinstance(data, str),
    Kind.UNREGISTERED: lambda data: isinstance(data, SledVmmState),
    Kind.FORGOTTEN: lambda data: isinstance(data, SledVmmState),
    Kind.SLED: lambda data: isinstance(data, Registered),
}


@pytest.fixture(scope="module")
def happened():
    """A busy minute in which everything happens at least once."""
    driver = RackDriver()
    info = driver.sled().info("[::1]:1", 1)
    driver.do(contract.Announce(SLED_A, info))
    driver.do(contract.RegistrationReplied(SLED_A, contract.GetReplied(_found(info))))
    driver.running(V1)
    driver.register(V2, VmmState.MIGRATING, on=SLED_B, migration_id=M1)
    driver.put(target(address_of(V1)), V2, on=SLED_B)
    driver.wait(SECOND)
    driver.poke(V2, on=SLED_B)
    driver.acks = False
    driver.put(REBOOT, V2, on=SLED_B)
    driver.wait(SECOND)
    driver.nexus_answers(DOWN)
    driver.wait(SECOND)
    driver.nexus_answers(GONE)
    driver.acks = True
    driver.put(STOPPED, V2, on=SLED_B)
    refused(driver.put, REBOOT, V2, on=SLED_B)
    driver.inject(VmmState.FAILED, V2, on=SLED_B)
    driver.wait(SECOND)
    driver.register(V1)
    driver.unregister(V1)
    return driver.happened


def _found(info):
    from nexus_client.registration import Found

    return Found(info)


@in_one_test("kind", Kind)
def test_each_kind_happens_with_its_data(happened, kind):
    mine = [each for each in happened if each.kind is kind]
    assert mine, "never happened"
    assert all(_DATA[kind](each.data) for each in mine)


def test_every_happening_says_when_where_and_who(happened):
    times = [each.at_us for each in happened]
    assert times == sorted(times)
    for each in happened:
        assert each.sled_id in {SLED_A, SLED_B}
        assert (each.propolis_id is None) == (each.kind is Kind.SLED)


def test_a_rack_that_nobody_watches_does_the_same():
    def life(watched):
        driver = RackDriver()
        if not watched:
            driver.rack.watch = None
        driver.register(V1)
        driver.put(RUNNING)
        driver.wait(SECOND)
        driver.put(STOPPED)
        driver.wait(SECOND)
        return driver.posts, driver.answers

    assert life(watched=True) == life(watched=False)


def test_what_was_observed_chains_from_record_to_record(happened):
    """Each OBSERVED begins where the one before it ended: the log has no gaps."""
    last = {}
    for each in happened:
        if each.kind is Kind.REGISTERED:
            last[each.propolis_id] = each.data
        elif each.kind is Kind.OBSERVED:
            before, after = each.data
            assert before == last[each.propolis_id]
            assert after.vmm_state.gen == before.vmm_state.gen + 1
            last[each.propolis_id] = after


@pytest.mark.parametrize(
    ("news", "said"),
    [
        (Registered(3), "registered with Nexus, generation 3"),
        (RegistrationRefused("no such rack", 400), "Nexus refuses the registration: no such rack"),
        (Decommissioned(), "Nexus has decommissioned this sled"),
    ],
)
def test_what_happens_to_a_sled_is_told_in_words(news, said):
    assert event_of(Happening(7, SLED_A, None, Kind.SLED, news)).text == said


@pytest.mark.parametrize(
    ("kind", "outcome", "status"),
    [
        (Kind.RETRYING, verdict(503, b'{"message": "later"}'), 503),
        (Kind.RETRYING, Transient("connection refused"), 0),
        (Kind.GIVEN_UP, verdict(400, b'{"message": "no"}'), 400),
    ],
)
def test_an_event_has_the_status_that_nexus_answered(kind, outcome, status):
    event = event_of(Happening(7, SLED_A, None, kind, outcome), sled="sled-1")
    assert (event.status, event.text, event.sled) == (status, outcome.why, "sled-1")
    assert outcome.why in text_of(Happening(7, SLED_A, None, kind, outcome))
