"""Registration of sleds as Nexus answers it (NX 3.3)."""

from uuid import UUID

import pytest
from support.nexus.world import World, sled_id, sled_info
from support.rows import in_one_test

from nexus_client.stub.contract import CallSled, ErrorBody, ReadInventory, SetSled, SledGot, SledPosted
from nexus_client.types import Baseboard, SledRole

ONE = sled_id(1)


@pytest.fixture
def world():
    return World.make(sleds=1)


def post(world, number=1, key=ONE, **changes):
    reply = world.ask(SledPosted, key, sled_info(number, **changes))
    code = reply.body.error_code if isinstance(reply.body, ErrorBody) else None
    return (reply.status, code)


def test_get_of_an_unknown_sled_is_a_404(world):
    reply = world.ask(SledGot, sled_id(9))
    assert (reply.status, reply.body.error_code) == (404, "ObjectNotFound")


def test_get_answers_what_is_stored(world):
    assert world.ask(SledGot, ONE).body == sled_info(1)


def test_a_new_sled_keeps_the_generation_it_sent(world):
    assert post(world, 2, sled_id(2), generation=7) == (204, None)
    assert world.ask(SledGot, sled_id(2)).body.generation == 7


def test_a_higher_generation_updates_everything_but_the_baseboard(world):
    changed = sled_info(1, 2, sa_address="[::1]:99", role=SledRole.SCRIMLET, baseboard=Baseboard("x", "y", 1))
    assert world.ask(SledPosted, ONE, changed).status == 204
    stored = world.ask(SledGot, ONE).body
    assert (stored.sa_address, stored.role, stored.generation) == ("[::1]:99", SledRole.SCRIMLET, 2)
    assert stored.baseboard == sled_info(1).baseboard


@pytest.mark.parametrize("generation", [0, 1])
def test_an_equal_or_lower_generation_is_a_500(world, generation):
    assert post(world, generation=generation, sa_address="[::1]:99") == (500, "Internal")
    assert world.ask(SledGot, ONE).body == sled_info(1)


def test_a_decommissioned_sled_is_told_so_and_may_not_post(world):
    assert world.ask(SetSled, ONE, state="decommissioned").status == 200
    assert world.ask(SledGot, ONE).body.decommissioned
    assert post(world, generation=5) == (500, "Internal")


def test_decommissioned_in_a_post_has_no_effect(world):
    assert post(world, generation=2, decommissioned=True) == (204, None)
    assert not world.ask(SledGot, ONE).body.decommissioned


def test_the_same_board_under_another_id_is_a_400(world):
    reply = world.ask(SledPosted, sled_id(9), sled_info(1))
    assert (reply.status, reply.body.error_code) == (400, "ObjectAlreadyExists")
    world.ask(SetSled, ONE, state="decommissioned")
    assert post(world, 1, sled_id(9)) == (204, None)


@pytest.mark.parametrize("size", [2**40, 2**41])
def test_a_reservoir_as_large_as_the_memory_is_a_500(world, size):
    assert post(world, 2, sled_id(2), reservoir_size=size) == (500, "Internal")


@in_one_test("address", ["127.0.0.1:12345", "::1:12345", "[::1]", "[::1]:x", "[::1]:70000", "[fe80::x]:1", ""])
def test_an_address_that_is_no_ipv6_socket_address_is_a_400(world, address):
    assert post(world, generation=2, sa_address=address) == (400, "InvalidRequest")
    assert world.ask(SledGot, ONE).body == sled_info(1)


def test_a_new_or_changed_sled_is_asked_for_its_inventory():
    world = World.make(sleds=1, collect_inventory=True)
    world.calls.clear()
    post(world, generation=2)
    (call,) = world.calls
    assert isinstance(call, CallSled)
    assert call.op == ReadInventory()
    world.calls.clear()
    post(world, generation=2)
    assert not world.calls


def test_an_unknown_sled_or_policy_is_refused(world):
    assert world.ask(SetSled, UUID(int=5), policy="expunged").status == 404
    assert world.ask(SetSled, ONE, policy="retired").status == 400
    assert world.ask(SetSled, ONE, policy="expunged", power="off").body["policy"] == "expunged"
