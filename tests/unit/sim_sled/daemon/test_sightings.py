"""What a daemon remembers of a VMM, and what it says of one that went without an end."""

from types import SimpleNamespace
from uuid import UUID

import pytest
from support.rows import in_one_test

from sim_sled.core.happenings import AGENT_ABORTS, AGENT_FORGETS, Happening, Kind
from sim_sled.core.rack import Rack
from sim_sled.daemon import sightings as module
from sim_sled.daemon.sightings import Sighting, Sightings

ID = UUID(int=1)


def after(state, kind, data):
    """A VMM that was in a state since 5 us, and of which something happened at 10 us."""
    sightings = Sightings(Rack())
    seen = sightings._of[ID] = Sighting(ID, ID, "web", ID, 1, 0, [(2, "starting"), (5, state)])
    sightings.watch(Happening(10, ID, ID, kind, data), lambda _: None)
    return seen


LOST = [(Kind.INJECTED, AGENT_ABORTS), (Kind.INJECTED, AGENT_FORGETS), (Kind.UNREGISTERED, None)]


@pytest.mark.parametrize(("kind", "data"), LOST)
def test_who_is_gone_without_an_end_is_in_no_state_but_was_in_one(kind, data):
    seen = after("running", kind, data)
    assert not seen.was("running", 2**62)
    assert (seen.was("running", 9), seen.was("running", 10)) == (True, False)


@in_one_test(("kind", "data"), LOST)
@in_one_test("state", ["failed", "destroyed"])
def test_an_end_stays_true_whatever_happens_to_who_has_ended(state, kind, data):
    assert after(state, kind, data).was(state, 2**62)


def test_a_fault_that_loses_nobody_leaves_him_where_he_is():
    assert after("running", Kind.INJECTED, "guest halt").was("running", 2**62)


def test_of_each_vmm_is_told_how_many_its_instance_had_before_it():
    sightings = Sightings(Rack())
    for number, instance in enumerate((7, 8, 7, 9, 8, 7), 1):
        vmm = UUID(int=number)
        sightings._of[vmm] = Sighting(vmm, UUID(int=instance), "web", ID, number, 0)
    assert list(sightings.earlier().values()) == [0, 0, 1, 0, 1, 2]


class ByKey(dict):
    """Sightings of which nobody may go through all."""

    def values(self):
        pytest.fail("all were gone through")


def test_who_is_named_by_his_whole_id_is_found_without_looking_at_the_others():
    """The front of a rack of workers asks all of them for each request about a VMM."""
    sightings = Sightings(Rack())
    for number in range(1, 4):
        sightings._of[UUID(int=number)] = Sighting(UUID(int=number), ID, "web", ID, number, 0)
    sightings._of = ByKey(sightings._of)
    assert [each.ordinal for each in sightings.named(f" {UUID(int=2)} ")] == [2]


@in_one_test(
    ("who", "found"),
    [
        ("v2", [2]),
        ("v02", []),
        (str(UUID(int=2)).upper(), [2]),
        (str(UUID(int=2)).replace("-", ""), []),
        (str(UUID(int=12)), [2]),
        ("WEB-3", [3]),
        ("00000000-0000-0000-0000-000000000001", [1]),
        ("00000000-0000-0000-0000-0000000000ff", []),
        ("0000", [1, 2, 3]),
        (str(UUID(int=77)), [3]),
    ],
)
def test_a_vmm_is_named_by_ordinal_id_host_name_instance_or_the_beginning_of_its_id(who, found):
    sightings = Sightings(Rack())
    for number, hostname in ((1, "web-1"), (2, "web-2"), (3, "web-3")):
        sightings._of[UUID(int=number)] = Sighting(UUID(int=number), UUID(int=number + 10), hostname, ID, number, 0)
    sightings._of[UUID(int=3)].hostname = str(UUID(int=77)) if who == str(UUID(int=77)) else "web-3"
    assert [each.ordinal for each in sightings.named(who)] == found


@pytest.mark.parametrize("counted", [lambda _: None, lambda vmm: 2 * vmm.int - 1], ids=["here", "by rules, as asked"])
def test_of_many_vmms_the_oldest_that_are_gone_are_forgotten_and_none_that_is_there(monkeypatch, counted):
    """Of a daemon with 30,000 VMMs, 10,000 that were running had lost their names. Rules count requests: where every
    other one is refused, no VMM has an even number.
    """
    monkeypatch.setattr(module, "KEPT_MAX", 3)
    monkeypatch.setattr(module, "SWEPT_EVERY", 4)
    sled = SimpleNamespace(vmms={})
    many = Sightings(SimpleNamespace(sleds={ID: sled}))
    for number in range(1, 13):
        about = SimpleNamespace(instance_id=ID, hostname=f"web-{number}")
        sled.vmms[UUID(int=number)] = SimpleNamespace(about=about)
        if number > 4:  # the first four stay, and of the others only the newest is there
            sled.vmms.pop(UUID(int=number - 1), None) if number > 5 else None
        many.watch(Happening(10, ID, UUID(int=number), Kind.REGISTERED, None), counted)
    assert [seen.hostname for seen in many.all()] == [f"web-{number}" for number in (1, 2, 3, 4, 8, 9, 10, 11, 12)]
    assert [seen.hostname for seen in many.named("v1")] == ["web-1"]


@in_one_test(
    ("there", "meant"),
    [((1, 2), [2]), ((1,), [1]), ((), [2]), ((2, 3), [2, 3]), ((1, 2, 3), [2, 3]), ((3,), [3])],
)
def test_a_host_name_means_who_is_there_and_not_who_has_had_it_before(there, meant):
    """A VM was deleted and another one of its name made: `why web` was told of two. 2 is of 1's instance."""
    sled = SimpleNamespace(vmms=[UUID(int=number) for number in there])
    sightings = Sightings(SimpleNamespace(sleds={ID: sled}))
    for number, instance, since_us in ((1, 7, 10), (2, 7, 30), (3, 8, 20)):
        vmm = UUID(int=number)
        sightings._of[vmm] = Sighting(vmm, UUID(int=instance), "web", ID, number, since_us)
    assert [each.ordinal for each in sightings.named("web")] == meant
