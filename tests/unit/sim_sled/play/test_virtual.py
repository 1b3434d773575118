"""virtual.py: the next step is that of whoever is due first, however few were asked."""

from nexus_client.stub.config import Config, SagaMode
from sim_sled.language.check import parse_scenario
from sim_sled.play.run import play
from sim_sled.play.virtual import World

CHURN = """version: 1
fleet: {sleds: 3}
latency: {starting -> running: 50ms..4s, stopping -> stopped: 800ms, network: 1ms..30ms}
load:
- at: 0s
  create: {hostname: "web-0{n}", count: 4}
- every: 1s..3s
  from: 5s
  to: 60s
  churn: {population: 6, create: 3, stop: 2, start: 2, reboot: 2, migrate: 1, delete: 1}
rules:
- {name: crash, when: {at: 30s}, do: {restart_nexus: {down: 4s}}}
- {name: often, when: {every: 7s, to: 50s}, do: {note: still here}}
expect:
- {name: boots, after: {state: starting}, within: 20s, that: {instance: running}}
"""


def first_of_all(world):
    """When the first of everybody is due, looked for among all of them."""
    conductor, ctx = world.conductor, world.nexus._ctx
    dues = [entry[0] for entry in conductor._heap]
    dues += [entry[0] for entry in world.engine.timers._heap]
    dues += [actor.due_us for sled in world.rack.sleds.values() for actor in (sled, *sled.vmms.values())]
    dues += [entry[0] for entry in world.users._due]
    dues += [due_us for due_us, _, armed in world.judge._due if not armed.over]
    if world.nexus.up:
        dues += ctx.task_due_us.values()
        dues += [saga.due_us for saga in world.nexus.sagas]
        dues += [ctx.now_us for _ in ctx.ready_sagas]
    return min((due for due in dues if due is not None), default=None)


def test_whoever_is_due_first_comes_next_at_every_step_of_a_run():
    scenario, problems = parse_scenario(CHURN)
    assert scenario is not None, problems.text()
    world = World(scenario, 5, keep=False, nexus_config=Config(saga_mode=SagaMode.QUEUED, saga_node_us=5_000))
    world.begin()
    crashed = 0
    for _ in range(4_000):
        assert world.next_us() == first_of_all(world)
        if world.elapsed_us > 70_000_000 or not world.step():
            break
        crashed += not world.nexus.up
    assert world.elapsed_us > 60_000_000
    assert crashed > 0
    assert world.users.done > 10


PINNED = """version: 1
fleet: {sleds: 2}
latency: instant
load:
- at: 0s
  create: {hostname: "web-{n}", count: 3, sled: sled-2}
rules:
- {name: gone, when: {at: 30s}, for: {sled: sled-2}, do: [{power_off_sled: {lasts: forever}}, {expunge_sled: true}]}
"""


def test_vms_start_on_the_sled_that_the_scenario_names_until_it_is_expunged():
    scenario, problems = parse_scenario(PINNED)
    assert scenario is not None, problems.text()
    result = play(scenario, 1)
    registered = [line.sled for line in result.lines if line.kind == "registered"]
    assert registered == ["sled-2"] * 3 + ["sled-1"] * 3, "though the other one had more room"


LISTED = """version: 1
fleet: {sleds: 3}
latency: instant
load:
- at: 0s
  create: {hostname: web, sled: [sled-3, sled-2]}
- {at: 10s, stop: {hostname: web}}
- {at: 20s, start: {hostname: web}}
- {at: 30s, stop: {hostname: web}}
- {at: 40s, start: {hostname: web}}
"""


def test_of_a_list_of_sleds_each_start_is_on_the_next_and_the_last_one_stays():
    scenario, problems = parse_scenario(LISTED)
    assert scenario is not None, problems.text()
    result = play(scenario, 1)
    assert [line.sled for line in result.lines if line.kind == "registered"] == ["sled-3", "sled-2", "sled-2"]


def test_each_sled_of_a_list_is_one_that_there_is():
    _, problems = parse_scenario(LISTED.replace("sled-2]", "sled-7]"))
    assert "E262" in problems.text()
