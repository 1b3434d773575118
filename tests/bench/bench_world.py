"""Virtual time: how much of it fits into a second of the wall clock, against a bare heap loop in the same run.

    python -m tests.bench.bench_world [--quick]

The floor pops and pushes as many entries as the world made steps and does nothing else. A step of the world is a
request or report on its way, a rule, a turn of the rack, a saga node of Nexus: not one heap entry's worth,
so the ratio says how much of a run is the clockwork and how much is the machinery it drives.
"""

import argparse
import heapq
import json
import statistics
import time

from sim_sled.scenario.check import parse_scenario
from sim_sled.world_run import How, play

CLUSTER = """version: 1
fleet: {{sleds: 8, shape: {{cpus: 256, ram: 2TiB, reservoir: 1600GiB}}}}
latency:
  request vmm_register: lognormal(p50=40ms p99=400ms)
  starting -> running: lognormal(p50=4s p99=20s)
  rebooting -> running: lognormal(p50=3s p99=12s)
  stopping -> stopped: lognormal(p50=800ms p99=5s)
  stopped -> destroyed: lognormal(p50=4s p99=25s)
load:
- at: 0s
  create: {{hostname: "churn-0{{n}}", count: {population}, spread: 60s}}
- every: 8s..12s
  from: 60s
  to: {lasts}
  churn: {{population: {population}, create: 6, stop: 2, start: 2, reboot: 2, migrate: 1, delete: 1}}
"""


def world(population, lasts):
    """(steps, virtual hours, seconds) of one run."""
    scenario, problems = parse_scenario(CLUSTER.format(population=population, lasts=lasts))
    assert scenario is not None, problems.text()
    started = time.perf_counter()
    result = play(scenario, 1, How(keep=False))
    took = time.perf_counter() - started
    assert result.good, [failure.text for failure in result.failures]
    return result.steps, result.elapsed_us / 3.6e9, took


def heap(events, pending):
    """Seconds for as many pops and pushes with so many entries waiting."""
    entries = [(i * 7919 % 1_000_003, i) for i in range(pending)]
    heapq.heapify(entries)
    started = time.perf_counter()
    for i in range(events):
        due, _ = heapq.heappop(entries)
        heapq.heappush(entries, (due + i * 7919 % 1_000_003, i))
    return time.perf_counter() - started


def measure(quick):
    rounds, lasts = (1, "10m") if quick else (3, "2h")
    rows = []
    for population in (50, 200) if quick else (50, 200, 800):
        ours, floor, hours = [], [], []
        for _ in range(rounds):
            steps, virtual_h, took = world(population, lasts)
            ours.append(steps / took)
            floor.append(steps / heap(steps, population))
            hours.append(virtual_h / took * 60)
        rows.append({
            "vmms": population,
            "steps_per_s": round(statistics.median(ours)),
            "heap_per_s": round(statistics.median(floor)),
            "ratio": round(statistics.median(ours) / statistics.median(floor), 4),
            "virtual_hours_per_minute": round(statistics.median(hours), 1),
        })  # fmt: skip
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    for row in measure(parser.parse_args().quick):
        print(json.dumps(row))
