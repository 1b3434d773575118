"""Every judge is proven by sleds that are wrong on purpose: it passes with right ones and fails with these, and with
which key. A judge without a wrong sled here judges nothing.
"""

import attrs
import pytest
from support.rows import in_one_test

from sim_sled.cli.exploring import ExploreOptions, explore_file
from sim_sled.cli.scenario_commands import RunOptions, run_files, shrink_file
from sim_sled.cli.traces import replay_file
from sim_sled.language.check import parse_scenario
from sim_sled.language.words import INVARIANTS
from sim_sled.play.run import How, play
from sim_sled.play.wrong_sleds import SLED_VARIANTS, WrongSled, wrong_sled
from tests.sim.hazard_hunt import PREY

LIFE = """
version: 1
fleet: {sleds: 2}
latency: {starting -> running: 2s, stopping -> stopped: 1s, stopped -> destroyed: 1s}
load:
- {at: 0s, create: {hostname: web}}
- {at: 20s, stop: {hostname: web}}
"""
MOVE = """
version: 1
fleet: {sleds: 2}
latency: {migration ram_push: 1s, stopped -> destroyed: 5s, stopping -> destroyed: 5s}
load:
- {at: 0s, create: {hostname: web}}
- {at: 20s, migrate: {hostname: web}}
"""
FULL = """
version: 1
fleet: {sleds: 1, shape: {cpus: 8, ram: 64GiB, reservoir: 32GiB}}
load:
- {at: 0s, create: {hostname: "web-{n}", count: 12, ncpus: 2, memory: 4GiB}}
"""
UNWIND = """
version: 1
fleet: {sleds: 2}
load:
- {at: 0s, create: {hostname: web}}
rules:
- {name: no-start, when: {request: vmm_put_state, to: running}, times: 1, do: {fail: 500}}
"""


def always(*names):
    return f"expect: [{{always: [{', '.join(names)}]}}]\n"


def expect(rest):
    return f"expect: [{{name: judge, {rest}}}]\n"


CASES = {
    # what is judged: (scenario, wrong sled, key of the failure)
    "gen_monotonic: a generation from before": (
        LIFE + always("gen_monotonic"),
        "generation-goes-back",
        "gen_monotonic",
    ),
    "gen_monotonic: two states in one": (
        LIFE + always("gen_monotonic"),
        "two-states-in-one-generation",
        "gen_monotonic",
    ),
    "time_ordered": (LIFE + always("time_ordered"), "clock-goes-back", "time_ordered"),
    "final_state_acked": (LIFE + always("final_state_acked"), "keeps-the-end-to-itself", "final_state_acked"),
    "one_running_vmm": (MOVE + always("one_running_vmm"), "source-runs-on", "one_running_vmm"),
    "capacity: memory": (
        FULL.replace("ncpus: 2", "ncpus: 1").replace("count: 12", "count: 8").replace("4GiB}}", "5GiB}}")
        + always("capacity"),
        "boasts-of-room",
        "capacity",
    ),
    "capacity: CPUs": (FULL.replace("4GiB}}", "1GiB}}") + always("capacity"), "boasts-of-room", "capacity"),
    "no_leaks": (UNWIND + always("no_leaks"), "keeps-what-is-unregistered", "no_leaks"),
    "no_unexplained_5xx": (LIFE + always("no_unexplained_5xx"), "fails-for-no-reason", "no_unexplained_5xx"),
    "acked: a state": (
        LIFE + expect("after: {request: vmm_put_state, to: stopped}, within: 20s, that: {acked: destroyed}"),
        "keeps-the-end-to-itself",
        "expect/judge",
    ),
    "acked: same_as_vmm": (
        LIFE + expect("after: {state: running}, within: 10s, that: {acked: same_as_vmm}"),
        "says-nothing-of-running",
        "expect/judge",
    ),
    "never": (
        LIFE + expect("after: {request: vmm_register}, lasts: 15s, never: {publish: failed}"),
        "calls-running-failed",
        "expect/judge",
    ),
    "never, same: vmm": (
        LIFE + expect("after: {publish: stopping}, lasts: 15s, never: {publish: running, same: vmm}"),
        "calls-the-end-running",
        "expect/judge",
    ),
    "never, same: instance": (
        LIFE + expect("after: {state: running}, lasts: 5m, never: {request: vmm_register, same: instance}"),
        "calls-running-failed",
        "expect/judge",
    ),
}


def scenario_of(text):
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    return scenario


def keys(result):
    return [failure.key for failure in result.failures]


@in_one_test("judge", CASES)
def test_a_judge_passes_right_sleds_and_fails_wrong_ones(judge):
    text, variant, key = CASES[judge]
    scenario = scenario_of(text)
    right = play(scenario, 7)
    assert keys(right) == []
    # who fills a sled on purpose is told that not everybody found room
    assert [warned.code for warned in right.warnings] == (["W314"] if key == "capacity" else [])
    wrong = play(scenario, 7, How(sled_variant=variant))
    assert key in keys(wrong), wrong.lines
    assert not wrong.good


def test_every_invariant_and_every_kind_of_expectation_has_its_wrong_sled():
    judged = {judge.partition(":")[0].partition(",")[0] for judge in CASES}
    # what a real Nexus or agent does wrong proves these: no sled lies. That a Nexus dies is seen in
    # test_hazard_scenarios.py; hunts look for what its death leaves behind.
    # What the model itself promises (`nexus_properties`) is asked of every run: no scenario names it.
    of_hazards = {prey.key for prey in PREY if not prey.key.startswith("nexus_properties/")} | {"nexus_lives"}
    assert judged | of_hazards == {*INVARIANTS, "acked", "never"}
    assert {variant for _, variant, _ in CASES.values()} == set(SLED_VARIANTS)
    for name, variant in SLED_VARIANTS.items():
        assert variant.breaks, name
        assert variant.__doc__


def test_same_vmm_means_the_vmm_and_not_its_instance():
    """Another VMM of the instance is registered: of the same instance, but not the same VMM."""
    text = LIFE + expect("after: {state: running}, lasts: 5m, never: {request: vmm_register, same: vmm}")
    assert "expect/judge" not in keys(play(scenario_of(text), 7, How(sled_variant="calls-running-failed")))


def test_a_vmm_that_is_told_later_is_the_same_as_it_is():
    """`same_as_vmm` waits for what is under way, and passes then."""
    held = "rules: [{name: late, when: {publish: running}, do: {delay: 5s}}]\n"
    met = LIFE + held + expect("after: {state: running}, within: 6s, that: {acked: same_as_vmm}")
    late = LIFE + held + expect("after: {state: running}, within: 4s, that: {acked: same_as_vmm}")
    assert keys(play(scenario_of(met), 7)) == []
    assert keys(play(scenario_of(late), 7)) == ["expect/judge"]


def test_what_a_rule_keeps_back_is_no_failure_of_the_sled():
    held = "rules: [{name: kept, when: {publish: destroyed}, do: {hold: {}}}]\n"
    assert keys(play(scenario_of(LIFE + held + always("final_state_acked")), 7)) == []
    down = "rules: [{name: off, for: {sled: '*'}, when: {at: 20s}, do: {power_off_sled: {lasts: forever}}}]\n"
    assert keys(play(scenario_of(LIFE + down + always("final_state_acked")), 7)) == []
    cut = "rules: [{name: cut, when: {at: 20500ms}, do: {partition: {from: nexus}}}]\n"
    assert keys(play(scenario_of(LIFE + cut + always("final_state_acked")), 7)) == []


def test_a_sled_that_is_exactly_full_is_within_its_capacity():
    exactly = FULL.replace("count: 12", "count: 4").replace("4GiB}}", "8GiB}}")
    scenario = scenario_of(exactly + always("capacity"))
    assert play(scenario, 7).good
    assert play(scenario, 7, How(sled_variant="boasts-of-room")).good


def test_a_run_says_that_its_sleds_are_wrong_and_how_to_see_it_again(tmp_path):
    text, variant, key = CASES["time_ordered"]
    path, trace = tmp_path / "life.yaml", tmp_path / "t"
    path.write_text(text)
    outcome = run_files([str(path)], RunOptions(seed=7, sled_variant=variant, trace=trace))
    assert outcome.code == 1
    assert "deliberately wrong sleds: 'clock-goes-back'" in outcome.out
    assert f"--seed 7 --sled-variant {variant}" in outcome.out
    assert replay_file(str(trace)).code == 0
    explored, told = explore_file(str(path), ExploreOptions(runs=3, sled_variant=variant))
    assert list(explored.groups) == [key]
    assert f"--sled-variant {variant}" in told.out
    small, reduced = shrink_file(str(path), 7, sled_variant=variant)
    assert small.key == key
    assert f"--sled-variant {variant}" in reduced.out


def test_an_unknown_sled_variant_is_told_with_those_there_are(tmp_path):
    path = tmp_path / "life.yaml"
    path.write_text(LIFE)
    outcome = run_files([str(path)], RunOptions(seed=7, sled_variant="wrong"))
    assert outcome.code == 2
    assert "clock-goes-back" in outcome.err
    with pytest.raises(KeyError, match="clock-goes-back"):
        wrong_sled("wrong")


def test_sleds_that_lie_in_nothing_change_nothing():
    text = MOVE + always(*INVARIANTS)
    honest = play(scenario_of(text), 7)

    class Honest(WrongSled):
        name = "honest"

    SLED_VARIANTS["honest"] = Honest
    try:
        same = play(scenario_of(text), 7, How(sled_variant="honest"))
    finally:
        del SLED_VARIANTS["honest"]
    assert attrs.evolve(same, sled_variant="") == honest
