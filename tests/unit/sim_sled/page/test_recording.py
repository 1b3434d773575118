"""A finished run as the page takes it."""

import pytest

from sim_sled.language.check import parse_scenario
from sim_sled.page import recording
from sim_sled.page.recording import FIELDS, TooManyEvents, recording_of, recording_of_trace
from sim_sled.play.run import play
from sim_sled.play.trace import parse_line, read_trace

TEXT = """
version: 1
name: two-lives
fleet: {sleds: 2}
rules:
- name: keep
  for: {hostname: late-*}
  when: {publish: running}
  do: {hold: {lasts: 5s}}
load:
- at: 0s
  create: {hostname: web-1}
- at: 0s
  create: {hostname: late-1}
- at: 10s
  migrate: {hostname: web-1}
expect:
- name: never-so
  for: {hostname: web-*}
  after: {state: running}
  within: 1s
  that: {vmm: failed}
"""


@pytest.fixture(scope="module")
def result():
    scenario, problems = parse_scenario(TEXT, "two-lives.yaml")
    assert scenario is not None, problems.text()
    return play(scenario, 7)


@pytest.fixture(scope="module")
def told(result):
    return recording_of(result)


def events(told, kind):
    return [dict(zip(FIELDS, event, strict=True)) for event in told["events"] if event[1] == kind]


def test_every_line_of_the_trace_is_an_event(result, told):
    assert len(told["events"]) == len(result.lines)
    assert [event[-1] for event in told["events"]] == [line.text for line in result.lines]


def test_every_vm_is_there_with_its_name_and_its_sled(result, told):
    assert {vm["n"] for vm in told["vms"]} == {int(line.vmm[1:]) for line in result.lines if line.vmm != "-"}
    assert told["sleds"] == ["sled-1", "sled-2"]
    assert all(vm["sled"] in (0, 1) for vm in told["vms"])


def test_a_state_is_told_from_and_to(told):
    found = events(told, "propolis")
    assert ("starting", "running") in {(event["from"], event["to"]) for event in found}
    assert ("", "migrating") in {(event["from"], event["to"]) for event in found}, "a target is born migrating"


def test_a_report_has_its_state_and_generation(told):
    sent = events(told, "sent")
    assert all(event["to"] and event["gen"] >= 2 for event in sent)


def test_a_retry_has_its_attempt():
    line = parse_line("      1.000000 sent      sled-1 v1 web running gen 4 in=completed/3 attempt 3")
    assert recording._said(line) == ("", "running", 4, 2)


def test_failures_come_with_their_why(told):
    failure = told["failures"][0]
    assert "never-so" in failure["text"]
    assert failure["why"]


def test_a_rule_is_told_in_the_words_of_its_file(told):
    [rule] = told["rules"]
    assert rule["words"] == {"for": "hostname: late-*", "when": "publish: running", "do": "hold: 5s"}
    assert rule["where"] == "two-lives.yaml:6"


def test_a_trace_alone_gives_the_same_but_for_the_verdict(result, told):
    trace = read_trace(result.trace().text())
    alone = recording_of_trace(result.scenario, trace, [parse_line(line) for line in trace.lines])
    assert alone["events"] == told["events"]
    assert alone["vms"] == told["vms"]
    assert (alone["judged"], told["judged"]) == (False, True)


def test_a_run_that_is_too_long_for_a_page_is_refused_and_says_what_to_do(result, monkeypatch):
    monkeypatch.setattr(recording, "EVENTS_MAX", 10)
    with pytest.raises(TooManyEvents, match="--until"):
        recording_of(result)
