"""What a campaign plays, and what one seed of it gave. A pure function of (job, seed), wherever it is called.

    Job ── play_seed(job, seed) ──> Ran ── line() ──> one line of the campaign's file

Read before: play/many.py, play/run.py.
Read next: campaign/draws.py, campaign/places.py, campaign/sheet.py, campaign/swarm.py.
"""

from __future__ import annotations

import json
from typing import Any, Final

import attrs

from nexus_client.dropshot import foreign
from nexus_client.stub.hazards import Hazard
from sim_sled.campaign.coverage import play_covered
from sim_sled.campaign.swarm import swarmed
from sim_sled.language.schema import Scenario
from sim_sled.play.many import Task
from sim_sled.play.run import How, Result, play
from sim_sled.play.virtual import Bounds

TEXT_MAX: Final = 500
"""Characters kept of a failure's text: a campaign keeps millions of them."""
NOTHING: Final = "nothing-created"
FAILURES_MAX: Final = 8
"""Failures kept of one run: the first few say what happened, the rest follows from them."""


@attrs.frozen
class Job:
    """What all runs of a campaign have in common. It is pickled as it is: includes are merged, files are read."""

    shown: str
    scenario: Scenario
    how: How

    swarm: bool = False
    """Each seed plays another scenario (`swarm.py`)."""
    covers: bool = False
    """What a run reaches is noted: somebody is guided by it."""
    hazard: str | None = None
    """A known wrong of Nexus or the agent is on, and all others are off."""

    def task(self, seed: int) -> Task:
        """The run of one seed, as `run` plays it."""
        how = attrs.evolve(self.how, bounds=SWARM_BOUNDS) if self.swarm else self.how
        return Task(self.shown, scenario_of(self, seed), seed, how)

    def right(self, seed: int) -> Task | None:
        """The same with nobody wrong on purpose; None if nobody is."""
        how = attrs.evolve(self.how, variant=None, sled_variant=None)
        if self.hazard is None and how == self.how:
            return None
        hazard = None if self.hazard is None else NO_HAZARD
        bounds = SWARM_BOUNDS if self.swarm else how.bounds
        scenario = scenario_of(attrs.evolve(self, hazard=hazard), seed, wrong=True)
        return Task(self.shown, scenario, seed, attrs.evolve(how, bounds=bounds))


SWARM_BOUNDS: Final = Bounds(steps_max=50_000)
"""A run of a swarm has some thousand steps; one that does not come to an end is found sooner than `run` would."""
NO_HAZARD: Final = "none"
AGENT_HAZARDS: Final = ("stop_before_start",)
KNOWN_HAZARDS: Final = (*AGENT_HAZARDS, *(hazard.value for hazard in Hazard))
"""Wrongs of the originals that can be played (docs/nexus-model.md; SA 2.12)."""


def scenario_of(job: Job, seed: int, *, wrong: bool | None = None) -> Scenario:
    """What a seed of a job plays. `wrong`: whether somebody is, on purpose; as the job says, if missing."""
    scenario = job.scenario
    if job.hazard is not None:
        hazard = job.hazard
        agents = (hazard,) if hazard in AGENT_HAZARDS else ()
        nexus = (NO_HAZARD,) if agents else (hazard,)
        scenario = attrs.evolve(
            scenario,
            nexus=attrs.evolve(scenario.nexus, hazards=nexus, marks={}),
            agent=attrs.evolve(scenario.agent, hazards=agents, marks={}),
        )
    if not job.swarm:
        return scenario
    if scenario.nexus.hazards is None:  # a file without a word of it means a right Nexus, and `run` the recorded one
        scenario = attrs.evolve(scenario, nexus=attrs.evolve(scenario.nexus, hazards=(NO_HAZARD,), marks={}))
    if wrong is None:
        wrong = job.how.variant is not None or job.how.sled_variant is not None or job.hazard is not None
    return swarmed(scenario, seed, keeps_expectations=wrong)


@attrs.frozen
class Ran:
    """What one seed gave. Nothing of it depends on the machine, the time of day or the other seeds."""

    seed: int
    elapsed_us: int
    steps: int
    failures: tuple[tuple[str, str], ...] = ()
    """Key and text of each, the first first."""
    reached: frozenset[int] = frozenset()
    """What it reached (`coverage.py`); in the file only what no run before it had."""

    def line(self) -> str:
        """One line of JSON, always the same bytes for the same run."""
        shown: dict[str, Any] = {"seed": self.seed, "virtual_us": self.elapsed_us, "steps": self.steps}
        if self.reached:
            shown["new"] = sorted(self.reached)
        if self.failures:
            shown["failures"] = [{"what": key, "text": text} for key, text in self.failures]
        return json.dumps(shown, ensure_ascii=True, separators=(",", ":")) + "\n"


def read_ran(line: str) -> Ran:
    """The run in a line. Raises ValueError, KeyError or TypeError for what is none."""
    said = foreign.loads(line)
    failures = tuple((str(one["what"]), str(one["text"])) for one in said.get("failures", ()))
    return Ran(
        int(said["seed"]),
        int(said["virtual_us"]),
        int(said["steps"]),
        failures,
        frozenset(map(int, said.get("new", ()))),
    )


def play_seed(job: Job, seed: int) -> Ran:
    """Plays one seed. A bug of ours on the way is a failure of that seed, not the end of a night's campaign."""
    try:
        task = job.task(seed)
        how = attrs.evolve(task.how, keep=False)
        reached: set[int] = set()
        result = play_covered(task.scenario, seed, how, reached) if job.covers else play(task.scenario, seed, how)
        failures = failures_of(result)
        right = job.right(seed) if failures and job.swarm else None
        if right is not None:
            # what the right ones are blamed for too comes of the faults that were added, or of a false expectation
            anyhow = dict(failures_of(play(right.scenario, seed, attrs.evolve(right.how, keep=False))))
            failures = tuple((key, text) for key, text in failures if key not in anyhow)
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is what this seed has found
        return Ran(seed, 0, 0, ((f"crash/{type(error).__name__}", _clip(f"{_where(error)}: {error}")),))
    if failures and failures[0][0] == NOTHING and job.swarm:
        failures = ()  # a draw that leaves no room for anybody is no finding
    return Ran(seed, result.elapsed_us, result.steps, failures, frozenset(reached))


def failures_of(result: Result) -> tuple[tuple[str, str], ...]:
    """Key and text of what failed, each key once."""
    found = {failure.key: failure.text for failure in reversed(result.failures)}
    if not found and result.is_empty:
        # nobody got an instance, so nothing was tried: not good either (`Result.good`)
        found = {NOTHING: next(warned.text for warned in result.warnings if warned.code == "W312")}
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
