"""What a daemon remembers of a VMM, and what it says of one that went without an end."""

from uuid import UUID

import pytest

from sim_sled.core.happenings import AGENT_ABORTS, AGENT_FORGETS, Happening, Kind
from sim_sled.core.rack import Rack
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


@pytest.mark.parametrize(("kind", "data"), LOST)
@pytest.mark.parametrize("state", ["failed", "destroyed"])
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
