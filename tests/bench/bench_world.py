"""Virtual time: how much of it fits into a second of the wall clock, against a bare heap loop in the same run.

    python -m tests.bench --only g [--quick]

The floor pops and pushes as many entries as the world made steps and does nothing else. A step of the world is a
request or report on its way, a rule, a turn of the rack, a saga node of Nexus: not one heap entry's worth,
so the ratio says how much of a run is the clockwork and how much is the machinery it drives. It has no aim: a tenth
of it was ours once, and meant a whole step of Nexus, rules and sleds in the time of ten heap entries, 3 us. What is
wanted is told in seconds, microseconds and flatness, by the rows beside it.

For the cost per event all populations get the same events: a fixed rate of churn, whatever lives besides. Health
checks are switched off there, since their number grows with the population, which would compare unlike mixtures.
Everything is in processor time, which neighbours on the machine disturb less.
"""

import heapq
import statistics
import time
from pathlib import Path

import attrs

from nexus_client.stub.config import Config, SagaMode
from sim_sled.language.check import load_scenarios, parse_scenario
from sim_sled.language.schema import Scenario
from sim_sled.play.run import How, play
from sim_sled.play.virtual import World

DEV_CLUSTER = Path(__file__).resolve().parents[2] / "scenarios" / "dev-cluster.yaml"
LOAD = """version: 1
fleet: {{sleds: 8, shape: {{cpus: 256, ram: 2TiB, reservoir: 1600GiB}}}}
load:
- at: 0s
  create: {{hostname: "churn-0{{n}}", count: {population}, spread: 60s}}
- every: 8s..12s
  from: 60s
  to: {lasts}
  churn: {{population: {population}, create: 6, stop: 2, start: 2, reboot: 2, migrate: 1, delete: 1}}
"""
CROWD = """version: 1
fleet: {{sleds: 64, shape: {{cpus: 4096, ram: 8TiB, reservoir: 6TiB}}}}
latency: {{starting -> running: 4s, rebooting -> running: 3s, stopping -> stopped: 800ms, stopped -> destroyed: 4s}}
load:
- at: 0s
  create: {{hostname: "churn-0{{n}}", ncpus: 1, memory: 1GiB, count: {live}, spread: {spread}s}}
- every: 20ms
  from: {from_}s
  to: 100h
  churn: {{population: 1000000, ncpus: 1, memory: 1GiB, create: 1, stop: 2, start: 2, reboot: 4, delete: 1}}
"""
DAY_S = 25.0
"""What 24 virtual hours of 200 churning VMMs may take."""
STEP_US = 28.0
"""... a step beside a thousand that live."""
SET_UP_S = 100.0
"""... and to set up 200,000."""
PER_S = 200  # instances created in a second of virtual time: few sagas at once, as in life


@attrs.frozen
class Size:
    """How much of everything. `steps`: of one turn, with each population."""

    rounds: int
    live: tuple[int, int]
    steps: int
    churning: int
    lasts: str


def churning(population: int, lasts: str) -> Scenario:
    """`dev-cluster`, its latencies, rules and expectations, with so many VMMs that come and go."""
    (loaded,), _ = load_scenarios([str(DEV_CLUSTER)])
    load, problems = parse_scenario(LOAD.format(population=population, lasts=lasts))
    assert load is not None, problems.text()
    return attrs.evolve(loaded.scenario, fleet=load.fleet, load=load.load)


def a_day(size: Size) -> tuple[float, float]:
    """(seconds for 24 virtual hours, steps in a second)."""
    scenario = churning(size.churning, size.lasts)
    started = time.process_time()
    result = play(scenario, 1, How(keep=False))
    took = time.process_time() - started
    others = [one.text for one in result.failures if not one.key.startswith("expect/boots-in-time")]
    assert not others, others  # of thousands of boots with p99 20 s some take more than a minute
    return took * 86_400_000_000 / result.elapsed_us, result.steps / took


class Crowd:
    """A world in which `live` VMMs run, and the churn begins."""

    def __init__(self, live: int):
        spread = max(1, live // PER_S)
        scenario, problems = parse_scenario(CROWD.format(live=live, spread=spread, from_=spread + 30))
        assert scenario is not None, problems.text()
        model = Config(saga_mode=SagaMode.QUEUED, saga_node_us=5_000, watcher_period_us=None)
        self.live = live
        began = time.process_time()
        self.world = World(scenario, 1, keep=False, nexus_config=model)
        self.world.begin()
        self._until((spread + 60) * 1_000_000)  # the churn has come to its own pace
        self.set_up_s = time.process_time() - began
        running = sum(sled.vmms for sled in self.world.engine.cast.sleds.values())
        assert running > 0.8 * live, f"{running} of {live} VMMs live"

    def _until(self, elapsed_us: int) -> None:
        world = self.world  # which says itself when the next step is due, and need not be asked beforehand
        while world.elapsed_us < elapsed_us and world.step():
            pass

    def steps_per_s(self, steps: int) -> float:
        step = self.world.step
        started = time.process_time()
        for _ in range(steps):
            step()
        return steps / (time.process_time() - started)


def heap_per_s(events: int, pending: int) -> float:
    """Pops and pushes in a second, with so many entries waiting."""
    entries = [(i * 7919 % 1_000_003, i) for i in range(pending)]
    heapq.heapify(entries)
    started = time.process_time()
    for i in range(events):
        due, _ = heapq.heappop(entries)
        heapq.heappush(entries, (due + i * 7919 % 1_000_003, i))
    return events / (time.process_time() - started)


def bench(size: Size) -> list[tuple]:
    """The fields of each row: name, ours, floor, ratio, unit, aim, whether that is the most."""
    days = [a_day(size) for _ in range(max(1, size.rounds // 3))]
    day = min(one for one, _ in days)
    floors = [heap_per_s(size.steps, size.churning) for _ in range(size.rounds)]
    events = max(one for _, one in days)
    floor = statistics.median(floors)
    crowds = [Crowd(live) for live in size.live]
    ours: dict[int, list[float]] = {crowd.live: [] for crowd in crowds}
    heaps: dict[int, list[float]] = {crowd.live: [] for crowd in crowds}
    for number in range(size.rounds + 1):
        for crowd in crowds if number % 2 else crowds[::-1]:
            rate, bare = crowd.steps_per_s(size.steps), heap_per_s(size.steps, crowd.live)
            if number:
                ours[crowd.live].append(rate)
                heaps[crowd.live].append(bare)
    rate = {live: max(rates) for live, rates in ours.items()}
    bare = {live: statistics.median(rates) for live, rates in heaps.items()}
    few, many = size.live
    return [
        (f"(g) 24 hours of {size.churning} churning VMMs; floor: the aim", day, DAY_S, day / DAY_S, "s", 1.0, True),
        ("(g) its virtual events; floor: a bare heap", events, floor, events / floor, "events/s", None),
        *(
            (f"(g) churn beside {live:,} live VMMs; floor: heap", rate[live], bare[live], rate[live] / bare[live],
             "events/s", None)
            for live in size.live
        ),
        (f"(g) a step beside {few:,} live VMMs; floor: the aim", 1e6 / rate[few], STEP_US, 1e6 / rate[few] / STEP_US,
         "us", 1.0, True),
        *(
            (f"(g) set-up of {crowd.live:,} live VMMs; floor: the aim", crowd.set_up_s, SET_UP_S * share,
             crowd.set_up_s / SET_UP_S / share, "s", 1.0, True)
            for crowd in crowds[1:] for share in (crowd.live / 200_000,)
        ),
        (f"(g) cost per event, {many:,} live against {few:,}", 1e6 / rate[many], 1e6 / rate[few],
         rate[few] / rate[many], "us", 1.3, True),
    ]  # fmt: skip
