"""`shrink`: which smaller scenarios are proposed, and that none grows."""

import attrs
import pytest

from sim_sled.language.check import parse_scenario
from sim_sled.language.selector import EVERYTHING
from sim_sled.play import shrink
from sim_sled.play.many import Task
from sim_sled.play.run import How

SCENARIO = """
version: 1
name: x
fleet: {sleds: 3}
load:
- {at: 0s, create: {hostname: "web-{n}", count: 4}}
- {at: 20s, stop: {hostname: web-3}}
rules:
- {name: a, for: {hostname: web-1}, when: {state: running}, do: [{note: one}, {note: two}]}
- {name: b, when: {state: running}, do: {note: three}}
- {name: c, when: {state: running}, do: {note: four}}
- {name: d, when: {state: running}, do: {note: five}}
expect:
- {name: none-runs, after: {at: 1s}, lasts: 60s, never: {state: running}}
- {always: [gen_monotonic, no_leaks]}
"""


def scenario(text=SCENARIO):
    read, problems = parse_scenario(text)
    assert read is not None, problems.text()
    return read


def test_parts_are_left_out_in_halves_before_one_by_one():
    named = [tuple(rule.name for rule in s.rules) for s in shrink.proposed(scenario()) if len(s.rules) < 4]
    assert named == [(), ("c", "d"), ("a", "b"), ("b", "c", "d"), ("a", "c", "d"), ("a", "b", "d"), ("a", "b", "c")]


def test_a_rule_for_one_vmm_is_proposed_for_all():
    assert any(s.rules and s.rules[0].for_ == EVERYTHING for s in shrink.proposed(scenario()) if len(s.rules) == 4)


def test_what_is_proposed_is_smaller_or_simpler_in_one_place():
    before = scenario()
    for after in shrink.proposed(before):
        assert after != before
        assert shrink.size_of(after) <= shrink.size_of(before)


def test_a_proposal_that_is_not_smaller_is_not_played(monkeypatch):
    """Else a reduction could go round for ever."""
    start = scenario()
    bigger = attrs.evolve(start, fleet=attrs.evolve(start.fleet, sleds=9))
    monkeypatch.setattr(shrink, "proposed", lambda _s: iter([bigger]))
    shrunk = shrink.shrink(Task("x.yaml", start, 1, How()), "expect/none-runs", runs_max=20)
    assert shrunk is not None
    assert (shrunk.runs, shrunk.scenario.fleet.sleds) == (1, 3)


def test_the_smallest_scenario_that_fails_for_the_same_reason_is_found():
    shrunk = shrink.shrink(Task("x.yaml", scenario(), 1, How()), "expect/none-runs")
    assert shrunk is not None
    assert (shrunk.key, shrunk.scenario.fleet.sleds, shrunk.scenario.rules) == ("expect/none-runs", 1, ())
    assert [load.create.count for load in shrunk.scenario.load if load.create is not None] == [1]
    assert [expect.name for expect in shrunk.scenario.expect] == ["none-runs"]


def test_runs_are_bounded():
    shrunk = shrink.shrink(Task("x.yaml", scenario(), 1, How()), "expect/none-runs", runs_max=3)
    assert shrunk is not None
    assert shrunk.runs <= 3


@pytest.mark.parametrize("key", ["another", "bounds"])
def test_what_does_not_fail_for_that_reason_is_not_shrunk(key):
    assert shrink.shrink(Task("x.yaml", scenario(), 1, How()), key) is None


SAME_NAME_OTHER_REASON = """
version: 1
name: y
fleet: {sleds: 1}
load:
- {at: 0s, create: {hostname: web}}
- {at: 20s, stop: {hostname: web}}
rules:
- {name: stuck, for: {hostname: web}, when: {state: stopping}, do: {stall: forever}}
expect:
- {name: ends, for: {hostname: web}, after: {at: 15s}, that: {vmm: destroyed}, within: 60s}
"""


def test_what_was_seen_and_what_users_want_are_part_of_the_reason():
    """Without the stop it is not destroyed either: but it runs, as its user wants, and that is another fault."""
    shrunk = shrink.shrink(Task("y.yaml", scenario(SAME_NAME_OTHER_REASON), 1, How()), "expect/ends")
    assert shrunk is not None
    assert "vmm is stopping, not destroyed" in shrunk.text
    assert [load.action() for load in shrunk.scenario.load] == ["create", "stop"]
    assert [rule.name for rule in shrunk.scenario.rules] == ["stuck"]
