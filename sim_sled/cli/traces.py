"""A run again, of a trace or a file: played and compared, as a page, and why somebody is where it is in it.

Plain functions from files to text and an exit code, as those of `scenario_commands`.

Read before: cli/scenario_commands.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import attrs

from nexus_client.dropshot.command_line import BAD_INPUT, FAILED, GOOD
from nexus_client.dropshot.text import counted
from sim_sled.cli.scenario_commands import (
    Outcome,
    RunOptions,
    bad_hazard,
    bad_variant,
    complaint,
    tasks_of,
    unwritable,
)
from sim_sled.files import write_text
from sim_sled.language.check import parse_scenario
from sim_sled.language.files import TooLong, read_bounded
from sim_sled.language.load import TRACE_HEAD
from sim_sled.language.schema import Scenario
from sim_sled.language.source import Mark
from sim_sled.page.files import in_one_file
from sim_sled.page.recording import TooManyEvents, recording_of, recording_of_trace
from sim_sled.play import library, many
from sim_sled.play.explain import why
from sim_sled.play.many import Task
from sim_sled.play.report import failure_lines
from sim_sled.play.run import How, Progress, Result, never_placed, run_to_end
from sim_sled.play.trace import BadTrace, Line, Trace, compare, parse_line, read_trace
from sim_sled.play.virtual import EPOCH_US, World

FIRED_SHOWN: Final = 200
"""Firings that `explain` lists."""
TRACE_MAX: Final = 512 * 2**20
"""Bytes of a trace: twice what a run of `play.trace.LINES_MAX` lines writes."""


def scenario_of(trace: Trace, shown: str) -> Scenario | str:
    """The scenario in a trace, its rules where they stood in the original file; or what is wrong with it."""
    scenario, problems = parse_scenario(trace.scenario, shown)
    if scenario is None:
        return problems.text()
    rules = {name: _mark(where) for kind, name, where in map(_at, trace.marks) if kind == "rule"}
    expects = {name: _mark(where) for kind, name, where in map(_at, trace.marks) if kind == "expect"}
    return attrs.evolve(
        scenario,
        rules=tuple(attrs.evolve(r, marks={**r.marks, "": rules.get(r.name, r.mark())}) for r in scenario.rules),
        expect=tuple(
            attrs.evolve(e, marks={**e.marks, "": expects.get(str(i), e.mark())})
            for i, e in enumerate(scenario.expect)
        ),
    )


def _at(mark: str) -> tuple[str, str, str]:
    kind, _, rest = mark.partition(" ")
    name, _, where = rest.partition(" ")
    return kind, name, where


def _mark(where: str) -> Mark:
    file, _, line = where.rpartition(":")
    return Mark(file or "-", int(line) if line.isdigit() else 0, 1)


def replay_file(path: str, progress: Progress | None = None, *, as_json: bool = False) -> Outcome:
    """Plays a recorded run again and compares: 0 the same (if both failed, that is told), 1 different, 2 no trace."""
    again = _again(path, progress)
    if isinstance(again, Outcome):
        return again
    difference = compare(again.recorded, again.result.trace())
    if as_json:
        failed = [failure.text for failure in again.result.failures]
        told = {
            "lines": len(again.recorded.lines),
            "end": again.result.end,
            "difference": difference or None,
            "failures": failed,
        }
        return Outcome(json.dumps(told, indent=1) + "\n", FAILED if difference else GOOD)
    if difference:
        return Outcome(f"{path}: {difference}", FAILED)
    same = f"{path}: the same, {len(again.recorded.lines)} lines, {again.result.end}"
    failures = failure_lines(again.result)
    if failures:
        same = "\n".join([f"{same}; it failed the same way:", *failures])
    return Outcome(f"{same}\n", GOOD)


def page_of_trace(path: str, out: Path, progress: Progress | None = None) -> Outcome:
    """Writes a recorded run as a page. It is played again for what a trace does not say: which expectations failed,
    and why. If this program plays it differently the page shows what was recorded, and says so.
    """
    bad = unwritable([out])
    again = _again(path, progress) if bad is None else bad
    if isinstance(again, Outcome):
        return again
    notes = ""
    try:
        if compare(again.recorded, again.result.trace()):
            notes = (
                f"{path}: this program plays it differently: the page shows what was recorded, without a verdict\n"
            )
            lines = [parse_line(line) for line in again.recorded.lines]
            recording = recording_of_trace(again.result.scenario, again.recorded, lines)
        else:
            recording = recording_of(again.result)
        write_text(out, in_one_file(recording))
    except TooManyEvents as error:
        return complaint(f"{path}: no page: {error}")
    except (ValueError, IndexError) as error:
        return complaint(f"{path}: a line of it cannot be read: {error}")
    return Outcome(f"{out}\n", GOOD, notes)


@attrs.frozen
class _Again:
    """A recorded run, and what came of playing it again."""

    recorded: Trace
    result: Result


def _again(path: str, progress: Progress | None) -> _Again | Outcome:
    """Plays a recorded run again; what is wrong if that cannot be."""
    found = _recorded(path)
    if isinstance(found, Outcome):
        return found
    recorded, task = found
    [played] = many.play_all([task], 1, progress)
    return _Again(recorded, played.result)


def _recorded(path: str) -> tuple[Trace, Task] | Outcome:
    """A trace, and the run that it is of."""
    try:
        recorded = read_trace(read_bounded(Path(path), TRACE_MAX).decode())
    except TooLong:
        return complaint(f"{path}: cannot be read: more than {TRACE_MAX // 2**20} MiB")
    except (OSError, ValueError) as error:
        return complaint(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")
    except BadTrace as error:
        return complaint(f"{path}: {error}")
    bad = bad_variant(recorded.variant or None, recorded.sled_variant or None)
    if bad is not None:
        return bad
    scenario = scenario_of(recorded, path)
    if isinstance(scenario, str):
        return Outcome("", BAD_INPUT, scenario)
    how = How(variant=recorded.variant or None, sled_variant=recorded.sled_variant or None)
    return recorded, Task(path, scenario, recorded.seed, how)


def _one(path: str, options: RunOptions) -> tuple[Task, str] | Outcome:
    """The one run that is meant, and what is to be said of it; or why there is none. A trace says how it was
    played.
    """
    if _is_trace(path):
        if options != RunOptions(files_from=options.files_from):
            return complaint(f"{path} is a trace and says how it was played: leave out --seed and its like")
        found = _recorded(path)
        return found if isinstance(found, Outcome) else (found[1], "")
    bad = bad_variant(options.variant, options.sled_variant) or bad_hazard(options.hazard)
    if bad is not None:
        return bad
    loaded, problems = library.load([path], options.files_from)
    if problems.errors:
        return Outcome("", BAD_INPUT, problems.text())
    [task], notes = tasks_of(loaded[:1], options)
    return task, notes


def _is_trace(path: str) -> bool:
    try:
        if not Path(path).is_file():
            return False  # what a pipe has said is not there any more
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return file.read(len(TRACE_HEAD)) == TRACE_HEAD
    except (OSError, ValueError):
        return False


def why_in_run(path: str, vmm: str, at_us: int | None, options: RunOptions) -> Outcome:
    """Explains one VMM (short name, id, or host name: its newest that is there) at a time of a run, or at its end."""
    found = _one(path, options)
    if isinstance(found, Outcome):
        return found
    task, notes = found
    world = World(task.scenario, task.seed, variant=task.how.variant, sled_variant=task.how.sled_variant, keep=False)
    run_to_end(world, How(until_us=at_us))
    if at_us is not None:
        world.now_us = max(world.now_us, EPOCH_US + at_us)
    subjects = world.engine.cast.subjects.values()
    meant = [who for who in subjects if vmm in (who.short, str(who.propolis_id), who.hostname)]
    if not meant:
        known = ", ".join(f"{who.short} {who.hostname}" for who in list(subjects)[:20])
        homeless = never_placed(world)
        if vmm in homeless:
            others = f" ({counted(len(homeless), 'instance')} like it)" if len(homeless) > 1 else ""
            return Outcome(f"{vmm} was never placed: no sled had room for it by then{others}\n", GOOD, notes)
        listed = ", ".join(homeless[:20]) + (", ..." if len(homeless) > 20 else "")
        room = f"; these found no room on any sled: {listed}" if homeless else ""
        return complaint(f"no VMM '{vmm}' by then; there are: {known or 'none'}{room}")
    said = why(world, max(meant, key=lambda who: (not who.gone, who.ordinal)))
    head = f"at {world.elapsed_us / 1e6:.3f} s of {task.scenario.name}, seed {task.seed}:\n"
    return Outcome(head + "".join(f"  {line}\n" for line in said), GOOD, notes)


def rules_in_run(path: str, at_us: int | None, options: RunOptions) -> Outcome:
    """Which rules fire in a run, in their order, each with whom it hits; and which do not. `at_us`: until then."""
    found = _one(path, options)
    if isinstance(found, Outcome):
        return found
    task, notes = found
    fired: list[Line] = []
    count = 0

    def note(line: Line) -> None:
        nonlocal count
        if line.kind == "rule":
            count += 1
            if len(fired) < FIRED_SHOWN:
                fired.append(line)

    world = World(
        task.scenario,
        task.seed,
        variant=task.how.variant,
        sled_variant=task.how.sled_variant,
        keep=False,
        on_line=note,
    )
    run_to_end(world, How(until_us=at_us))
    lines = [f"rules of {task.scenario.name}, seed {task.seed}, in the order in which they fire:"]
    for line in fired:
        whom = f" {line.vmm} {line.hostname} on {line.sled}:" if line.vmm != "-" else ""
        lines.append(f"  {line.at_us / 1e6:>9.3f} s {whom} {line.text}")
    if count > len(fired):
        lines.append(f"  ... and {count - len(fired)} times more (`run --events` has them all)")
    if not task.scenario.rules:
        lines.append("  it has none")
    unfired = [rule.name for rule in task.scenario.rules if not world.engine.counters[rule.name].fired]
    if unfired:
        lines.append(f"never fired: {', '.join(unfired)}")
    return Outcome("\n".join(lines) + "\n", GOOD, notes)
