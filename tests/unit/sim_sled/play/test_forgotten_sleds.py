"""A Nexus that comes back without its records, in virtual time: sleds look now and then, and register again."""

import pytest

from nexus_client.stub.nexus import Nexus
from sim_sled.language.check import parse_scenario
from sim_sled.play.fleet import model_of
from sim_sled.play.virtual import World

TEXT = """version: 1
name: forgotten
fleet: {sleds: 3}
agent: {recheck: RECHECK}
load: [{at: 60s, create: {hostname: web}}]
"""


def world_after_a_minute(recheck):
    scenario, problems = parse_scenario(TEXT.replace("RECHECK", recheck))
    assert scenario is not None, problems.text()
    world = World(scenario, 1)
    world.begin()
    assert len(world.nexus.records.sleds) == 3
    world.nexus = Nexus(model_of(scenario, None), seed=1)
    while world.elapsed_us < 61_000_000 and world.step():
        pass
    return world


@pytest.mark.parametrize("recheck", ["20s", "1ms"])
def test_within_its_pause_every_sled_is_known_again_and_takes_instances(recheck):
    world = world_after_a_minute(recheck)
    assert {sled.info.generation for sled in world.nexus.records.sleds.values()} == {1}
    assert len(world.nexus.records.sleds) == 3
    assert world.nexus.public_state(world.nexus.find("web").id).value in ("starting", "running")


def test_sleds_that_never_look_are_never_known_again():
    world = world_after_a_minute("forever")
    assert not world.nexus.records.sleds
