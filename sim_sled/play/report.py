"""How runs are told: a line per run for people, JSON, JUnit XML. Pure text; read before: commands.py."""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any, Final

import attrs

from nexus_client.dropshot.text import counted, shown
from sim_sled.language.figures import show_duration
from sim_sled.play.judge.expect import UNJUDGED, label_of, watched
from sim_sled.play.judge.failures import Failure
from sim_sled.play.run import EMPTY, Result

UNFIRED_NAMED: Final = 5
"""Rules that never fired, by name in a line for people; `--json` has all."""

LIVES_MAX: Final = 5
"""Instances whose lives are told: a fault may hit a thousand."""

LIFE_MAX: Final = 40
"""Lines of an instance's life that are told: what led to a failure stands shortly before it; the trace has all."""

FAILED_NAMED: Final = 10
"""Files that failed, by name in the last line of several runs; above it stands each with why."""


@attrs.frozen
class Run:
    """One run of one file. `took_s`: wall time."""

    shown: str
    result: Result
    took_s: float
    strict: bool = False
    """What is only a warning fails it too."""
    more: str = ""
    """Options beside those of the result that it was played with, as they are typed."""

    @property
    def good(self) -> bool:
        return self.result.good and not (self.strict and self.result.warnings)

    def passed(self, *, require_fired: bool) -> bool:
        return self.good and not (require_fired and self.result.unfired)


def text_of(run: Run, *, require_fired: bool) -> str:
    """A line, and behind it whatever went wrong."""
    result, counts = run.result, run.result.counts
    verdict = "ok  " if run.passed(require_fired=require_fired) else "FAIL"
    seconds = result.elapsed_us // 1_000_000 * 1_000_000
    head = (
        f"{verdict} {result.scenario.name}  seed {result.seed}  {show_duration(seconds)} in {run.took_s:.2f} s"
        f"  {counted(counts['steps'], 'step')}, {counted(counts['vmms'], 'VMM')}, "
        f"{counted(counts['rules_fired'], 'rule')} fired,"
        f" {_judged(result)}"
    )
    if counts["user_refused"]:
        head += f", {counts['user_refused']} of {counts['user_actions']} user actions refused"
    lines = [head]
    if result.variant:
        lines.append(f"     with the deliberately wrong Nexus '{result.variant}'")
    if result.sled_variant:
        lines.append(f"     with deliberately wrong sleds: '{result.sled_variant}'")
    lines += failure_lines(result)
    lines += [f"     {warned.mark}: {warned.code} {shown(warned.text)}" for warned in result.warnings]
    if result.unfired:  # a fault only with `--require-fired`, but a rule that means nobody is the commonest mistake
        named = ", ".join(result.unfired[:UNFIRED_NAMED])
        rest = f" and {len(result.unfired) - UNFIRED_NAMED} more" if len(result.unfired) > UNFIRED_NAMED else ""
        lines.append(f"     never fired: {named}{rest}")
    if not run.good:
        lines += [f"     {again}" for again in _again(run)]
    return "\n".join(lines) + "\n"


def failure_lines(result: Result) -> list[str]:
    """What was not so, each with its why; what is alike, once."""
    lines = []
    for alike in _alike(result.failures):
        first, more = alike[0], alike[1:]
        lines.append(f"     {_timed(first)}")
        lines += [f"       {shown(said)}" for said in first.why]
        if more:  # a fault that hits a thousand VMMs is one fault; --json has them all
            lines.append(f"       and {len(more)} more like it, the last at {more[-1].at_us / 1e6:.3f} s")
    return lines


def lives_of(result: Result) -> dict[str, list[str]]:
    """By host name what happened to whom something failed, until then, a line of the trace each; where nobody's
    expectation failed, to the newest.
    """
    until_us: dict[str, int] = {}
    for failure in result.failures:
        until_us.setdefault(failure.hostname, failure.at_us)
    until_us.pop("", None)
    newest = list(dict.fromkeys(line.hostname for line in result.lines if line.hostname != "-"))[-LIVES_MAX:]
    told = until_us or dict.fromkeys(newest, result.elapsed_us)
    return {name: _life(name, result, at_us) for name, at_us in list(told.items())[:LIVES_MAX]}


def _life(hostname: str, result: Result, until_us: int) -> list[str]:
    """Before it has a VMM, and of what users ask of it, only the text says whose line it is."""
    lines = [
        str(line)
        for line in result.lines
        if line.at_us <= until_us
        and (line.hostname == hostname or (line.hostname == "-" and hostname in re.split(r"[\s:]", line.text)))
    ]
    left_out = len(lines) - LIFE_MAX
    return [f"... and {left_out} lines before", *lines[-LIFE_MAX:]] if left_out > 0 else lines


def summed(runs: Sequence[Run], *, require_fired: bool) -> str:
    """The last line of several runs: how many failed, and which."""
    failed = [run.shown for run in runs if not run.passed(require_fired=require_fired)]
    if not failed:
        return f"all {len(runs)} runs are good\n"
    named = ", ".join(failed[:FAILED_NAMED])
    more = f" and {len(failed) - FAILED_NAMED} more" if len(failed) > FAILED_NAMED else ""
    return f"{len(failed)} of {counted(len(runs), 'run')} failed: {shown(named)}{more}\n"


def _judged(result: Result) -> str:
    """How many expectations were met; nobody shall take a run in which nothing was judged for one that was good."""
    armed = result.counts["expectations_armed"]
    if armed:
        return f"{result.counts['expectations_met']}/{armed} expectations met"
    wanted = sum(not expect.always for expect in result.scenario.expect)
    if not wanted:
        return "nothing is expected but invariants"
    return f"nothing was judged: none of {counted(wanted, 'expectation')} was armed"


def _again(run: Run) -> list[str]:
    """The command that plays it again; of a daemon there is none: what went on there depends on more than a seed."""
    result = run.result
    if result.clock == "daemon":
        return []
    variant = f" --variant {result.variant}" if result.variant else ""
    variant += f" --sled-variant {result.sled_variant}" if result.sled_variant else ""
    clock = " --clock wall" if result.clock == "wall" else ""
    return [f"again: sim-sled run {shlex.quote(run.shown)} --seed {result.seed}{variant}{clock}{run.more}"]


def _alike(failures: Sequence[Failure]) -> list[list[Failure]]:
    """Failures of the same fault together, in the order in which each fault came first."""
    found: dict[str, list[Failure]] = {}
    for failure in failures:
        found.setdefault(failure.key, []).append(failure)
    return list(found.values())


def plain(run: Run, *, require_fired: bool) -> dict[str, Any]:
    """For `--json`."""
    result = run.result
    return {
        "scenario": result.scenario.name,
        "file": run.shown,
        "seed": result.seed,
        "variant": result.variant or None,
        "sled_variant": result.sled_variant or None,
        "clock": result.clock,
        "passed": run.passed(require_fired=require_fired),
        "virtual_us": result.elapsed_us,
        "wall_s": round(run.took_s, 3),
        "end": result.end,
        "counts": result.counts,
        "unfired": list(result.unfired),
        "failures": [
            {
                "at_us": f.at_us,
                "what": f.key,
                "text": f.text,
                "where": None if f.mark is None else str(f.mark),
                "why": list(f.why),
            }
            for f in result.failures
        ],
        "warnings": [{"code": w.code, "text": w.text, "where": str(w.mark)} for w in result.warnings],
    }


# ---- JUnit

TOLD_MAX: Final = 20
"""Failures of one case that are told beside the first: a fault may hit a thousand VMMs, and `--json` has them all."""


def junit(runs: Sequence[Run], *, require_fired: bool) -> str:
    """For `--junit`: a suite per run; in it a case per expectation and per invariant, and one of the run itself, with
    whatever else was wrong. What was never armed (W310) is skipped: nothing was judged.
    """
    suites = ET.Element("testsuites", name="sim-sled")
    for run in runs:
        suite = ET.SubElement(suites, "testsuite", name=f"{run.result.scenario.name} seed {run.result.seed}")
        ET.SubElement(suite, "properties").extend(_properties(run))
        suite.extend(_cases(run, require_fired=require_fired))
        suite.set("time", f"{run.took_s:.3f}")
        _count(suite, [suite])
    suites.set("time", f"{sum(run.took_s for run in runs):.3f}")
    _count(suites, list(suites))
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def _count(element: ET.Element, suites: Sequence[ET.Element]) -> None:
    for name, path in (("tests", "testcase"), ("failures", "testcase/failure"), ("skipped", "testcase/skipped")):
        element.set(name, str(sum(len(suite.findall(path)) for suite in suites)))


def _properties(run: Run) -> list[ET.Element]:
    result = run.result
    said = {
        "file": run.shown,
        "seed": str(result.seed),
        "variant": result.variant,
        "sled_variant": result.sled_variant,
        "clock": result.clock,
    }
    return [ET.Element("property", name=name, value=value) for name, value in said.items() if value]


def _cases(run: Run, *, require_fired: bool) -> list[ET.Element]:
    result = run.result
    left: dict[str, list[Failure]] = {}
    for failure in result.failures:
        left.setdefault(failure.key, []).append(failure)
    never = {each.about: each.text for each in result.warnings if each.code == "W310"}
    cases = []
    for i, expect in enumerate(result.scenario.expect):
        if not expect.always:
            label = label_of(expect, i)
            case = _case(run, label, left.pop(f"expect/{label}", []) + left.pop(f"{UNJUDGED}/{label}", []))
            if label in never and not len(case):
                ET.SubElement(case, "skipped", message=never[label])
            cases.append(case)
    for name in watched(result.scenario):
        of_this = [key for key in left if key.partition("/")[0] == name]
        cases.append(_case(run, f"always {name}", [failure for key in of_this for failure in left.pop(key)]))
    return [*cases, _whole(run, [each for alike in left.values() for each in alike], require_fired=require_fired)]


def _case(run: Run, name: str, failures: Sequence[Failure]) -> ET.Element:
    case = ET.Element("testcase", classname=run.result.scenario.name or "scenario", name=name, time="0")
    if failures:
        first, more = failures[0], failures[1:]
        told = [_timed(first), *(f"  {shown(why)}" for why in first.why), *map(_timed, more[:TOLD_MAX])]
        if len(more) > TOLD_MAX:
            told.append(f"and {len(more) - TOLD_MAX} more")
        ET.SubElement(case, "failure", message=shown(first.text)).text = "\n".join([*told, *_again(run)])
    return case


def _whole(run: Run, failures: Sequence[Failure], *, require_fired: bool) -> ET.Element:
    """The run itself: what no expectation stands for."""
    case = _case(run, "the run", failures)
    case.set("time", f"{run.took_s:.3f}")
    why = [warned.text for warned in run.result.warnings if run.strict or warned.code == EMPTY]
    if require_fired and run.result.unfired:
        why.append(f"never fired: {', '.join(run.result.unfired)}")
    if why and not failures:
        ET.SubElement(case, "failure", message=shown(why[0])).text = "\n".join(map(shown, [*why, *_again(run)]))
    ET.SubElement(case, "system-out").text = text_of(run, require_fired=require_fired)
    return case


def _timed(failure: Failure) -> str:
    return f"{failure.at_us / 1e6:.3f} s: {shown(failure.text)}"
