"""Each action of the language is done by exactly one function, and says without what it cannot be done."""

import pytest

from sim_sled.engine.act.firing import DOING, Needs, does
from sim_sled.language.actions import ACTIONS, ON_SLED, ON_VMM, Action, Note


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
