"""A campaign: seeds are played somewhere, told in order, kept in a file, and what failed is grouped by its reason.

    seeds ──> place (here, processes, cluster) ──> in order ──> file ──> groups, figures

What a campaign finds depends on its job, its seeds and when it shall stop; never on where, in which batches or how
often interrupted it was played.

Read before: campaign/guide.py, campaign/places.py, campaign/sheet.py. Read next: campaign/groups.py,
cli/exploring.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Final

import attrs

from sim_sled.campaign.guide import Guide
from sim_sled.campaign.job import Job, Ran
from sim_sled.campaign.places import Here, Place, Processes, Sizer, in_order
from sim_sled.campaign.sheet import BadSheet, Sheet

SEEDS_TOLD: Final = 20
"""Seeds kept of one group: whoever needs more has them in the file."""


@attrs.define
class Group:
    """Failing runs with one reason: the key of their first failure. The first of them stands for all."""

    what: str
    text: str
    seeds: list[int] = attrs.field(factory=list)
    count: int = 0


@attrs.define
class Explored:
    """How far a campaign is, and what it has found."""

    runs: int = 0
    failed: int = 0
    resumed: int = 0
    """Of the runs, those that stood in the file already."""
    virtual_us: int = 0
    steps: int = 0
    covered: int = 0
    """What was reached for the first time, in a guided campaign."""
    newest: int = 0
    """The run (from 1) that last reached something new."""
    groups: dict[str, Group] = attrs.field(factory=dict)

    def add(self, ran: Ran) -> None:
        self.runs += 1
        self.virtual_us += ran.elapsed_us
        self.steps += ran.steps
        if ran.reached:
            self.covered += len(ran.reached)
            self.newest = self.runs
        if not ran.failures:
            return
        self.failed += 1
        what, text = ran.failures[0]
        group = self.groups.setdefault(what, Group(what, text))
        group.count += 1
        if len(group.seeds) < SEEDS_TOLD:
            group.seeds.append(ran.seed)


Told = Callable[[Explored], None]


def explore(
    job: Job,
    guide: Guide,
    runs: int,
    place: Place | None = None,
    *,
    sheet: Sheet | None = None,
    stop_after: int | None = None,
    told: Told | None = None,
) -> Explored:
    """Plays so many seeds of a guide, or until so many failed; `told` after each. Without a place: here.

    Raises `NobodyPlays`, `BadSheet`, `CannotWrite`; what is in the file until then is good, and can be resumed.
    """
    explored = Explored()
    place = Here(job) if place is None else place
    sizer = Sizer(place.batch_max)

    def play(seeds: Iterator[int]) -> Iterator[Ran]:
        # a round is over when its last seed is: all players shall have a part of it
        share = None if guide.size is None else max(1, guide.size // (2 * place.players()))
        return in_order(place, seeds, sizer, share)

    earlier = iter(()) if sheet is None else sheet.earlier()
    for round_ in guide.rounds():
        seeds = islice(round_, runs - explored.runs)
        for ran, is_new in _played(play, seeds, earlier, explored):
            noted = guide.learn(ran)
            if is_new and sheet is not None:
                sheet.append(noted)
            explored.add(noted)
            explored.resumed += not is_new
            if told is not None:
                told(explored)
            if stop_after is not None and explored.failed >= stop_after:
                return explored
        if explored.runs >= runs:
            break
    return explored


def _played(
    play: Callable[[Iterator[int]], Iterator[Ran]], seeds: Iterator[int], earlier: Iterator[Ran], explored: Explored
) -> Iterator[tuple[Ran, bool]]:
    """What the seeds of a round gave: as far as the file goes from it, then played. Whether each is new."""
    for seed in seeds:
        ran = next(earlier, None)
        if ran is None:
            yield from ((played, True) for played in play(chain([seed], seeds)))
            return
        if ran.seed != seed:
            line = explored.runs + 2
            raise BadSheet(f"line {line} of the file has seed {ran.seed}; this campaign has {seed} there")
        yield ran, False


def place_of(job: Job, jobs: int) -> Place:
    """On this machine."""
    return Here(job) if jobs <= 1 else Processes(job, jobs)
