"""Does guidance find more? Every wrong Nexus, wrong sled and hazard, hunted with plain seeds and with a guided swarm.

    python -m tests.campaign.guided [--ground few|rough] [--runs-max 150] [--campaigns 10] [--only NAME,...]
                                    [--ways plain,guided,swarm] [--into FILE]

Prints a Markdown table for docs/campaigns.md: the median number of runs until the first failure that a right Nexus
with right sleds does not have, and the virtual time of all those runs, as runs of a swarm are longer.
A campaign without a find counts as one run more than there may be: `> N`. `few` is a calm ground, `rough` has faults.
`swarm` is one without guidance. A wrong that both find within two runs is trivial: nothing can be quicker.
"""

import argparse
import json
from contextlib import suppress
from pathlib import Path
from statistics import median_high

import attrs

from nexus_client.stub.hazards import Hazard
from nexus_client.stub.variants import VARIANTS
from sim_sled.campaign.guide import Guided, OneByOne, Swarm
from sim_sled.campaign.job import AGENT_HAZARDS, Job, failures_of, play_seed
from sim_sled.campaign.version import code_version
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
    """How many runs the first find took (one more than there may be: there was none), and their virtual time."""
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


def campaign(scenario, how, hazard, way, n):
    """The job and the guide of the n-th campaign of a way."""
    match way:
        case "plain":
            return Job("ground", scenario, how, hazard=hazard), OneByOne(n * APART)
        case "swarm":
            return Job("ground", scenario, how, swarm=True, hazard=hazard), Swarm(n)
        case _:
            return Job("ground", scenario, how, swarm=True, covers=True, hazard=hazard), Guided(n)


def played(head, into):
    """What stands in the file: (wrong, way, campaign) to what `until_found` gave. A torn last line is
    played again.
    """
    if into is None or not into.exists():
        if into is not None:
            into.write_text(json.dumps(head) + "\n")
        return {}
    first, *lines = into.read_text().splitlines()
    if json.loads(first) != head:
        raise SystemExit(f"{into}: of other code, of another ground or bound: {first}")
    found = {}
    for line in lines:
        with suppress(ValueError):
            one = json.loads(line)
            found[one["wrong"], one["way"], one["campaign"]] = one["runs"], one["virtual_us"]
    return found


def play_missing(options, done):
    """Plays campaign after campaign, and appends each. When half of a wrong's campaigns found nothing, their
    median is known, and the others are not played.
    """
    ground = Path(__file__).with_name(f"{options.ground}.yaml")
    scenario = library.load([str(ground)])[0][0].scenario
    for way in options.ways.split(","):
        for _, name, how, hazard in chosen(options):
            for n in range(options.campaigns):
                in_vain = sum(done.get((name, way, i), (0, 0))[0] > options.runs_max for i in range(n))
                if (name, way, n) in done or 2 * in_vain >= options.campaigns:
                    continue
                runs, us = until_found(*campaign(scenario, how, hazard, way, n), options.runs_max)
                done[name, way, n] = runs, us
                if options.into is not None:
                    line = {"wrong": name, "way": way, "campaign": n, "runs": runs, "virtual_us": us}
                    with options.into.open("a") as file:
                        file.write(json.dumps(line) + "\n")


def row(kind, name, done, options):
    cells, medians = [], {}
    for way in options.ways.split(","):
        found = [done[name, way, n] for n in range(options.campaigns) if (name, way, n) in done]
        in_vain = sum(runs > options.runs_max for runs, _ in found)
        if 2 * in_vain >= options.campaigns:
            cells.append(f"> {options.runs_max}")
            medians[way] = options.runs_max + 1
        else:
            runs, minutes = median_high([each[0] for each in found]), median_high([each[1] for each in found]) / 60e6
            cells.append(f"{runs} ({minutes:.0f} min)")
            medians[way] = runs
    return f"| {kind} | `{name}` | {' | '.join(cells)} | {verdict(medians, options.runs_max)} |"


def chosen(options):
    only = {name for name in options.only.split(",") if name}
    return [each for each in wrongs() if not only or each[1] in only]


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
    parser.add_argument("--runs-max", type=int, default=150)
    parser.add_argument("--ways", default="plain,guided")
    parser.add_argument("--campaigns", type=int, default=10)
    parser.add_argument("--only", default="")
    parser.add_argument("--into", type=Path, help="keeps each campaign's result; what is there is not played again")
    options = parser.parse_args()
    head = {"code": code_version(), "ground": options.ground, "runs_max": options.runs_max}
    done = played(head, options.into)
    play_missing(options, done)
    named = {"plain": "plain seeds", "guided": "guided swarm", "swarm": "unguided swarm"}
    heads = ["wrong", "name", *(named[way] for way in options.ways.split(",")), "guided needs"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for kind, name, _, _ in chosen(options):
        print(row(kind, name, done, options))


if __name__ == "__main__":
    main()
