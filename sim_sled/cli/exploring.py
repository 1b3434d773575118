"""`explore`: a campaign from the command line. Where it is played, which file it is kept in, how it is told.

Exit codes as elsewhere: 0 nothing failed, 1 a run failed, 2 bad input, 3 nobody to play it, 130 Ctrl-C.

Read before: campaign/explore.py, campaign/groups.py, cli/scenario_commands.py.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

import attrs

from nexus_client.dropshot.command_line import BAD_INPUT, FAILED, GOOD, UNREACHABLE
from nexus_client.dropshot.streams import CannotWrite
from nexus_client.dropshot.text import counted
from sim_sled.campaign.explore import Explored, Group, explore, place_of
from sim_sled.campaign.groups import GROUPS_MAX, Kept, again, can_shrink, keep_group
from sim_sled.campaign.guide import Guide, Guided, OneByOne, Swarm
from sim_sled.campaign.job import Job
from sim_sled.campaign.places import NobodyPlays, Place
from sim_sled.campaign.sheet import BadSheet, Sheet, head_of
from sim_sled.cli.scenario_commands import Outcome, bad_hazard, bad_variant, complaint, crowded, unwritable
from sim_sled.files import why_no_folder, write_text
from sim_sled.machine import assertions
from sim_sled.play import library
from sim_sled.play.run import How

HOUR_US: Final = 3_600_000_000


@attrs.frozen
class ExploreOptions:
    """Options of `explore`. `results`: the campaign's file. `on`: a scheduler. `found`: folders of the groups."""

    runs: int = 100
    jobs: int = 1
    first_seed: int = 0
    stop_after: int | None = None
    variant: str | None = None
    sled_variant: str | None = None
    results: Path | None = None
    resume: bool = False
    on: str | None = None
    hazard: str | None = None
    swarm: bool = False
    guided: bool = True
    shrink: bool = False
    found: Path | None = None
    out: Path | None = None
    as_json: bool = False
    junit: Path | None = None
    files_from: tuple[Path, ...] = ()


def explore_file(
    path: str,
    options: ExploreOptions,
    told: Callable[[Explored], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Explored | None, Outcome]:
    """Plays a campaign and tells it. `say` is told sentences on the way, e.g. of a worker that is refused."""
    bad = _bad(options)
    if bad is not None:
        return None, bad
    [one, *_], problems = library.load([path], options.files_from)
    if one.scenario is None:
        return None, Outcome("", BAD_INPUT, problems.text())
    how = How(variant=options.variant, sled_variant=options.sled_variant)
    covers = options.swarm and options.guided
    job = Job(path, one.scenario, how, swarm=options.swarm, covers=covers, hazard=options.hazard)
    guide = guide_of(options)
    explored = Explored()

    def count(so_far: Explored) -> None:
        nonlocal explored
        explored = so_far
        if told is not None:
            told(so_far)

    try:
        with ExitStack() as stack:
            sheet = _sheet(job, guide.order, options, stack)
            place: Place
            if options.on is not None:
                from sim_sled.campaign.cluster import Cluster

                place = Cluster(job, options.on, say)
            else:
                place = place_of(job, options.jobs)
            stack.callback(place.close)
            antithesis = assertions()
            if antithesis is not None:
                from sim_sled.antithesis import begin_campaign, tell_campaign

                stack.callback(antithesis.close)
                told_there = begin_campaign(antithesis, one.scenario)
            explored = explore(
                job, guide, options.runs, place, sheet=sheet, stop_after=options.stop_after, told=count
            )
            if antithesis is not None:
                failed = {key: (group.count, group.seeds[0], group.text) for key, group in explored.groups.items()}
                tell_campaign(antithesis, told_there, explored.runs, failed)
    except BadSheet as error:
        return None, complaint(str(error))
    except NobodyPlays as error:
        hint = f"; --resume goes on with {options.results}" if options.results is not None else ""
        return None, complaint(f"{error}{_until_then(explored, hint)}", UNREACHABLE)
    except CannotWrite as error:
        return None, complaint(f"{error}{_until_then(explored)}")
    return explored, _told(job, explored, options, say)


def _written(options: ExploreOptions) -> dict[str, Path | None]:
    return {"--out": options.out, "--junit": options.junit}


def _bad(options: ExploreOptions) -> Outcome | None:
    """What is wrong with the options, as far as it can be seen before anything is played."""
    written = _written(options)
    bad = bad_variant(options.variant, options.sled_variant) or bad_hazard(options.hazard)
    bad = bad or unwritable((*written.values(), options.results)) or crowded(written, as_json=options.as_json)
    why = None if options.found is None else why_no_folder(options.found)
    return bad or (None if why is None else complaint(why))


def _told(job: Job, explored: Explored, options: ExploreOptions, say: Callable[[str], None]) -> Outcome:
    """What a campaign has found is kept and told."""
    code, wrong = FAILED if explored.failed else GOOD, ""
    kept: list[Kept] = []
    try:
        _keep(job, explored, options, say, kept)
        if options.out is not None:
            seeds = (f"{seed}\n" for group in explored.groups.values() for seed in group.seeds)
            write_text(options.out, "".join(seeds))
        if options.junit is not None:
            write_text(options.junit, junit(job, explored))
    except CannotWrite as error:  # what it has found is told all the same: it may have been a night's work
        code, wrong = BAD_INPUT, f"sim-sled: {error}\n"
    if options.as_json:
        return Outcome(json.dumps(plain(job, explored, kept), indent=1) + "\n", code, wrong)
    text = text_of(job, explored, kept, _ended(explored, options))
    if Path("-") in _written(options).values():  # stdout is for whatever reads that
        return Outcome("", code, text + wrong)
    return Outcome(text, code, wrong)


def _ended(explored: Explored, options: ExploreOptions) -> str:
    """What ended a campaign before its last run."""
    if options.stop_after is None or explored.runs >= options.runs or explored.failed < options.stop_after:
        return ""
    return f"; ended by --failures {options.stop_after}, of {counted(options.runs, 'run')}"


def guide_of(options: ExploreOptions) -> Guide:
    """Which seeds a campaign plays."""
    if not options.swarm:
        return OneByOne(options.first_seed)
    return Guided(options.first_seed) if options.guided else Swarm(options.first_seed)


def _sheet(job: Job, order: str, options: ExploreOptions, stack: ExitStack) -> Sheet | None:
    if options.results is None:
        return None
    from sim_sled.campaign.version import code_version

    sheet = Sheet.open(options.results, head_of(job, order, code_version()), resume=options.resume)
    stack.callback(sheet.close)
    return sheet


def _keep(
    job: Job, explored: Explored, options: ExploreOptions, say: Callable[[str], None], kept: list[Kept]
) -> None:
    """Adds to `kept` each group that has its folder. Raises `CannotWrite`."""
    if not (options.shrink or options.found):
        return
    into = options.found or Path(f"{job.scenario.name}.found")
    for group in list(explored.groups.values())[:GROUPS_MAX]:
        say(f"{group.what}: {'reducing' if options.shrink else 'writing'} seed {group.seeds[0]}")
        kept.append(keep_group(job, group, into, jobs=options.jobs, shrinks=options.shrink))


def figures(explored: Explored) -> str:
    """`100 runs of 5.8 virtual hours, 3 failed in 2 groups`."""
    hours = explored.virtual_us / HOUR_US
    text = f"{counted(explored.runs, 'run')}, {hours:.1f} virtual hours, {explored.failed} failed"
    if len(explored.groups) > 1:
        text += f" in {len(explored.groups)} groups"
    if explored.covered:
        text += f", {explored.covered} tuples reached (the last new ones in run {explored.newest})"
    return text


def so_far(explored: Explored) -> str:
    """Of a campaign that does not come to its end: its figures, and a line for each group."""
    lines = [figures(explored)]
    lines += [f"  {_seeds_of(group)}: {group.what}" for group in explored.groups.values()]
    return "\n".join(lines)


def _until_then(explored: Explored, hint: str = "") -> str:
    return f"{hint}; until then {so_far(explored)}" if explored.runs else ""


def _seeds_of(group: Group) -> str:
    return f"seed {group.seeds[0]}" + ("" if group.count == 1 else f", and {group.count - 1:,} more")


def brief(explored: Explored, rate: float) -> str:
    """As `figures`, for a bar: with the bar and the time left it fits into 80 columns. `rate`: seeds per second."""
    hours = explored.virtual_us / HOUR_US
    shown = f"{hours:.{0 if hours >= 100 else 1}f} h"
    text = f"{explored.runs} run{'s' * (explored.runs != 1)}, {rate:.0f}/s, {shown}, {explored.failed} failed"
    if len(explored.groups) > 1:
        text += f" in {len(explored.groups)}"
    return text + (f", {explored.covered} tuples" if explored.covered else "")


def text_of(job: Job, explored: Explored, kept: Sequence[Kept], ended: str = "") -> str:
    """For people: figures, then each group with how to see it again."""
    head = f"{job.shown}: {figures(explored)}"
    if explored.resumed:
        head += f" ({explored.resumed} of the runs were in the file)"
    lines = [head + ended]
    folders = {one.group.what: one for one in kept}
    for group in explored.groups.values():
        first = group.seeds[0]
        lines.append(f"  {_seeds_of(group)}: {group.what}")
        lines.append(f"    {group.text}")
        lines.append(f"    again: {again(job, first)}")
        one = folders.get(group.what)
        if one is not None:
            small = one.small
            size = (
                ""
                if small is None
                else f": {counted(small.scenario.fleet.sleds, 'sled')}, {counted(small.vmms, 'VMM')}"
            )
            lines.append(f"    kept: {one.folder}{size}")
        elif can_shrink(group):
            # of a swarm's failures the first may be one that the right ones have, too
            what = f" --what {shlex.quote(group.what)}" if job.swarm else ""
            lines.append(f"    smaller: {again(job, first, 'shrink')}{what}")
    return "\n".join(lines) + "\n"


def plain(job: Job, explored: Explored, kept: Sequence[Kept]) -> dict[str, Any]:
    """For `--json`."""
    folders = {one.group.what: one for one in kept}
    groups = []
    for group in explored.groups.values():
        one = folders.get(group.what)
        groups.append(
            {
                "what": group.what,
                "text": group.text,
                "count": group.count,
                "seeds": group.seeds,
                "again": again(job, group.seeds[0]),
                "folder": None if one is None else str(one.folder),
            }
        )
    return {
        "scenario": job.scenario.name,
        "file": job.shown,
        "variant": job.how.variant,
        "sled_variant": job.how.sled_variant,
        "hazard": job.hazard,
        "swarm": job.swarm,
        "runs": explored.runs,
        "resumed": explored.resumed,
        "failed": explored.failed,
        "virtual_us": explored.virtual_us,
        "steps": explored.steps,
        "covered": explored.covered,
        "groups": groups,
    }


def junit(job: Job, explored: Explored) -> str:
    """For `--junit`: a test case per group that failed, and one for all that did not."""
    name = job.scenario.name
    good = explored.runs - explored.failed
    told = quoteattr(f"{name}: {counted(good, 'run')} good")
    cases = [f'  <testcase classname="campaign" name={told}/>']
    for group in explored.groups.values():
        about = f"{group.text}\nseeds {', '.join(map(str, group.seeds))}\nagain: {again(job, group.seeds[0])}"
        failed = f"<failure message={quoteattr(group.text)}>{escape(about)}</failure>"
        cases.append(
            f'  <testcase classname="campaign" name={quoteattr(f"{name}: {group.what}")}>{failed}</testcase>'
        )
    head = f'<testsuite name="sim-sled explore" tests="{len(cases)}" failures="{len(explored.groups)}">'
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', head, *cases, "</testsuite>"]) + "\n"
