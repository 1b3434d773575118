"""Virtual time: how much of it fits into a second of the wall clock, against a bare heap loop in the same run.

    python -m tests.bench --only g [--quick]

The floor pops and pushes as many entries as the world made steps and does nothing else. A step of the world is a
request or report on its way, a rule, a turn of the rack, a saga node of Nexus: not one heap entry's worth,
so the ratio says how much of a run is the clockwork and how much is the machinery it drives.

For the cost per event all populations get the same events: a fixed rate of churn, whatever lives besides. Health
checks are switched off there, since their number grows with the population, which would compare unlike mixtures.
Events per second are per second of processor time, which neighbours on the machine disturb less; hours per minute
are the wall clock's.
"""

import gc
import heapq
import statistics
import time
from pathlib import Path

import attrs

from nexus_client.stub.config import Config, SagaMode
from sim_sled.language.check import load_scenarios, parse_scenario
from sim_sled.language.schema import Scenario
from sim_sled.play.run import How, play
from sim_sled.play.virtual import EPOCH_US, World

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


def hours_per_minute(size: Size) -> tuple[float, float]:
    """(virtual hours in a minute of the wall clock, steps in a second)."""
    scenario = churning(size.churning, size.lasts)
    started, started_cpu = time.perf_counter(), time.process_time()
    result = play(scenario, 1, How(keep=False))
    took, cpu = time.perf_counter() - started, time.process_time() - started_cpu
    others = [one.text for one in result.failures if not one.key.startswith("expect/boots-in-time")]
    assert not others, others  # of thousands of boots with p99 20 s some take more than a minute
    return result.elapsed_us / 6e7 / took, result.steps / cpu


class Crowd:
    """A world in which `live` VMMs run, and the churn begins."""

    def __init__(self, live: int):
        spread = max(1, live // PER_S)
        scenario, problems = parse_scenario(CROWD.format(live=live, spread=spread, from_=spread + 30))
        assert scenario is not None, problems.text()
        model = Config(saga_mode=SagaMode.QUEUED, saga_node_us=5_000, watcher_period_us=None)
        self.live = live
        self.world = World(scenario, 1, keep=False, nexus_config=model)
        gc.disable()  # nothing of what is built here is garbage
        self.world.begin()
        self._until((spread + 60) * 1_000_000)  # the churn has come to its own pace
        gc.enable()  # and from here on as the product has it: nothing of the crowd is frozen
        running = sum(sled.vmms for sled in self.world.engine.cast.sleds.values())
        assert running > 0.8 * live, f"{running} of {live} VMMs live"

    def _until(self, elapsed_us: int) -> None:
        while (self.world.next_us() or 0) - EPOCH_US < elapsed_us:
            self.world.step()

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
    hours = [hours_per_minute(size) for _ in range(max(1, size.rounds // 3))]
    hour = statistics.median(one for one, _ in hours)
    floors = [heap_per_s(size.steps, size.churning) for _ in range(size.rounds)]
    events = statistics.median(one for _, one in hours)
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
    rate = {live: statistics.median(rates) for live, rates in ours.items()}
    bare = {live: statistics.median(rates) for live, rates in heaps.items()}
    few, many = size.live
    return [
        (f"(g) dev-cluster, {size.churning} churning VMMs; floor: the aim", hour, 24.0, hour / 24, "hours/min", 1.0),
        ("(g) its virtual events; floor: a bare heap", events, floor, events / floor, "events/s", 0.1),
        *(
            (f"(g) churn beside {live:,} live VMMs; floor: heap", rate[live], bare[live], rate[live] / bare[live],
             "events/s", 0.1)
            for live in size.live
        ),
        (f"(g) cost per event, {many:,} live against {few:,}", 1e6 / rate[many], 1e6 / rate[few],
         rate[few] / rate[many], "us", 1.3, True),
    ]  # fmt: skip
