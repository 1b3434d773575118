"""JUnit as a CI shows it: a case per expectation and invariant, and one of the run itself."""

import xml.etree.ElementTree as ET

import pytest

from sim_sled.cli.scenario_commands import RunOptions, run_files
from sim_sled.play import library

MIXED = """version: 1
name: mixed
fleet: {sleds: 1}
latency: {preset: instant}
load:
- {at: 0s, create: {hostname: web}}
rules:
- {name: idle, when: {manual: never}, do: {note: x}}
expect:
- {name: runs, after: {state: starting}, that: {vmm: running}, within: 20s}
- {name: fails, after: {state: running}, that: {vmm: failed}, within: 20s}
- {name: unarmed, after: {state: rebooting}, that: {vmm: running}, within: 20s}
- {after: {state: running}, that: {instance: running}, within: 20s}
- always: [gen_monotonic, no_leaks]
"""
ROOMLESS = """version: 1
name: roomless
load:
- {at: 0s, create: {hostname: web, ncpus: 4096}}
"""


def played(tmp_path, text, **options):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    out = tmp_path / "out.xml"
    outcome = run_files([str(path)], RunOptions(seed=3, junit=out, **options))
    return outcome, ET.parse(out).getroot()


def verdicts(suites):
    """By name: what became of it."""
    return {
        case.get("name"): next((each.tag for each in case if each.tag in ("failure", "skipped")), "passed")
        for case in suites.iter("testcase")
    }


def test_each_expectation_and_invariant_is_a_case_of_its_own(tmp_path):
    outcome, suites = played(tmp_path, MIXED)
    assert outcome.code == 1
    assert verdicts(suites) == {
        "runs": "passed", "fails": "failure", "unarmed": "skipped", "expect-4": "passed",
        "always gen_monotonic": "passed", "always no_leaks": "passed", "the run": "passed",
    }  # fmt: skip
    [suite] = suites
    for element in (suites, suite):
        assert [element.get(name) for name in ("tests", "failures", "skipped")] == ["7", "1", "1"]
    assert {case.get("classname") for case in suites.iter("testcase")} == {"mixed"}
    failure = suite.find("testcase/failure")
    assert "expectation 'fails'" in failure.get("message")
    assert f"again: sim-sled run {tmp_path / 'x.yaml'} --seed 3" in failure.text
    assert "was never armed" in suite.find("testcase/skipped").get("message")
    said = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert (said["seed"], said["file"]) == ("3", str(tmp_path / "x.yaml"))


@pytest.mark.parametrize(
    ("options", "why"),
    [({"require_fired": True}, "never fired: idle"), ({"strict": True}, "was never armed in this run")],
)
def test_what_no_expectation_stands_for_is_the_runs_own(tmp_path, options, why):
    green = MIXED.replace("vmm: failed", "vmm: running")
    assert verdicts(played(tmp_path, green)[1])["the run"] == "passed"
    outcome, suites = played(tmp_path, green, **options)
    assert outcome.code
    assert verdicts(suites)["the run"] == "failure"
    assert [why in failure.get("message") for failure in suites.iter("failure")] == [True]


def test_a_run_in_which_nobody_got_an_instance_is_no_green_case(tmp_path):
    outcome, suites = played(tmp_path, ROOMLESS)
    assert outcome.code == 1
    assert verdicts(suites)["the run"] == "failure"


def test_a_broken_invariant_is_its_own_case(tmp_path):
    stuck = (library.folder() / "stuck-stop.yaml").read_text()
    outcome, suites = played(tmp_path, stuck, sled_variant="generation-goes-back")
    assert outcome.code == 1
    assert [name for name, verdict in verdicts(suites).items() if verdict == "failure"] == ["always gen_monotonic"]


def test_every_failure_is_in_exactly_one_case(tmp_path):
    outcome, suites = played(tmp_path, MIXED)
    assert outcome.out.count("FAIL") == 1
    assert sum(failure.text.count("expectation 'fails'") for failure in suites.iter("failure")) == 1


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ("", "nothing is expected but invariants"),
        (
            "expect: [{name: a, after: {state: rebooting}, that: {vmm: running}, within: 1s}]\n",
            "none of 1 expectation",
        ),
    ],
)
def test_a_run_in_which_nothing_was_judged_says_so(tmp_path, expect, said):
    """`0/0 expectations met` looks like success."""
    outcome, _ = played(tmp_path, MIXED.partition("expect:")[0] + expect)
    assert said in outcome.out
    assert "0/0" not in outcome.out
