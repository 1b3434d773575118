"""A campaign: seeds are played somewhere, told in order, kept in a file, and what failed is grouped by its reason.

    seeds ──> place (here, processes, cluster) ──> in order ──> file ──> groups, figures

What a campaign finds depends on its job, its seeds and when it shall stop; never on where, in which batches or how
often interrupted it was played.

Read before: campaign/places.py, campaign/sheet.py. Read next: campaign/groups.py, cli/exploring.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs

from sim_sled.campaign.job import Job, Ran
from sim_sled.campaign.places import Here, Place, Processes, Sizer, in_order
from sim_sled.campaign.sheet import BadSheet, Sheet

SEEDS_END: Final = 2**64
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
    groups: dict[str, Group] = attrs.field(factory=dict)

    def add(self, ran: Ran) -> None:
        self.runs += 1
        self.virtual_us += ran.elapsed_us
        self.steps += ran.steps
        if not ran.failures:
            return
        self.failed += 1
        what, text = ran.failures[0]
        group = self.groups.setdefault(what, Group(what, text))
        group.count += 1
        if len(group.seeds) < SEEDS_TOLD:
            group.seeds.append(ran.seed)


Told = Callable[[Explored], None]


def seeds_from(first: int, runs: int) -> Iterator[int]:
    """So many, one after the other, within 64 bits."""
    return ((first + i) % SEEDS_END for i in range(runs))


def explore(
    job: Job,
    seeds: Iterable[int],
    place: Place | None = None,
    *,
    sheet: Sheet | None = None,
    stop_after: int | None = None,
    told: Told | None = None,
) -> Explored:
    """Plays seeds until they are through, or so many runs failed; `told` after each. Without a place: here.

    Raises `NobodyPlays`, `BadSheet`, `CannotWrite`; what is in the file until then is good, and can be resumed.
    """
    explored = Explored()
    following = iter(seeds)
    sheet_ran = iter(()) if sheet is None else sheet.earlier()
    for ran in sheet_ran:
        wanted = next(following, None)
        if wanted is None:
            break  # more is known than is asked for
        if ran.seed != wanted:
            line = explored.runs + 2
            raise BadSheet(f"line {line} of the file has seed {ran.seed}; this campaign has {wanted} there")
        explored.add(ran)
        explored.resumed += 1
        if told is not None:
            told(explored)
        if stop_after is not None and explored.failed >= stop_after:
            return explored
    place = place or Here(job)
    for ran in in_order(place, following, Sizer(place.batch_max)):
        if sheet is not None:
            sheet.append(ran)
        explored.add(ran)
        if told is not None:
            told(explored)
        if stop_after is not None and explored.failed >= stop_after:
            break
    return explored


def place_of(job: Job, jobs: int) -> Place:
    """On this machine."""
    return Here(job) if jobs <= 1 else Processes(job, jobs)
