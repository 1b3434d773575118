"""What tests of a control plane look like with sim-sled's fixtures: no sleep, no poke, no port.

Run them: `pytest examples/pytest` where sim-sled is installed (`pip install sim-sled pytest pytest-asyncio`).
"""

import subprocess
import sys

import pytest


async def test_an_instance_starts_and_stops(sim_rack, nexus_model):
    web = await nexus_model.create_instance("web")
    await sim_rack.expect(web, "running", within=5)
    await nexus_model.stop_instance(web)
    await sim_rack.expect(web, "destroyed", within=5)
    await nexus_model.expect(web, "stopped", within=5)


def test_the_same_without_a_coroutine(sim_rack, nexus_model):
    web = nexus_model.create_instance("web").wait()
    sim_rack.expect(web, "running", within=5).wait()
    nexus_model.reboot_instance(web).wait()
    sim_rack.expect(web, "running", within=5).wait()
    assert nexus_model.state(web) == "running"


PROGRAM = """
import json, sys, urllib.request
body = json.dumps({"name": "web"}).encode()
urllib.request.urlopen(urllib.request.Request(sys.argv[1], body, {"content-type": "application/json"})).read()
"""


def test_a_program_of_yours_is_given_an_address(sim_rack, nexus_model):
    users = f"http://{nexus_model.control}/v1/instances"
    subprocess.run([sys.executable, "-c", PROGRAM, users], check=True)  # noqa: S603 -- it stands above
    sim_rack.expect("web", "running", within=5).wait()


@pytest.mark.scenario("nexus-404", sleds=2)
async def test_rules_of_the_library_by_name(sim_rack):
    assert len(sim_rack.sleds) >= 2
    assert sim_rack.rack.fired("not-found") == 0, "it is due five seconds later"


LOST_UPDATE = """
version: 1
rules:
- name: first-answer-is-lost
  when: {publish: running}
  times: 1
  do: {drop: {retry: true}}
"""


@pytest.mark.scenario(LOST_UPDATE, seed=7)
async def test_a_lost_update_is_repeated(sim_rack, nexus_model):
    web = await nexus_model.create_instance("web")
    await nexus_model.expect(web, "running", within=60)
    sim_rack.assert_fired("first-answer-is-lost", times=1)
    assert any("sent running" in line for line in sim_rack.timeline(web))


@pytest.mark.scenario("version: 1\nname: two\n", sleds=2)
async def test_a_migration(sim_rack, nexus_model):
    web = await nexus_model.create_instance("web")
    first = await sim_rack.expect(web, "running", within=5)
    other = next(sled for sled in sim_rack.sleds if sled.id != first.sled_id)
    await nexus_model.migrate_instance(web, other.id)
    await sim_rack.expect(first, "destroyed", within=5)
    second = await sim_rack.expect(web, "running", within=5)
    assert second.sled_id == other.id
    assert second.propolis_id != first.propolis_id


def test_a_day_in_virtual_time(virtual_world):
    result = virtual_world("stuck-stop", seed=7)
    assert result.good
