"""Does guidance find more? Every wrong Nexus, wrong sled and hazard, hunted with plain seeds and with a guided swarm.

    python -m tests.campaign.guided [--runs-max 100] [--campaigns 10] [--only NAME,...]

Prints a Markdown table for docs/campaigns.md: the median number of runs until the first failure that a right Nexus
with right sleds does not have. Campaigns without a find count as `runs-max`, shown as `> N`.
"""

import argparse
from pathlib import Path
from statistics import median_high

from nexus_client.stub.hazards import Hazard
from nexus_client.stub.variants import VARIANTS
from sim_sled.campaign.guide import Guided, OneByOne
from sim_sled.campaign.job import AGENT_HAZARDS, Job, play_seed
from sim_sled.play import library
from sim_sled.play.run import How
from sim_sled.play.wrong_sleds import SLED_VARIANTS

GROUND = Path(__file__).with_name("crowd.yaml")
APART = 1_000_000
"""Between the first seeds of two plain campaigns."""


def wrongs():
    """(what it is, its name, how it is played, its hazard)."""
    for name in sorted(VARIANTS):
        yield "Nexus", name, How(variant=name), None
    for name in sorted(SLED_VARIANTS):
        yield "sleds", name, How(sled_variant=name), None
    for name in (*AGENT_HAZARDS, *(hazard.value for hazard in Hazard)):
        yield "hazard", name, How(), name


def runs_until_found(job, guide, runs_max):
    """How many runs the first failure took; None: there was none."""
    runs = 0
    for round_ in guide.rounds():
        for seed in round_:
            runs += 1
            ran = play_seed(job, seed)
            if ran.failures:
                return runs
            guide.learn(ran)
            if runs >= runs_max:
                return None
    return None


def row(kind, name, how, hazard, options):
    scenario = library.load([str(GROUND)])[0][0].scenario
    ways = {
        "plain": lambda n: (Job("crowd", scenario, how, hazard=hazard), OneByOne(n * APART)),
        "guided": lambda n: (Job("crowd", scenario, how, swarm=True, covers=True, hazard=hazard), Guided(n)),
    }
    cells = []
    for way in ways.values():
        found = [runs_until_found(*way(n), options.runs_max) for n in range(options.campaigns)]
        middle = median_high([options.runs_max + 1 if runs is None else runs for runs in found])
        cells.append(f"> {options.runs_max}" if middle > options.runs_max else str(middle))
    return f"| {kind} | `{name}` | {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs-max", type=int, default=100)
    parser.add_argument("--campaigns", type=int, default=10)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    only = {name for name in options.only.split(",") if name}
    print("| wrong | name | plain seeds | guided swarm |\n|---|---|---|---|", flush=True)
    for kind, name, how, hazard in wrongs():
        if not only or name in only:
            print(row(kind, name, how, hazard, options), flush=True)


if __name__ == "__main__":
    main()
