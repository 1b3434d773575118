"""Prints a digest of the trace of every library scenario, or of every nth, for several seeds or its own. Run as a
process of its own, so that processes with different PYTHONHASHSEED can be compared: `python .../trace_digests.py JOBS
NTH [SEED...]`.
"""

import hashlib
import sys
from pathlib import Path

import attrs

from sim_sled.language.check import load_scenarios
from sim_sled.play.many import Task, play_all
from sim_sled.play.run import How

FOLDER = Path(__file__).parents[3] / "scenarios"


def digests(jobs, nth, seeds):
    loaded, problems = load_scenarios([str(path) for path in sorted(FOLDER.glob("*.yaml"))[::nth]])
    assert not problems.errors, problems.text()
    tasks = [
        Task(Path(one.shown).name, one.scenario, seed, How())
        for one in loaded
        for seed in seeds or [1 if one.scenario.seed is None else one.scenario.seed]
    ]
    for played in play_all(tasks, jobs):
        yield digest(played.task.shown, played.result.trace())


def digest(name, trace):
    text = attrs.evolve(trace, scenario="").text()
    return f"{name} {trace.seed} {hashlib.sha256(text.encode()).hexdigest()}"


if __name__ == "__main__":
    for line in digests(int(sys.argv[1]), int(sys.argv[2]), [int(word) for word in sys.argv[3:]]):
        print(line)
