"""`shrink`: which smaller scenarios are proposed, and that none grows."""

from types import SimpleNamespace

import attrs
import pytest

from sim_sled.language.check import parse_scenario
from sim_sled.language.selector import EVERYTHING
from sim_sled.play import shrink
from sim_sled.play.judge.failures import Failure
from sim_sled.play.many import Task, play_task
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
    shrunk = shrink.shrink(Task("x.yaml", scenario(), 1, How()), "expect/none-runs", seeds=1)
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
    shrunk = shrink.shrink(Task("y.yaml", scenario(SAME_NAME_OTHER_REASON), 1, How()), "expect/ends", seeds=1)
    assert shrunk is not None
    assert "vmm is stopping, not destroyed" in shrunk.text
    assert [load.action() for load in shrunk.scenario.load] == ["create", "stop"]
    assert [rule.name for rule in shrunk.scenario.rules] == ["stuck"]


TWO = """
version: 1
name: two
fleet: {sleds: 2}
load:
- {at: 0s, create: {hostname: web}}
- {at: 0s, create: {hostname: db}}
- {at: 9s, migrate: {hostname: web}}
- {at: 20s, stop: {hostname: db}}
- {at: 30s, stop: {percent: 50%}}
"""


def test_an_instance_is_left_out_with_all_that_is_asked_of_it():
    asked = [[load.at // 1_000_000 for load in s.load] for s in shrink.proposed(scenario(TWO)) if s.fleet.sleds == 2]
    assert [0, 20, 30] in asked[:3]
    assert [0, 9, 30] in asked[:3]


CROWD = """
version: 1
name: crowd
fleet: {sleds: 3}
load:
- {every: 1s, from: 0s, to: 30s, churn: {population: 4, create: 8, migrate: 4, stop: 1, delete: 1}}
- {every: 7s, from: 3s, to: 30s, stop: {percent: 20%}}
rules:
- {name: lost, for: {role: target}, when: {state: running}, chance: 30%, do: {power_off_sled: {lasts: 40s}}}
expect:
- {always: [agents_live, gen_monotonic]}
- {name: stays, for: {role: target}, after: {state: running}, lasts: 20s, never: {state: stopping}}
"""


def test_the_life_before_what_matters_is_left_out_by_creating_it_later():
    text = TWO.replace("at: 9s, migrate", "at: 90s, migrate").replace("at: 20s, stop", "at: 20s, start")
    asked = [{(load.at // 1_000_000, load.action()) for load in s.load} for s in shrink.proposed(scenario(text))]
    assert {(0, "create"), (20, "start"), (30, "stop"), (80, "create"), (90, "migrate")} in asked
    assert {(0, "create"), (90, "migrate"), (30, "stop"), (20, "create")} in asked, "who is started is created then"


def test_what_needs_more_vmms_is_no_gain_and_what_needs_fewer_is_one_although_it_is_later(monkeypatch):
    """The sooner it is created, the more VMMs it has had when it is migrated."""

    def played(tasks, _jobs):
        for task in tasks:
            born = [load.at for load in task.scenario.load if load.create is not None]
            asked = [load.at for load in task.scenario.load if load.migrate is not None]
            fails = born and asked == [90_000_000]
            failures = (Failure("wishes_kept", "told", 0),) if fails else ()
            counts = {"vmms": 100 - born[0] // 1_000_000} if fails else {"vmms": 0}
            yield SimpleNamespace(task=task, result=SimpleNamespace(failures=failures, counts=counts, deeds=()))

    monkeypatch.setattr(shrink, "play_all", played)
    start = scenario(
        "version: 1\nname: late\nfleet: {sleds: 1}\n"
        "load: [{at: 7s, create: {hostname: web}}, {at: 90s, migrate: {hostname: web}}]\n"
    )
    shrunk = shrink.shrink(Task("late.yaml", start, 1, How()), "wishes_kept")
    assert shrunk is not None
    assert [load.at for load in shrunk.scenario.load] == [80_000_000, 90_000_000]
    assert shrunk.vmms == 20


def test_of_a_crowd_one_instance_is_left_and_what_was_asked_of_it():
    task = next(
        task
        for seed in range(40)
        for task in [Task("crowd.yaml", scenario(CROWD), seed, How(keep=False))]
        if any(failure.key == "expect/stays" for failure in play_task(task).result.failures)
    )
    shrunk = shrink.shrink(task, "expect/stays", seeds=2)
    assert shrunk is not None
    assert [load.action() for load in shrunk.scenario.load] == ["create", "migrate", "stop"]
    assert shrunk.vmms == 2


BLAMED = """
version: 1
name: blamed
fleet: {sleds: 1}
nexus: {hazards: start_overrules_stop}
load: [{at: 0s, create: {hostname: web}}]
rules:
- {name: a, when: {state: running}, do: {note: one}}
- {name: b, when: {state: running}, do: {note: two}}
"""


@pytest.mark.parametrize(("innocent_too", "left"), [(False, ["a"]), (True, [])])
def test_what_a_hazard_is_to_blame_for_is_not_reduced_to_what_fails_without_it(monkeypatch, innocent_too, left):
    """Without rules it fails whatever Nexus does; with rule a it needs the hazard, unless `innocent_too`."""

    def played(tasks, _jobs):
        for task in tasks:
            on = "start_overrules_stop" in (task.scenario.nexus.hazards or ())
            names = [rule.name for rule in task.scenario.rules]
            fails = not names or ("a" in names and (on or innocent_too))
            failures = (Failure("wishes_kept", "told", 0),) if fails else ()
            yield SimpleNamespace(task=task, result=SimpleNamespace(failures=failures, counts={"vmms": 1}, deeds=()))

    monkeypatch.setattr(shrink, "play_all", played)
    shrunk = shrink.shrink(Task("blamed.yaml", scenario(BLAMED), 1, How()), "wishes_kept")
    assert shrunk is not None
    assert [rule.name for rule in shrunk.scenario.rules] == left


def test_another_fault_that_the_same_invariant_tells_of_is_another_reason(monkeypatch):
    """With rule a a stop is lost; without it somebody else's wish is: the same judge, and not the same fault."""

    def played(tasks, _jobs):
        for task in tasks:
            lost = any(rule.name == "a" for rule in task.scenario.rules)
            seen = "runs; wanted stopped" if lost else "stopped; wanted running"
            failures = (Failure("wishes_kept", "told", 0, seen=seen),)
            yield SimpleNamespace(task=task, result=SimpleNamespace(failures=failures, counts={"vmms": 1}, deeds=()))

    monkeypatch.setattr(shrink, "play_all", played)
    shrunk = shrink.shrink(Task("blamed.yaml", scenario(BLAMED), 1, How()), "wishes_kept")
    assert shrunk is not None
    assert [rule.name for rule in shrunk.scenario.rules] == ["a"]
