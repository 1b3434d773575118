"""Regions, snapshots and running snapshots of one Crucible agent (SR 5.1)."""

from uuid import UUID

import attrs
import pytest

from sim_sled.core.crucible.agent import PORTS
from sim_sled.core.crucible.agents import Agents
from sim_sled.core.crucible.values import RegionRequest, RegionState
from sim_sled.core.errors import BadRequest, Conflict, Internal, Missing, Unavailable

DATASET = UUID(int=1)
OTHER = UUID(int=2)


def request(number=10, **changes):
    return attrs.evolve(RegionRequest(UUID(int=number), 512, 131072, 16, True), **changes)


@pytest.fixture(name="agents")
def _agents():
    agents = Agents()
    agents.add_sled("::1", [DATASET, OTHER])
    return agents


@pytest.fixture(name="agent")
def _agent(agents):
    return agents.agent(DATASET)


def test_a_region_is_created_at_once_unless_somebody_wants_it_to_take_time(agent):
    assert agent.create(request(), 0).state is RegionState.CREATED
    agent.knobs.create_us = 5
    slow = agent.create(request(11), 0)
    assert (slow.state, agent.next_deadline_us()) == (RegionState.REQUESTED, 5)
    agent.tick(4)
    assert slow.state is RegionState.REQUESTED
    agent.tick(5)
    assert (slow.state, agent.next_deadline_us()) == (RegionState.CREATED, None)


def test_nexus_polls_with_the_same_post_and_finds_the_same_port(agent):
    agent.knobs.create_us = 10
    first = agent.create(request(), 0)
    agent.create(request(11), 0)
    assert agent.create(request(), 3) is first
    agent.tick(10)
    assert agent.create(request(), 11).port == first.port


def test_other_parameters_under_the_same_id_are_a_conflict_and_change_nothing(agent):
    before = attrs.asdict(agent.create(request(), 0), recurse=False)
    with pytest.raises(Conflict):
        agent.create(request(extent_count=17), 0)
    assert attrs.asdict(agent.get(str(UUID(int=10))), recurse=False) == before


def test_a_destroyed_region_stays_destroyed_under_a_repeated_post(agent):
    agent.create(request(), 0)
    agent.delete(str(UUID(int=10)), 0)
    assert agent.create(request(), 0).state is RegionState.DESTROYED


def test_ports_are_the_lowest_free_ones_and_exhaustion_is_refused(agent):
    ports = [agent.create(request(100 + number), 0).port for number in range(PORTS)]
    assert ports == list(range(1000, 1000 + PORTS))
    with pytest.raises(Internal, match="ports"):
        agent.create(request(999), 0)
    assert str(UUID(int=999)) not in agent.regions
    agent.delete(str(UUID(int=107)), 0)
    assert agent.create(request(999), 0).port == 1007


def test_deleting_twice_does_not_free_the_port_of_somebody_else(agent):
    agent.create(request(10), 0)
    agent.delete(str(UUID(int=10)), 0)
    agent.create(request(11), 0)
    agent.delete(str(UUID(int=10)), 0)
    assert agent.create(request(12), 0).port == 1001


def test_a_failed_region_keeps_its_port_until_it_is_deleted(agent):
    agent.knobs.born = RegionState.FAILED
    assert agent.create(request(10), 0).state is RegionState.FAILED
    agent.knobs.born = RegionState.CREATED
    assert agent.create(request(11), 0).port == 1001
    agent.delete(str(UUID(int=10)), 0)
    assert agent.create(request(12), 0).port == 1000


def test_a_deletion_that_fails_can_be_tried_again(agent):
    agent.create(request(), 0)
    agent.knobs.delete_fails = True
    agent.delete(str(UUID(int=10)), 0)
    assert agent.get(str(UUID(int=10))).state is RegionState.FAILED
    agent.knobs.delete_fails = False
    agent.delete(str(UUID(int=10)), 0)
    assert agent.get(str(UUID(int=10))).state is RegionState.DESTROYED


def test_a_region_that_is_being_made_is_not_deleted_but_one_that_never_will_be_is(agent):
    agent.knobs.create_us = 10
    agent.create(request(10), 0)
    with pytest.raises(Unavailable):
        agent.delete(str(UUID(int=10)), 0)
    agent.knobs.born = RegionState.REQUESTED
    agent.create(request(11), 0)
    agent.delete(str(UUID(int=11)), 0)
    assert agent.get(str(UUID(int=11))).state is RegionState.DESTROYED


def test_deletion_may_take_time_and_holds_the_port_meanwhile(agent):
    agent.create(request(10), 0)
    agent.knobs.delete_us = 7
    agent.delete(str(UUID(int=10)), 0)
    assert agent.get(str(UUID(int=10))).state is RegionState.TOMBSTONED
    assert agent.create(request(11), 0).port == 1001
    agent.tick(7)
    assert agent.create(request(12), 7).port == 1000


def test_what_is_unknown(agent):
    nobody = str(UUID(int=404))
    agent.delete(nobody, 0)  # already what was wanted
    for ask in (
        lambda: agent.get(nobody),
        lambda: agent.snapshots(nobody),
        lambda: agent.run_snapshot(nobody, "s", 0),
        lambda: agent.stop_snapshot(nobody, "s", 0),
        lambda: agent.delete_snapshot(nobody, "s"),
    ):
        with pytest.raises(Missing):
            ask()
    region = str(agent.create(request(), 0).request.id)
    agent.stop_snapshot(region, "s", 0)
    agent.delete_snapshot(region, "s")
    with pytest.raises(Missing):
        agent.run_snapshot(region, "s", 0)


def test_the_order_in_which_a_snapshot_goes(agent):
    region = agent.create(request(), 0)
    region_id = str(region.request.id)
    agent.take_snapshot(region, "s", 3)
    agent.take_snapshot(region, "s", 4)
    assert agent.snapshot(region_id, "s").created_us == 3
    with pytest.raises(BadRequest, match="must delete snapshots first!"):
        agent.delete(region_id, 0)
    running = agent.run_snapshot(region_id, "s", 0)
    assert agent.run_snapshot(region_id, "s", 0) is running
    assert (running.state, running.port) == (RegionState.CREATED, 1001)
    with pytest.raises(BadRequest):
        agent.delete_snapshot(region_id, "s")
    agent.stop_snapshot(region_id, "s", 0)
    again = agent.run_snapshot(region_id, "s", 0)
    assert again is not running
    agent.stop_snapshot(region_id, "s", 0)
    agent.delete_snapshot(region_id, "s")
    agent.delete(region_id, 0)
    assert region.state is RegionState.DESTROYED


def test_snapshots_are_only_told_of_a_created_region(agent):
    region = agent.create(request(), 0)
    agent.take_snapshot(region, "s", 0)
    assert [each.name for each in agent.snapshots(str(region.request.id))[0]] == ["s"]
    region.state = RegionState.FAILED
    assert agent.snapshots(str(region.request.id)) == ([], [])
    with pytest.raises(Internal):
        agent.take_snapshot(region, "t", 0)


def test_a_disk_snapshot_reaches_the_regions_behind_its_targets_and_stops_at_a_missing_one(agents):
    first = agents.agent(DATASET).create(request(10), 0)
    second = agents.agent(OTHER).create(request(11), 0)
    assert second.port == 1050
    with pytest.raises(Internal):
        agents.snapshot(["[::1]:1000", "[::1]:1051", "[::1]:1050"], UUID(int=7), 5)
    assert (list(first.snapshots), list(second.snapshots)) == ([str(UUID(int=7))], [])
    with pytest.raises(Internal):
        agents.snapshot(["[::2]:1000"], UUID(int=8), 5)  # the port alone is not enough (SA 6 #22)


def test_a_read_only_copy_has_the_bytes_of_its_source(agents):
    source = agents.agent(DATASET).create(request(10), 0)
    source.blocks.write(512, b"x" * 512)
    agents.agent(DATASET).take_snapshot(source, "s", 0)
    running = agents.agent(DATASET).run_snapshot(str(source.request.id), "s", 0)
    source.blocks.write(512, b"y" * 512)
    copy = agents.agent(OTHER).create(request(11, source=f"[::1]:{running.port + 4000}"), 0)
    assert copy.blocks.read(512, 512) == b"x" * 512


def test_two_sleds_on_one_address_never_share_a_port_and_run_out_of_them_with_a_message():
    agents = Agents()
    agents.add_sled("::1", [UUID(int=number) for number in range(1, 22)])
    agents.add_sled("::1", [UUID(int=100)])
    agents.add_sled("fd00::1", [UUID(int=200)])
    assert agents.agent(UUID(int=100)).first_port == 3000
    assert agents.agent(UUID(int=200)).first_port == 1000
    for number in range(300, 361):
        agents.add_sled("::1", [UUID(int=number)])
    with pytest.raises(ValueError, match="no ports left"):
        agents.add_sled("::1", [UUID(int=number) for number in range(400, 440)])


def test_the_datasets_of_a_host_have_ports_apart_and_the_last_of_them_is_a_port():
    agents = Agents()
    agents.add_sled("::1", (some := [UUID(int=number) for number in range(1, 4)]))
    assert [agents.agent(each).first_port for each in some] == [1000, 1050, 1100]
    for number in range(100, 163):  # a thousand ports each
        agents.add_sled("::1", [UUID(int=number)])
    agents.add_sled("::1", (last := [UUID(int=number) for number in range(200, 210)]))
    assert agents.agent(last[-1]).first_port + PORTS - 1 <= 65_535
    with pytest.raises(ValueError, match="no ports left"):
        agents.add_sled("::1", [UUID(int=300)])


def test_the_last_port_that_there_is_is_used():
    """A dataset whose fifty ports end with 65,535 would fit; no sled begins at such a place, so it is put there."""
    agents = Agents()
    agents._next_port["::1"] = 65_536 - PORTS
    agents.add_sled("::1", [DATASET])
    assert agents.agent(DATASET).first_port == 65_486


def test_a_running_snapshot_keeps_its_port_from_others_until_it_is_gone(agent):
    regions = [agent.create(request(number), 0) for number in (10, 11)]
    for region in regions:
        agent.take_snapshot(region, "s", 0)
    running = [agent.run_snapshot(str(region.request.id), "s", 0) for region in regions]
    third = agent.create(request(12), 0)
    ports = [each.port for each in (*regions, *running, third)]
    assert ports == [agent.first_port + nth for nth in range(5)]
    agent.stop_snapshot(str(regions[0].request.id), "s", 0)
    assert agent.create(request(13), 0).port == running[0].port


def test_the_bytes_of_a_region_go_with_it_and_not_with_a_snapshot_that_stops(agents, agent):
    before = agents.memory.left
    region = agent.create(request(), 0)
    region.blocks.write(0, b"x" * 512)
    agent.take_snapshot(region, "s", 0)
    agent.run_snapshot(str(UUID(int=10)), "s", 0)
    agent.stop_snapshot(str(UUID(int=10)), "s", 0)
    assert region.blocks.read(0, 1) == b"x"
    agent.delete_snapshot(str(UUID(int=10)), "s")
    agent.delete(str(UUID(int=10)), 0)
    assert agents.memory.left == before


def test_a_region_that_is_made_after_all_takes_its_time_from_then_on(agent):
    agent.knobs.born = RegionState.REQUESTED
    region = agent.create(request(), 0)
    agent.knobs.born, agent.knobs.create_us = RegionState.CREATED, 50
    agent.go_on(1000)
    assert (region.state, agent.next_deadline_us()) == (RegionState.REQUESTED, 1050)
    agent.tick(1049)
    assert region.state is RegionState.REQUESTED
    agent.tick(1050)
    assert region.state is RegionState.CREATED


def test_nobody_is_found_at_the_port_of_a_snapshot_that_runs_no_more(agent):
    region_id = str(UUID(int=10))
    region = agent.create(request(), 0)
    region.blocks.write(0, b"seen")
    agent.take_snapshot(region, "s", 0)
    running = agent.run_snapshot(region_id, "s", 0)
    assert agent.source_at(running.port).read(0, 4) == b"seen"
    agent.stop_snapshot(region_id, "s", 0)
    assert agent.source_at(running.port) is None


def test_a_running_snapshot_takes_its_time_to_run_and_to_go(agent):
    region_id = str(UUID(int=10))
    agent.take_snapshot(agent.create(request(), 0), "s", 0)
    agent.knobs.run_us, agent.knobs.delete_us = 30, 40
    running = agent.run_snapshot(region_id, "s", 100)
    assert (running.state, agent.next_deadline_us()) == (RegionState.REQUESTED, 130)
    agent.tick(130)
    assert (running.state, agent.next_deadline_us()) == (RegionState.CREATED, None)
    agent.stop_snapshot(region_id, "s", 200)
    assert (running.state, agent.next_deadline_us()) == (RegionState.TOMBSTONED, 240)
    agent.stop_snapshot(region_id, "s", 230)
    assert agent.next_deadline_us() == 240, "it was told before"
    agent.tick(240)
    assert (running.state, agent.next_deadline_us()) == (RegionState.DESTROYED, None)


def test_a_sled_that_leaves_takes_its_agents_along_and_may_come_again_with_other_ports(agents, agent):
    agent.create(request(), 0)
    agents.remove([DATASET, UUID(int=404)])
    with pytest.raises(Missing):
        agents.agent(DATASET)
    assert agents.region(f"[::1]:{agent.first_port}") is None
    agents.add_sled("::1", [DATASET])
    assert (agents.agent(DATASET).regions, agents.agent(DATASET).first_port) == ({}, agent.first_port + 1000)


def test_a_region_in_a_state_that_somebody_wants_waits_for_nothing_and_only_a_destroyed_one_loses_its_bytes(agent):
    agent.knobs.create_us = 50
    region = agent.create(request(), 0)
    region.blocks.write(0, b"seen")
    agent.set_state(str(UUID(int=10)), RegionState.FAILED)
    agent.tick(50)
    assert (region.state, agent.next_deadline_us()) == (RegionState.FAILED, None)
    assert agent.source_at(region.port).read(0, 4) == b"seen"
    agent.set_state(str(UUID(int=10)), RegionState.DESTROYED)
    assert region.blocks.read(0, 4) == bytes(4)
    assert agent.source_at(region.port) is None


def destroyed(agent, number):
    """A region that was made and is gone, with the lowest free port at that time."""
    region = agent.create(request(number), 0)
    agent.delete(str(region.request.id), 0)
    assert region.state is RegionState.DESTROYED
    return region


def test_a_destroyed_region_comes_back_only_where_nobody_has_its_port_by_now(agent):
    first = destroyed(agent, 10)
    agent.set_state(str(UUID(int=10)), RegionState.CREATED)
    assert first.state is RegionState.CREATED, "nobody else wants the port"
    agent.delete(str(UUID(int=10)), 0)
    second = agent.create(request(11), 0)
    assert second.port == first.port
    for state in (RegionState.CREATED, RegionState.FAILED):
        with pytest.raises(BadRequest, match=str(first.port)):
            agent.set_state(str(UUID(int=10)), state)
    agent.set_state(str(UUID(int=10)), RegionState.DESTROYED)
    agent.set_state(str(UUID(int=11)), RegionState.FAILED)
    assert (first.state, second.state) == (RegionState.DESTROYED, RegionState.FAILED)


def test_a_destroyed_region_does_not_come_back_at_the_port_of_a_running_snapshot(agent):
    source = agent.create(request(9), 0)
    gone = destroyed(agent, 10)
    agent.take_snapshot(source, "s", 0)
    running = agent.run_snapshot(str(UUID(int=9)), "s", 0)
    assert running.port == gone.port
    with pytest.raises(BadRequest):
        agent.set_state(str(UUID(int=10)), RegionState.CREATED)


def test_of_two_destroyed_regions_of_one_port_only_one_comes_back_and_neither_in_one_wish(agent):
    first, second = destroyed(agent, 10), destroyed(agent, 11)
    assert first.port == second.port
    with pytest.raises(BadRequest):
        agent.check_states(dict.fromkeys(agent.regions, RegionState.CREATED))
    agent.set_state(str(UUID(int=11)), RegionState.CREATED)
    with pytest.raises(BadRequest):
        agent.set_state(str(UUID(int=10)), RegionState.CREATED)


def test_running_snapshots_are_there_after_a_restart_and_those_that_ended_have(agents, agent):
    region_id = str(UUID(int=10))
    region = agent.create(request(), 0)
    for name in ("runs", "ended", "idle"):
        agent.take_snapshot(region, name, 7)
    for name in ("runs", "ended"):
        agent.run_snapshot(region_id, name, 0)
    agent.stop_snapshot(region_id, "ended", 0)
    again = agents.agent(OTHER)
    again.load(agent.dump(), 100)
    snapshots, running = again.snapshots(region_id)
    assert [(each.name, each.created_us) for each in snapshots] == [("runs", 7), ("ended", 7), ("idle", 7)]
    assert [(each.name, each.port, each.state) for each in running] == [
        (each.name, each.port, each.state) for each in agent.snapshots(region_id)[1]
    ]
    assert [each.state for each in running] == [RegionState.CREATED, RegionState.DESTROYED]


def test_what_was_under_way_at_a_restart_is_over_after_it(agents, agent):
    gone, made = str(UUID(int=10)), str(UUID(int=11))
    agent.create(request(10), 0)
    agent.knobs.delete_us = agent.knobs.create_us = 50
    agent.delete(gone, 0)
    agent.create(request(11), 0)
    assert agent.get(gone).state is RegionState.TOMBSTONED
    again = agents.agent(OTHER)
    again.load(agent.dump(), 100)
    assert again.get(gone).state is RegionState.DESTROYED
    assert again.get(made).state is RegionState.CREATED
    assert again.next_deadline_us() is None
