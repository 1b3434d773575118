"""Scenarios that show what real Nexus and the real sled agent do wrong: red with the hazard on, green with it off.

`explore` finds each in a general churn, and `shrink` makes it small: here from a seed that is known, in
`tests/campaign/hazards.py` (`make hazards`) from the first on.
"""

import attrs
import pytest
from support.profile import by_profile
from support.rows import in_one_test

from nexus_client.stub.hazards import DEFAULT, Hazard
from sim_sled.campaign.explore import explore
from sim_sled.campaign.guide import OneByOne
from sim_sled.campaign.job import Job
from sim_sled.language.schema import Expect, Load
from sim_sled.language.selector import Selector
from sim_sled.play.run import How, play
from tests.sim.hazard_hunt import (
    PREY,
    SEEDS_MAX,
    SHOWN,
    SLEDS_MAX,
    VMMS_MAX,
    found,
    on_the_wall,
    reduced,
    scenario_of,
    shows,
    storm,
    with_agent,
    with_nexus,
)

SLOW = ("panic_without_target", "late_half_stops_failed")
"""They take a minute and more to reduce: `make hazards`, which reduces all of them."""
QUICK = ("stop_before_start",)
"""One of the agent; to reduce one of Nexus takes twice as long."""
REDUCED = [prey for prey in PREY if by_profile(prey.name in QUICK, nightly=prey.name not in SLOW)]


@in_one_test(("name", "on", "expectation"), SHOWN, ids=[row[0] for row in SHOWN])
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 20260821))])
def test_the_expectation_fails_with_the_hazard_and_holds_without_it(name, on, expectation, seed):
    scenario = scenario_of(name)
    assert not play(scenario, seed, How(keep=False)).failures
    failed = play(on(scenario), seed, How(keep=False)).failures
    assert any(expectation in failure.key for failure in failed), [failure.text for failure in failed]


def test_what_is_played_on_the_wall_clock_shows_the_same():
    scenario = on_the_wall(scenario_of("stop-before-start"))
    assert not play(scenario, 1, How(keep=False)).failures
    assert any("others-live-on" in failure.key for failure in play(with_agent(scenario), 1, How(keep=False)).failures)


def test_with_the_panic_nexus_dies_again_at_each_start():
    on = with_nexus(*DEFAULT, Hazard.PANIC_WITHOUT_TARGET)(scenario_of("target-lost"))
    lines = play(on, 1).trace().text().splitlines()
    panics = [line for line in lines if "Nexus panics: if we have gotten here" in line]
    downs = [line for line in lines if line.split()[1] == "nexus" and line.endswith(" down")]
    assert len(panics) > 10
    assert len(downs) == len(panics)


def judged_by(scenario, name):
    return attrs.evolve(scenario, expect=(Expect(always=(name,)),))


def test_a_nexus_that_dies_by_itself_is_blamed_once_and_one_that_a_rule_restarts_is_not():
    lost = judged_by(scenario_of("target-lost"), "nexus_lives")
    assert not play(lost, 1, How(keep=False)).failures
    on = with_nexus(*DEFAULT, Hazard.PANIC_WITHOUT_TARGET)(lost)
    assert [failure.key for failure in play(on, 1, How(keep=False)).failures] == ["nexus_lives"]
    restarted = judged_by(scenario_of("sagas-settle"), "nexus_lives")
    assert not play(restarted, 1, How(keep=False)).failures


def test_a_start_that_overrules_a_stop_is_blamed_although_the_user_stops_it_again_before_the_end():
    overruled = judged_by(scenario_of("stop-overruled"), "wishes_kept")
    again = Load(at=90_000_000, stop=Selector(hostname=("web",)))
    overruled = attrs.evolve(overruled, load=(*overruled.load, again))
    assert not play(overruled, 1, How(keep=False)).failures
    failures = play(with_nexus(Hazard.START_OVERRULES_STOP)(overruled), 1, How(keep=False)).failures
    assert [failure.text for failure in failures] == [
        "invariant wishes_kept: web had failed, and is started again, but its user has stopped it"
    ]


def test_what_users_see_while_nexus_dies_of_it_is_an_instance_that_stays_failed_and_no_answers():
    lost = scenario_of("target-lost")
    asked = Load(at=150_000_000, stop=Selector(hostname=("web",)))
    on = with_nexus(*DEFAULT, Hazard.PANIC_WITHOUT_TARGET)(attrs.evolve(lost, load=(*lost.load, asked)))
    lines = [str(line) for line in play(on, 1).lines]
    public = [line.split()[-1] for line in lines if line.split()[1] == "public"]
    assert public[-1] == "failed"
    assert any("user" in line and "stop web: no answer" in line for line in lines)


def test_it_is_the_same_when_the_target_is_lost_between_the_two_completions():
    """The source has told its end in time; the target never does (NX 5.2, hazard 1b)."""
    lost = scenario_of("target-lost")
    lost = attrs.evolve(lost, rules=tuple(rule for rule in lost.rules if rule.name != "source-is-slow-to-tell"))
    assert not play(lost, 1, How(keep=False)).failures
    on = with_nexus(*DEFAULT, Hazard.PANIC_WITHOUT_TARGET)(lost)
    assert any("Nexus panics" in str(line) for line in play(on, 1).lines)


@pytest.mark.nightly
@pytest.mark.long
def test_the_churn_is_quiet_with_nothing_wrong():
    explored = explore(Job("storm.yaml", storm(), How()), OneByOne(0), by_profile(2, nightly=20))
    assert [group.text for group in explored.groups.values()] == []


@pytest.mark.parametrize("prey", PREY, ids=[prey.name for prey in PREY])
@pytest.mark.long
def test_explore_finds_it_in_a_general_churn(prey):
    assert prey.pinned < SEEDS_MAX
    assert found(prey, prey.pinned, 1) == prey.pinned


@pytest.mark.parametrize("prey", REDUCED, ids=[prey.name for prey in REDUCED])
@pytest.mark.nightly
@pytest.mark.long
def test_shrink_makes_it_small(prey):
    small = reduced(prey, prey.pinned)
    assert small.scenario.fleet.sleds <= SLEDS_MAX
    assert small.vmms <= VMMS_MAX
    assert shows(prey, small)


def test_a_scenario_without_a_word_of_it_plays_what_was_recorded():
    scenario = scenario_of("stop-overruled")
    plain = attrs.evolve(scenario, nexus=attrs.evolve(scenario.nexus, hazards=None))
    assert play(plain, 1, How(keep=False)).failures
