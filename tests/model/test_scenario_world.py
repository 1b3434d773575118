"""No valid scenario breaks an invariant of the correct model, whatever it does to sleds, network and Nexus; what
`check` lets pass can be run, and what it refuses cannot.
"""

import attrs
import pytest
from hypothesis import Phase, assume, given, note, settings
from support.profile import by_profile

from sim_sled.cli.scenario_commands import RunOptions, run_files
from sim_sled.language.actions import SetState
from sim_sled.language.check import parse_scenario
from sim_sled.language.printing import print_scenario
from sim_sled.play.run import How, play
from sim_sled.play.virtual import Bounds
from sim_sled.strategies.scenario import scenarios

BOUNDS = Bounds(steps_max=60_000, heap_max=100_000, lines_max=200_000)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Not shrunk by hypothesis, which takes minutes here: `sim-sled shrink` knows what may be left out of a scenario."""
HOW = How(bounds=BOUNDS, until_us=240_000_000)
"""Twice as long as anything drawn, but for hours: one that beats every 16 ms until then is most of the work."""
INVARIANTS = ("gen_monotonic", "nexus_properties", "time_ordered", "capacity")
"""Of every scenario. The others may be broken by what a scenario does on purpose (a Nexus that answers 404)."""


@pytest.mark.nightly
@settings(max_examples=by_profile(30, nightly=500), deadline=None, phases=PHASES)
@given(scenarios())
def test_no_valid_scenario_breaks_the_model(scenario):
    note(print_scenario(scenario))
    forced = any(isinstance(action, SetState) for rule in scenario.rules for action in rule.do)
    result = play(attrs.evolve(scenario, expect=()), 7, HOW)
    broken = [f.text for f in result.failures if f.key.partition("/")[0] in INVARIANTS]
    # a sled that says what cannot be (`illegal: true`) breaks properties of sleds, and Nexus is not to blame
    assert forced or broken == []
    assert all(f.key != "bounds" for f in result.failures), result.failures


@pytest.mark.nightly
@settings(max_examples=by_profile(10, nightly=200), deadline=None, phases=PHASES)
@given(scenarios())
def test_a_run_is_the_same_twice(scenario):
    first, second = play(scenario, 3, HOW), play(scenario, 3, HOW)
    assert first.trace().text() == second.trace().text()


@pytest.mark.nightly
@settings(max_examples=by_profile(10, nightly=200), deadline=None, phases=PHASES)
@given(scenarios())
def test_check_and_run_agree_on_what_is_valid(tmp_path_factory, scenario):
    path = tmp_path_factory.mktemp("generated") / "x.yaml"
    text = print_scenario(scenario)
    path.write_text(text)
    assert run_files([str(path)], RunOptions(seed=1, until_us=60_000_000)).code in (0, 1)
    bad = text.replace("version: 1", "version: 1\nversoin: 2")
    assume(parse_scenario(bad)[0] is None)
    path.write_text(bad)
    outcome = run_files([str(path)], RunOptions(seed=1))
    assert outcome.code == 2
    assert outcome.out == ""
