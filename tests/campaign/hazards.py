"""The hunt for the known wrongs: each is searched for in a general churn from the first seed on, and then reduced.

    python -m tests.campaign.hazards [--jobs 2] [--only NAME]
    python -m tests.campaign.hazards --live

Exit 1 if one is not found within 200 seeds, or none of the first five with which it is found is reduced to two sleds
and three VMMs that show it with the hazard and not without: a reduction takes away and never rearranges, so the least
that it comes to depends on the seed.
`--live`: instead, the library's scenarios on real sockets and the wall clock, all at once, each with its hazard and
without (a quarter of an hour); exit 1 if an expectation does not fail, or fails.
"""

import argparse
import asyncio
import sys
import time
from itertools import islice

from sim_sled.daemon.on_sockets import play_on_sockets
from tests.sim.hazard_hunt import (
    PREY,
    SEEDS_MAX,
    SHOWN,
    SLEDS_MAX,
    VMMS_MAX,
    on_the_wall,
    reduced,
    scenario_of,
    shows,
    sightings,
)

TRIES = 5
"""Seeds that are reduced of each."""


async def live():
    async def one(name, scenario, expected):
        failed = (await play_on_sockets(scenario, 1, lambda _: None)).failures
        good = any(expected in failure.key for failure in failed) if expected else not failed
        print(f"{name}, hazard {'on' if expected else 'off'}: {'as it should' if good else failed}", flush=True)
        return good

    runs = []
    for name, switched_on, expectation in SHOWN:
        scenario = on_the_wall(scenario_of(name))
        runs += [one(name, scenario, ""), one(name, switched_on(scenario), expectation)]
    return not all(await asyncio.gather(*runs))


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.hazards")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--only", choices=[prey.name for prey in PREY])
    args = parser.parse_args()
    if args.live:
        return asyncio.run(live())
    jobs = args.jobs
    bad = 0
    for prey in [prey for prey in PREY if args.only in (None, prey.name)]:
        started = time.perf_counter()
        seed = None
        for seed in islice(sightings(prey, 0, SEEDS_MAX, jobs), TRIES):
            small = reduced(prey, seed)
            sleds = small.scenario.fleet.sleds
            big = sleds > SLEDS_MAX or small.vmms > VMMS_MAX
            other = not shows(prey, small)
            bad_because = "(too much) " if big else "(another fault) " if other else ""
            print(f"{prey.name}: seed {seed}, reduced to {sleds} sleds and {small.vmms} VMMs "
                  f"{bad_because}in {time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip
            if not big and not other:
                break
        else:
            bad += 1
        if seed is None:
            print(f"{prey.name}: not found within {SEEDS_MAX} seeds")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
