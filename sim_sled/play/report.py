"""How runs are told: a line per run for people, JSON, JUnit XML. Pure text; read before: commands.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

import attrs

from nexus_client.dropshot.text import counted, shown
from sim_sled.language.figures import show_duration
from sim_sled.play.judge.failures import Failure
from sim_sled.play.run import Result

UNFIRED_NAMED: Final = 5
"""Rules that never fired, by name in a line for people; `--json` has all."""


@attrs.frozen
class Run:
    """One run of one file. `took_s`: wall time."""

    shown: str
    result: Result
    took_s: float
    strict: bool = False
    """What is only a warning fails it too."""

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
        f" {counts['expectations_met']}/{counts['expectations_armed']} expectations met"
    )
    if counts["user_refused"]:
        head += f", {counts['user_refused']} of {counts['user_actions']} user actions refused"
    lines = [head]
    if result.variant:
        lines.append(f"     with the deliberately wrong Nexus '{result.variant}'")
    if result.sled_variant:
        lines.append(f"     with deliberately wrong sleds: '{result.sled_variant}'")
    for alike in _alike(result.failures):
        first, more = alike[0], alike[1:]
        lines.append(f"     {first.at_us / 1e6:.3f} s: {shown(first.text)}")
        lines += [f"       {shown(said)}" for said in first.why]
        if more:  # a fault that hits a thousand VMMs is one fault; --json has them all
            lines.append(f"       and {len(more)} more like it, the last at {more[-1].at_us / 1e6:.3f} s")
    lines += [f"     {warned.mark}: {warned.code} {shown(warned.text)}" for warned in result.warnings]
    if result.unfired:  # a fault only with `--require-fired`, but a rule that means nobody is the commonest mistake
        named = ", ".join(result.unfired[:UNFIRED_NAMED])
        rest = f" and {len(result.unfired) - UNFIRED_NAMED} more" if len(result.unfired) > UNFIRED_NAMED else ""
        lines.append(f"     never fired: {named}{rest}")
    if not run.good and result.clock != "daemon":  # what went on there depends on more than a seed
        variant = f" --variant {result.variant}" if result.variant else ""
        variant += f" --sled-variant {result.sled_variant}" if result.sled_variant else ""
        clock = " --clock wall" if result.clock == "wall" else ""
        lines.append(f"     again: sim-sled run {run.shown} --seed {result.seed}{variant}{clock}")
    return "\n".join(lines) + "\n"


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


def _first_reason(run: Run) -> str:
    if run.result.failures:
        return run.result.failures[0].text
    if not run.good:
        return run.result.warnings[0].text
    return "a rule never fired"


def junit(runs: Sequence[Run], *, require_fired: bool) -> str:
    """For `--junit`: one test case per run."""
    failed = sum(not run.passed(require_fired=require_fired) for run in runs)
    took_s = sum(run.took_s for run in runs)
    parts = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name="sim-sled" tests="{len(runs)}" failures="{failed}" time="{took_s:.3f}">',
    ]
    for run in runs:
        name = quoteattr(f"{run.result.scenario.name} seed {run.result.seed}")
        parts.append(f'  <testcase classname="scenario" name={name} time="{run.took_s:.3f}">')
        if not run.passed(require_fired=require_fired):
            first = _first_reason(run)
            told = escape(text_of(run, require_fired=require_fired))
            parts.append(f"    <failure message={quoteattr(first)}>{told}</failure>")
        parts.append("  </testcase>")
    return "\n".join([*parts, "</testsuite>"]) + "\n"
