"""What the command line calls: plain functions from files to text and an exit code. No wiring, no colours.

Exit codes (`docs/commands.md`): 0 good, 1 an expectation or invariant failed, 2 bad input, 4 a rule never fired.

Read before: cli/scenario_texts.py, play/run.py. Read next: cli/exploring.py, cli/traces.py.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from nexus_client.dropshot.command_line import BAD_INPUT, FAILED, GOOD, NEVER_FIRED
from nexus_client.stub.variants import VARIANTS
from sim_sled.campaign.job import KNOWN_HAZARDS, Job
from sim_sled.files import why_unwritable, write_text
from sim_sled.language import worlds
from sim_sled.language.check import Loaded
from sim_sled.language.figures import show_duration
from sim_sled.language.printing import print_scenario
from sim_sled.language.schema import Scenario, paced
from sim_sled.machine import assertions
from sim_sled.page.files import in_one_file
from sim_sled.page.recording import TooManyEvents, recording_of
from sim_sled.play import library, many
from sim_sled.play.events import events_json
from sim_sled.play.export import mermaid, trace_events
from sim_sled.play.many import Played, Task
from sim_sled.play.report import Run, junit, plain, summed, text_of
from sim_sled.play.run import How, Progress
from sim_sled.play.shrink import Shrunk, shrink
from sim_sled.play.wrong_sleds import SLED_VARIANTS

_PLACE: Final = re.compile(r" \([\w.-]+:\d+\)")
"""Where an expectation stands, in a failure's text."""


# ---- runs


@attrs.frozen
class RunOptions:
    """Options of `run`. `seed` None: the scenario's, else a random one, which is told."""

    seed: int | None = None
    variant: str | None = None
    sled_variant: str | None = None
    hazard: str | None = None
    swarm: bool = False
    jobs: int = 1
    pace: str | None = None
    until_us: int | None = None
    require_fired: bool = False
    strict: bool = False
    as_json: bool = False
    junit: Path | None = None
    events: Path | None = None
    trace: Path | None = None
    timeline: Path | None = None
    sequence: tuple[str, Path] | None = None
    page: Path | None = None
    files_from: tuple[Path, ...] = ()


@attrs.frozen
class Outcome:
    """What a command says: on stdout, on stderr, and its exit code."""

    out: str
    code: int
    err: str = ""


def complaint(text: str, code: int = BAD_INPUT) -> Outcome:
    """Of a command that says one sentence and no more."""
    return Outcome("", code, f"sim-sled: {text}\n")


Player = Callable[[Sequence[Task]], Iterator[Played]]


def run_files(
    paths: Sequence[str],
    options: RunOptions,
    progress: Progress | None = None,
    player: Player | None = None,
    after_each: Callable[[Run], None] = lambda _: None,
) -> Outcome:
    """Plays scenarios in the closed world, or as `player` does. Nothing is played if any file has an error, or if one
    of the files to be written cannot be.
    """
    written = {
        "--junit": options.junit,
        "--events": options.events,
        "--trace": options.trace,
        "--timeline": options.timeline,
        "--sequence": options.sequence and options.sequence[1],
        "--page": options.page,
    }
    bad = bad_variant(options.variant, options.sled_variant) or bad_hazard(options.hazard)
    bad = bad or unwritable(written.values()) or crowded(written, as_json=options.as_json)
    if bad is not None:
        return bad
    loaded, problems = library.load(paths, options.files_from)
    if problems.errors:
        return Outcome("", BAD_INPUT, problems.text())
    err = problems.text() if problems.warnings else ""
    tasks, notes = tasks_of(loaded, options)
    runs: list[Run] = []
    out: list[str] = []
    called = _called(tasks)
    told = assertions()
    if told is not None:
        from sim_sled.antithesis import begin_runs, tell_result

        begin_runs(told, ((task.scenario, task.seed) for task in tasks))
    for played in many.play_all(tasks, options.jobs, progress) if player is None else player(tasks):
        run = Run(played.task.shown, played.result, played.took_s, options.strict, _more(options))
        runs.append(run)
        after_each(run)
        if told is not None:
            tell_result(told, played.result)
        notes += _write_files(played, options, called, only=len(tasks) == 1)
        if options.sequence is not None and all(who.hostname != options.sequence[0] for who in played.result.lines):
            notes += f"{played.task.shown}: there was no {options.sequence[0]}; its sequence is empty\n"
        if not options.as_json:
            out.append(text_of(run, require_fired=options.require_fired))
    if len(runs) > 1 and not options.as_json:
        out.append(summed(runs, require_fired=options.require_fired))
    if told is not None:
        told.close()
    if options.junit is not None:
        write_text(options.junit, junit(runs, require_fired=options.require_fired))
    if options.as_json:
        shown = {"runs": [plain(run, require_fired=options.require_fired) for run in runs]}
        out = [json.dumps(shown, indent=1) + "\n"]
    code = GOOD
    if any(not run.good for run in runs):
        code = FAILED
    elif any(not run.passed(require_fired=options.require_fired) for run in runs):
        code = NEVER_FIRED
    if Path("-") in written.values():  # stdout is for whatever reads that, so a person is told beside it
        return Outcome("", code, err + notes + "".join(out))
    return Outcome("".join(out), code, err + notes)


def _more(options: RunOptions) -> str:
    """Options without which the same seed would be another run."""
    found = " --swarm" if options.swarm else ""
    for option, given in (("--hazard", options.hazard), ("--pace", options.pace)):
        found += f" {option} {given}" if given is not None else ""
    return found if options.until_us is None else f"{found} --until {show_duration(options.until_us)}"


def bad_variant(variant: str | None, sled_variant: str | None = None) -> Outcome | None:
    if variant is not None and variant not in VARIANTS:
        return complaint(f"no variant '{variant}'; there are: {', '.join(sorted(VARIANTS))}")
    if sled_variant is not None and sled_variant not in SLED_VARIANTS:
        known = ", ".join(sorted(SLED_VARIANTS))
        return complaint(f"no sled variant '{sled_variant}'; there are: {known}")
    return None


def bad_hazard(hazard: str | None) -> Outcome | None:
    """What is wrong with the name of a hazard; None if nothing is."""
    if hazard is None or hazard in KNOWN_HAZARDS:
        return None
    return complaint(f"no hazard '{hazard}'; there are: {', '.join(KNOWN_HAZARDS)}")


def _flags(variant: str | None, sled_variant: str | None) -> str:
    flag = f" --variant {variant}" if variant else ""
    return flag + (f" --sled-variant {sled_variant}" if sled_variant else "")


def unwritable(paths: Iterable[Path | None]) -> Outcome | None:
    """What is wrong with files that are to be written at the end of something long; None if nothing is."""
    for path in paths:
        if (why := why_unwritable(path)) is not None:
            return complaint(why)
    return None


def crowded(written: Mapping[str, Path | None], *, as_json: bool) -> Outcome | None:
    """What is wrong if stdout is to have two things at once, which nobody can read apart; None if nothing is."""
    found = [*(["--json"] if as_json else []), *(f"{name} -" for name, path in written.items() if path == Path("-"))]
    if len(found) < 2:
        return None
    return complaint(f"{found[0]} and {found[1]} both write to stdout; give one of them a file")


def tasks_of(loaded: Iterable[Loaded], options: RunOptions) -> tuple[list[Task], str]:
    tasks, notes = [], []
    how = How(
        variant=options.variant,
        sled_variant=options.sled_variant,
        events=options.events is not None,
        until_us=options.until_us,
    )
    for one in loaded:
        assert one.scenario is not None
        name = library.named(one.shown)
        seed = options.seed if options.seed is not None else one.scenario.seed
        if options.seed is not None and one.scenario.seed not in (None, options.seed):
            notes.append(f"{name}: --seed {options.seed} wins over its seed {one.scenario.seed}\n")
        if seed is None:
            seed = secrets.randbits(32)
            notes.append(f"{name}: seed {seed}\n")
        if one.scenario.nexus.internal is not None:
            notes.append(f"{name}: played against the built-in Nexus model, not {one.scenario.nexus.internal}\n")
        if not one.scenario.load:
            notes.append(f"{name}: it has no load, so nobody creates instances here\n")
        notes += [f"{note}\n" for note in worlds.notes(one.scenario)]
        job = Job(
            name,
            paced(one.scenario, options.pace),
            how,
            swarm=options.swarm,
            hazard=options.hazard,
        )
        tasks.append(attrs.evolve(job.task(seed), how=how))
    return tasks, "".join(notes)


def _called(tasks: Sequence[Task]) -> dict[tuple[str, int], str]:
    """What each run's files are called by (file and seed): the scenario's name, and a number where several have the
    same.
    """
    found: dict[tuple[str, int], str] = {}
    seen: Counter[str] = Counter()
    for task in tasks:
        name = task.scenario.name or "scenario"
        seen[name] += 1
        found[task.shown, task.seed] = name if seen[name] == 1 else f"{name}-{seen[name]}"
    return found


def _write_files(played: Played, options: RunOptions, called: Mapping[tuple[str, int], str], *, only: bool) -> str:
    """Files of a run; of several runs each gets its scenario's name in front of the suffix. Returns what is to be
    noted.
    """

    def named(path: Path) -> Path:
        if only or str(path) == "-":
            return path
        return path.with_name(f"{path.stem}-{called[played.task.shown, played.task.seed]}{path.suffix}")

    if options.events is not None:
        write_text(named(options.events), events_json(played.result.events))
    if options.trace is not None:
        write_text(named(options.trace), played.result.trace().text())
    if options.timeline is not None:
        write_text(named(options.timeline), trace_events(played.result.lines))
    if options.sequence is not None:
        hostname, path = options.sequence
        write_text(named(path), mermaid(played.result.lines, hostname))
    if options.page is not None:
        try:
            write_text(named(options.page), in_one_file(recording_of(played.result)))
        except TooManyEvents as error:
            return f"{played.task.shown}: no page: {error}\n"
    return ""


# ---- finding faults


def shrink_file(
    path: str,
    seed: int | None,
    *,
    variant: str | None = None,
    sled_variant: str | None = None,
    hazard: str | None = None,
    swarm: bool = False,
    key: str | None = None,
    jobs: int = 1,
    files_from: Sequence[Path] = (),
    told: Callable[[int, Scenario], None] | None = None,
) -> tuple[Shrunk | None, Outcome]:
    """Reduces a failing run; the smaller scenario is in `out`. 0 if it was reduced, 1 if the run does not fail.

    A hazard stands in what it comes to, and so does what a swarm's seed draws.
    """
    bad = bad_variant(variant, sled_variant) or bad_hazard(hazard)
    if bad is not None:
        return None, bad
    [one, *_], problems = library.load([path], files_from)
    if one.scenario is None:
        return None, Outcome("", BAD_INPUT, problems.text())
    chosen = seed if seed is not None else one.scenario.seed
    how = How(variant=variant, sled_variant=sled_variant, keep=False)
    task = Job(path, one.scenario, how, swarm=swarm, hazard=hazard).task(chosen or 0)
    if key is None:
        [played] = many.play_all([task], 1)
        if played.result.good:
            return None, complaint(f"{path} does not fail with seed {task.seed}", FAILED)
        key = played.result.failures[0].key
    small = shrink(task, key, jobs=jobs, told=told)
    if small is None:
        return None, complaint(f"{path} does not fail with '{key}' and seed {task.seed}", FAILED)
    flag = _flags(variant, sled_variant)
    comment = (
        f"{_PLACE.sub('', small.text, count=1)}\n"  # a line of no file that anybody has
        f"The smallest of {small.runs} runs that fails so; from {Path(path).name}.\n"
        f"sim-sled run THIS --seed {small.seed}{flag}"
    )
    smaller = attrs.evolve(small.scenario, seed=small.seed)
    return small, Outcome(print_scenario(smaller, comment), GOOD)
