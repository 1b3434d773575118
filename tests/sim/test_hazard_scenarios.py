"""Scenarios that show what real Nexus and the real sled agent do wrong: red with the hazard on, green with it off.

`explore` finds the agent's hazard from a general churn, and `shrink` makes it small.
"""

from pathlib import Path

import attrs
import pytest

from nexus_client.stub.hazards import DEFAULT, Hazard
from sim_sled.language.check import load_scenarios
from sim_sled.language.schema import Agent, Nexus
from sim_sled.play.run import How, play

FOLDER = Path(__file__).parents[2] / "scenarios"


def scenario_of(name):
    [loaded], problems = load_scenarios([str(FOLDER / f"{name}.yaml")])
    assert loaded.scenario is not None, problems.text()
    return loaded.scenario


def with_nexus(*hazards):
    return lambda scenario: attrs.evolve(scenario, nexus=Nexus(hazards=tuple(hazard.value for hazard in hazards)))


def with_agent(scenario):
    return attrs.evolve(scenario, agent=Agent(hazards=("stop_before_start",)))


SHOWN = [
    ("target-lost", with_nexus(*DEFAULT, Hazard.PANIC_WITHOUT_TARGET), "started-again"),
    ("stop-overruled", with_nexus(Hazard.START_OVERRULES_STOP), "stays-as-its-user-wants"),
    ("stop-before-start", with_agent, "others-live-on"),
]


@pytest.mark.parametrize(("name", "on", "expectation"), SHOWN, ids=[row[0] for row in SHOWN])
@pytest.mark.parametrize("seed", [1, 2, 20260821])
def test_the_expectation_fails_with_the_hazard_and_holds_without_it(name, on, expectation, seed):
    scenario = scenario_of(name)
    assert not play(scenario, seed, How(keep=False)).failures
    failed = play(on(scenario), seed, How(keep=False)).failures
    assert any(expectation in failure.key for failure in failed), [failure.text for failure in failed]


def test_with_the_panic_nexus_dies_again_at_each_start():
    on = with_nexus(*DEFAULT, Hazard.PANIC_WITHOUT_TARGET)(scenario_of("target-lost"))
    lines = play(on, 1).trace().text().splitlines()
    panics = [line for line in lines if "Nexus panics: if we have gotten here" in line]
    downs = [line for line in lines if line.split()[1] == "nexus" and line.endswith(" down")]
    assert len(panics) > 10
    assert len(downs) == len(panics)


def test_a_scenario_without_a_word_of_it_plays_what_was_recorded():
    plain = attrs.evolve(scenario_of("stop-overruled"), nexus=Nexus())
    assert play(plain, 1, How(keep=False)).failures
