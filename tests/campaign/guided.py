"""Does guidance find more? Every wrong Nexus, wrong sled and hazard, hunted with plain seeds and with a guided swarm.

    python -m tests.campaign.guided [--ground few|rough] [--runs-max 60] [--campaigns 10] [--only NAME,...]
                                    [--ways plain,guided,swarm]

Prints a Markdown table for docs/campaigns.md: the median number of runs until the first failure that a right Nexus
with right sleds does not have, and the virtual time of all those runs, as runs of a swarm are longer.
A campaign without a find counts as one run more than there may be: `> N`. `few` is a calm ground, `rough` has faults.
`swarm` is one without guidance. A wrong that both find within two runs is trivial: nothing can be quicker.
"""

import argparse
from pathlib import Path
from statistics import median_high

import attrs

from nexus_client.stub.hazards import Hazard
from nexus_client.stub.variants import VARIANTS
from sim_sled.campaign.guide import Guided, OneByOne, Swarm
from sim_sled.campaign.job import AGENT_HAZARDS, Job, failures_of, play_seed
from sim_sled.play import library
from sim_sled.play.run import How, play
from sim_sled.play.wrong_sleds import SLED_VARIANTS

TRIVIAL = 2
"""Runs: whoever finds a wrong in so few cannot be beaten."""
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


def is_found(job, ran):
    """Whether a right Nexus with right sleds is not blamed for the same. A swarm has asked already (`play_seed`)."""
    if not ran.failures or job.swarm:
        return bool(ran.failures)
    right = job.right(ran.seed)
    anyhow = dict(failures_of(play(right.scenario, ran.seed, attrs.evolve(right.how, keep=False))))
    return any(key not in anyhow for key, _ in ran.failures)


def until_found(job, guide, runs_max):
    """How many runs the first find took (one more than there may be: there was none), and their virtual hours."""
    runs, elapsed_us = 0, 0
    for round_ in guide.rounds():
        for seed in round_:
            runs += 1
            ran = play_seed(job, seed)
            elapsed_us += ran.elapsed_us
            if is_found(job, ran):
                return runs, elapsed_us
            guide.learn(ran)
            if runs >= runs_max:
                return runs_max + 1, elapsed_us
    raise AssertionError("a guide has seeds for ever")


def row(kind, name, how, hazard, options):
    ground = Path(__file__).with_name(f"{options.ground}.yaml")
    scenario = library.load([str(ground)])[0][0].scenario
    ways = {
        "plain": lambda n: (Job("ground", scenario, how, hazard=hazard), OneByOne(n * APART)),
        "swarm": lambda n: (Job("ground", scenario, how, swarm=True, hazard=hazard), Swarm(n)),
        "guided": lambda n: (Job("ground", scenario, how, swarm=True, covers=True, hazard=hazard), Guided(n)),
    }
    cells, medians = [], {}
    for way in options.ways.split(","):
        found = [until_found(*ways[way](n), options.runs_max) for n in range(options.campaigns)]
        runs, minutes = median_high([each[0] for each in found]), median_high([each[1] for each in found]) / 60e6
        cells.append(f"> {options.runs_max}" if runs > options.runs_max else f"{runs} ({minutes:.0f} min)")
        medians[way] = runs
    return f"| {kind} | `{name}` | {' | '.join(cells)} | {verdict(medians, options.runs_max)} |"


def verdict(medians, runs_max):
    """What the guided swarm is against plain seeds."""
    if not {"plain", "guided"} <= medians.keys():
        return ""
    plain, guided = medians["plain"], medians["guided"]
    if min(plain, guided) > runs_max:
        return "neither found it"
    if max(plain, guided) <= TRIVIAL:
        return "trivial"
    return "fewer" if guided < plain else "equal" if guided == plain else "more"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ground", choices=("few", "rough"), default="few")
    parser.add_argument("--runs-max", type=int, default=60)
    parser.add_argument("--ways", default="plain,guided")
    parser.add_argument("--campaigns", type=int, default=10)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    only = {name for name in options.only.split(",") if name}
    named = {"plain": "plain seeds", "guided": "guided swarm", "swarm": "unguided swarm"}
    head = ["wrong", "name", *(named[way] for way in options.ways.split(",")), "guided needs"]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
    for kind, name, how, hazard in wrongs():
        if not only or name in only:
            print(row(kind, name, how, hazard, options), flush=True)


if __name__ == "__main__":
    main()
