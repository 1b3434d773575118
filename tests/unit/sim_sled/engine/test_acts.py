"""Each action of the language is done by exactly one function, and says without what it cannot be done."""

import pytest

from sim_sled.engine.act.firing import DOING, Needs, does
from sim_sled.language.actions import ACTIONS, ON_SLED, ON_VMM, Action, Note
from sim_sled.language.check import parse_scenario
from sim_sled.play.run import How, run_to_end
from sim_sled.play.virtual import World


def test_every_action_of_the_language_is_done_by_one_function_of_its_own():
    assert set(DOING) == set(ACTIONS.values())
    functions = [doing.does for doing in DOING.values()]
    assert len(set(functions)) == len(functions)


def test_what_check_refuses_without_a_vmm_or_a_sled_needs_one_when_it_is_done():
    assert {action for action, doing in DOING.items() if doing.needs is Needs.VMM} == set(ON_VMM)
    assert {action for action, doing in DOING.items() if doing.needs is Needs.SLED} == set(ON_SLED)


def test_a_second_function_for_an_action_is_refused():
    with pytest.raises(ValueError, match="Note is done already"):
        does(Note)(lambda _firing, _action: None)


def test_an_action_that_no_scenario_can_say_is_refused():
    class Unsaid(Action):
        key = "unsaid"

    with pytest.raises(ValueError, match="no action of the language"):
        does(Unsaid)(lambda _firing, _action: None)
    assert Unsaid not in DOING


HEAD = """version: 1
fleet: {sleds: 1}
latency: {starting -> running: 1s, stopping -> stopped: 1s}
load: [{at: 0s, create: {hostname: web}}, {at: 10s, stop: {}}]
rules:
"""


def played(*rules):
    """The world after a life of one VM under these rules."""
    scenario, problems = parse_scenario(HEAD + "".join(f"- {rule}\n" for rule in rules))
    assert scenario is not None, problems.text()
    world = World(scenario, 1)
    run_to_end(world, How())
    return world


def test_what_comes_too_late_for_a_vmm_that_is_gone_is_told_as_without_effect():
    world = played("{name: late, when: {state: running}, do: [{delay: 1m}, {kill_propolis: true}]}")
    counter = world.engine.counters["late"]
    assert counter.futile == {"kill_propolis": (1, "the VMM was gone by then")}
    assert not counter.worked


def test_a_stall_that_is_over_leaves_a_longer_one_in_force():
    world = played(
        "{name: short, for: {hostname: web}, when: {at: 10500ms}, do: {stall: 5s}}",
        "{name: long, for: {hostname: web}, when: {at: 10600ms}, do: {stall: 60s}}",
    )
    ended = [line.at_us for line in world.lines if line.kind == "propolis" and "stopped" in line.text.lower()]
    assert ended
    assert ended[0] >= 70_600_000


@pytest.mark.parametrize("how", ["latency", "rule"])
def test_the_end_of_a_start_that_fails_is_held_up_like_every_edge(how):
    """Propolis tells that a start has failed when its rundown is over (PR 3.2)."""
    held = {
        "latency": "latency: {starting -> failed: 30s}",
        "rule": "rules: [{name: b, when: {edge: starting -> failed}, do: {delay: 30s}}]",
    }[how]
    fails = "{name: a, when: {state: starting}, do: {set_state: failed}}"
    text = "version: 1\nfleet: {sleds: 1}\nload: [{at: 0s, create: {hostname: web}}]\n"
    text += held.replace("rules: [", f"rules: [{fails}, ") if how == "rule" else f"{held}\nrules: [{fails}]\n"
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    world = World(scenario, 1)
    run_to_end(world, How())
    ended = [line.at_us for line in world.lines if line.kind == "propolis" and "failed" in line.text.lower()]
    assert ended[0] >= 30_000_000
