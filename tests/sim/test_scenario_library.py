"""The scenarios of the library: each runs green, equals its golden trace, and fails when its rules are off.

`SIM_SLED_UPDATE=1` rewrites the golden traces; the diff is reviewed like code.
"""

import os
from pathlib import Path

import attrs
import pytest
from support.rows import in_one_test
from support.scenarios.kept import of_library

from sim_sled.cli.traces import replay_file
from sim_sled.play import library
from sim_sled.play.run import How, play
from sim_sled.play.trace import compare, read_trace

FOLDER = Path(__file__).parents[2] / "scenarios"
NAMES = [
    "happy",
    "dev-cluster",
    "slow-boot",
    "stuck-starting",
    "stuck-stop",
    "busy-teardown",
    "race-404",
    "silent-stop",
    "agent-hang",
    "agent-restart",
    "early-accept",
    "sled-reboot",
    "power-cut",
    "flapping",
    "zone-vanishes",
    "propolis-restart",
    "unwind-register",
    "unwind-ensure",
    "queue-full",
    "nexus-outage",
    "nexus-404",
    "nexus-500",
    "duplicates",
    "reorder",
    "stale-gen",
    "migration-matrix",
    "migration-source-lost",
    "overload",
    "one-bad-sled",
    "bad-day",
    "target-lost",
    "stop-overruled",
    "stop-before-start",
    "disk-stuck-creating",
    "region-out-of-space",
    "zpool-lost",
    "inventory-timeouts",
    "artifact-stuck",
    "bundle-half-way",
    "ntp-never-in-sync",
    "config-refused",
    "orphaned-datasets",
    "expunged-disk",
    "both-sleds-lost",
    "stop-in-migration",
    "failed-still-checked",
    "sagas-settle",
    "reservations-bounded",
    "life-cycle-converges",
    "accounting",
    "registration-converges",
]
"""As the design lists them, ten about what a sled has beside VMMs (SR 8), six that show hazards, and five that are
named after a property."""
HAZARDOUS = (
    "target-lost",
    "stop-overruled",
    "stop-before-start",
    "both-sleds-lost",
    "stop-in-migration",
    "failed-still-checked",
)
"""Their expectations notice a hazard that is on, not a rule that is off: test_hazard_scenarios.py."""
PROPERTIES = ("sagas-settle", "reservations-bounded", "life-cycle-converges", "accounting", "registration-converges")
"""They hold whatever the rules do; what they notice is a wrong Nexus or wrong sleds: test_property_scenarios.py."""
DECISIVE = {
    "bad-day": "planned-reboot",
    "dev-cluster": "too-big-for-a-sled",
    "duplicates": "doubled",
    "migration-matrix": "db-fails-in-ram-push",
    "nexus-outage": "gone",
    "power-cut": "power-cut",
    "stale-gen": "old-news",
    "stuck-stop": "never-stops",
}
"""The rule whose absence an expectation must notice, where a scenario has several."""

by_name = in_one_test("name", NAMES)


def test_the_library_is_complete():
    assert sorted(NAMES) == sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_a_scenario_opens_with_what_it_reproduces():
    for listed in library.listed(FOLDER):
        assert len(listed.about) > 40
        alone = listed.name in ("happy", "duplicates", "reorder", "stale-gen", *HAZARDOUS, *PROPERTIES)
        assert listed.issues or alone, listed.name


@by_name
def test_a_scenario_is_green_as_its_golden_trace_says_and_all_that_it_names_is_there(name):
    """All three of one run: every expectation is armed, every selector means somebody."""
    scenario = of_library(name)
    played = play(scenario, 1 if scenario.seed is None else scenario.seed)
    golden, now = FOLDER / f"{name}.trace", played.trace()
    if os.environ.get("SIM_SLED_UPDATE"):
        golden.write_text(now.text())
    assert [failure.text for failure in played.failures] == []
    by_chance = {"dev-cluster"}  # one boot in a hundred
    assert [warned.text for warned in played.warnings if name not in by_chance] == []
    assert compare(read_trace(golden.read_text()), now) == ""
    assert golden.read_text() == now.text()


@by_name
def test_an_expectation_notices_when_the_rule_is_switched_off(name):
    scenario = of_library(name)
    if not scenario.rules:
        assert name == "happy"
        return
    if name in (*HAZARDOUS, *PROPERTIES):
        return
    decisive = DECISIVE.get(name, scenario.rules[0].name)
    assert decisive in [rule.name for rule in scenario.rules]
    off = tuple(attrs.evolve(rule, enabled=rule.name != decisive) for rule in scenario.rules)
    result = play(attrs.evolve(scenario, rules=off), 1 if scenario.seed is None else scenario.seed, How(keep=False))
    assert any(failure.key.startswith("expect/") for failure in result.failures)


@pytest.mark.parametrize("name", ["stuck-stop", "migration-matrix", "nexus-outage"])
def test_a_golden_trace_alone_can_be_replayed(name):
    outcome = replay_file(str(FOLDER / f"{name}.trace"))
    assert outcome.code == 0, outcome.out + outcome.err
    assert "the same" in outcome.out


def test_a_replay_tells_where_two_runs_part(tmp_path):
    trace = (FOLDER / "stuck-stop.trace").read_text()
    path = tmp_path / "x.trace"
    path.write_text(trace.replace("starting -> running", "starting -> failed", 1))
    outcome = replay_file(str(path))
    assert outcome.code == 1
    assert "-" in outcome.out
    assert "starting -> failed" in outcome.out
    assert replay_file(str(tmp_path / "none.trace")).code == 2
    path.write_text("hello\n")
    assert replay_file(str(path)).code == 2
