"""What a campaign plays, and what one seed of it gave. A pure function of (job, seed), wherever it is called.

    Job ── play_seed(job, seed) ──> Ran ── line() ──> one line of the campaign's file

Read before: play/run.py, play/many.py. Read next: campaign/places.py, campaign/sheet.py.
"""

from __future__ import annotations

import json
from typing import Any, Final

import attrs

from sim_sled.language.schema import Scenario
from sim_sled.play.many import Task
from sim_sled.play.run import How, Result, play

TEXT_MAX: Final = 500
"""Characters kept of a failure's text: a campaign keeps millions of them."""
FAILURES_MAX: Final = 8
"""Failures kept of one run: the first few say what happened, the rest follows from them."""


@attrs.frozen
class Job:
    """What all runs of a campaign have in common. It is pickled as it is: includes are merged, files are read."""

    shown: str
    scenario: Scenario
    how: How

    def task(self, seed: int) -> Task:
        """The run of one seed, as `run` plays it."""
        return Task(self.shown, self.scenario, seed, self.how)


@attrs.frozen
class Ran:
    """What one seed gave. Nothing of it depends on the machine, the time of day or the other seeds."""

    seed: int
    elapsed_us: int
    steps: int
    failures: tuple[tuple[str, str], ...] = ()
    """Key and text of each, the first first."""

    def line(self) -> str:
        """One line of JSON, always the same bytes for the same run."""
        shown: dict[str, Any] = {"seed": self.seed, "virtual_us": self.elapsed_us, "steps": self.steps}
        if self.failures:
            shown["failures"] = [{"what": key, "text": text} for key, text in self.failures]
        return json.dumps(shown, ensure_ascii=True, separators=(",", ":")) + "\n"


def read_ran(line: str) -> Ran:
    """The run in a line. Raises ValueError, KeyError or TypeError for what is none."""
    said = json.loads(line)
    failures = tuple((str(one["what"]), str(one["text"])) for one in said.get("failures", ()))
    return Ran(int(said["seed"]), int(said["virtual_us"]), int(said["steps"]), failures)


def play_seed(job: Job, seed: int) -> Ran:
    """Plays one seed. A bug of ours on the way is a failure of that seed, not the end of a night's campaign."""
    task = job.task(seed)
    try:
        result = play(task.scenario, seed, attrs.evolve(task.how, keep=False))
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is what this seed has found
        return Ran(seed, 0, 0, ((f"crash/{type(error).__name__}", _clip(f"{_where(error)}: {error}")),))
    return Ran(seed, result.elapsed_us, result.steps, failures_of(result))


def failures_of(result: Result) -> tuple[tuple[str, str], ...]:
    """Key and text of what failed, each key once."""
    found = {failure.key: failure.text for failure in reversed(result.failures)}
    if not found and result.is_empty:
        # nobody got an instance, so nothing was tried: not good either (`Result.good`)
        found = {"nothing-created": next(warned.text for warned in result.warnings if warned.code == "W312")}
    keys = list(dict.fromkeys(failure.key for failure in result.failures)) or list(found)
    return tuple((key, _clip(found[key])) for key in keys[:FAILURES_MAX])


def _where(error: BaseException) -> str:
    """File and function where it was raised, without the machine's folders."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "somewhere"
    code = trace.tb_frame.f_code
    return f"{code.co_filename.rpartition('/')[2]}, {code.co_name}"


def _clip(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 3] + "..."
