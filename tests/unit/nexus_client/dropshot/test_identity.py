"""Enums that are keys of tables: as any other enum, but for what hashing and telling the value cost."""

import copy
import pickle

import msgspec

from nexus_client.dropshot.identity import IdentityEnum
from nexus_client.types import VmmState


class Colour(IdentityEnum):
    RED = "red"
    GREEN = "green"


def test_it_tells_its_value_and_is_found_by_it():
    assert [(each.name, each.value) for each in Colour] == [("RED", "red"), ("GREEN", "green")]
    assert Colour("green") is Colour.GREEN


def test_members_are_keys_of_their_own_also_when_they_have_been_elsewhere():
    table = {Colour.RED: 1, Colour.GREEN: 2}
    assert table[pickle.loads(pickle.dumps(Colour.GREEN))] == 2
    assert table[copy.deepcopy(Colour.RED)] == 1
    assert VmmState.RUNNING not in table


def test_hashing_and_the_value_are_no_python_code():
    assert Colour.__hash__ is object.__hash__
    assert not hasattr(Colour.__dict__.get("value", IdentityEnum.__dict__["value"]).fget, "__code__")


def test_it_goes_over_the_wire_as_its_value():
    assert msgspec.json.encode(Colour.RED) == b'"red"'
    assert msgspec.json.decode(b'"red"', type=Colour) is Colour.RED
