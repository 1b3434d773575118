"""Each kind of incident once, drawn, written and judged; `python -m tests.campaign.incidents` has hundreds. Every run
has a quarter of them: each has its own tests in tests/unit/sim_sled/incident, of logs written by hand.
"""

import pytest

from tests.campaign.incidents import KINDS, one_seed


@pytest.mark.parametrize(
    "kind", [pytest.param(kind.__name__, marks=pytest.mark.long if n % 4 else ()) for n, kind in enumerate(KINDS)]
)
def test_an_incident_that_nobody_has_seen_is_imported_as_it_happened(kind):
    world, wrong = one_seed(7, kind)
    assert world.kinds == [kind]
    assert wrong == []


def test_a_vmm_is_forgotten_whose_instance_was_stopped_and_started_before():
    """What is expected after that stop is not expected after the first: there its user starts it again."""
    world, wrong = one_seed(6080)
    assert world.kinds == ["forgotten"]
    assert wrong == []


def test_the_judge_notices_a_rule_that_is_missing_one_for_nothing_and_another_wish(monkeypatch):
    """The judge is proven by something wrong: what happened is not what is told of it."""
    from tests.campaign import incidents

    def lied(seed, only):
        world = draw(seed, only)
        world.faults.clear()
        world.fault("an invented one", ("Stall",), "db")
        world.wishes.pop()
        return world

    draw = incidents.draw
    monkeypatch.setattr(incidents, "draw", lied)
    _, wrong = one_seed(7, "slow_stop")
    assert [each.split(" ")[0] for each in wrong if "users wanted" not in each] == ["no", "a"]
    assert any("users wanted" in each for each in wrong)
