"""The deliberately wrong Nexus variants are found, and what was found is small.

`tests/sim/shrunk/VARIANT.yaml` was written by `sim-sled shrink`; it fails with that variant and not with the right
Nexus.
"""

from pathlib import Path

import pytest
from support.rows import in_one_test

from nexus_client.stub.variants import VARIANTS
from sim_sled.campaign.explore import explore
from sim_sled.campaign.guide import OneByOne
from sim_sled.campaign.job import Job
from sim_sled.cli.exploring import ExploreOptions, explore_file
from sim_sled.cli.scenario_commands import RunOptions, run_files, shrink_file
from sim_sled.language.check import load_scenarios
from sim_sled.play.run import How, play

SHRUNK = Path(__file__).parent / "shrunk"
LIBRARY = Path(__file__).parents[2] / "scenarios"
FITTING = {
    "no-watcher": "race-404",
    "no-updater": "nexus-outage",
    "source-wins": "migration-matrix",
    "forgets-migration": "happy",
    "accepts-equal-generation": "duplicates",
    "stopped-too-early": "happy",
    "unlocked-saga": "migration-matrix",
    "restarts-stopped": "race-404",
    "deletes-running": "happy",
    "lazy-reaper": "unwind-ensure",
    "failed-is-stopped": "propolis-restart",
}


def scenario_of(path):
    [loaded], problems = load_scenarios([str(path)])
    assert loaded.scenario is not None, problems.text()
    return loaded.scenario


def test_every_variant_has_a_fitting_scenario():
    assert sorted(FITTING) == sorted(VARIANTS)


@in_one_test("variant", sorted(FITTING))
def test_explore_finds_a_wrong_nexus_within_200_seeds(variant):
    scenario = scenario_of(LIBRARY / f"{FITTING[variant]}.yaml")
    explored = explore(Job("x", scenario, How(variant=variant)), OneByOne(0), 200, stop_after=1)
    assert explored.failed


@in_one_test("variant", sorted(FITTING))
def test_what_shrink_left_still_fails_and_only_with_the_wrong_nexus(variant):
    scenario = scenario_of(SHRUNK / f"{variant}.yaml")
    wrong = play(scenario, scenario.seed, How(variant=variant))
    assert wrong.failures
    assert scenario.fleet.sleds <= 2
    assert wrong.counts["vmms"] <= 3
    assert play(scenario, scenario.seed).failures == ()


@pytest.mark.long
def test_a_run_is_found_and_reduced_live(tmp_path):
    path = str(LIBRARY / "race-404.yaml")
    explored, outcome = explore_file(path, ExploreOptions(runs=200, variant="restarts-stopped"))
    assert outcome.code == 1
    [group] = explored.groups.values()
    assert group.what == "expect/user-stop-wins"
    small, reduced = shrink_file(path, group.seeds[0], variant="restarts-stopped")
    assert reduced.code == 0
    assert small.vmms <= 3
    assert small.scenario.fleet.sleds <= 2
    file = tmp_path / "small.yaml"
    file.write_text(reduced.out)
    again = run_files([str(file)], RunOptions(variant="restarts-stopped"))
    assert again.code == 1
    assert "user-stop-wins" in again.out


def test_a_run_that_does_not_fail_is_not_reduced():
    small, outcome = shrink_file(str(LIBRARY / "happy.yaml"), 1)
    assert small is None
    assert outcome.code == 1
    assert "does not fail" in outcome.err
