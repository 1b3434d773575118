"""The library scenarios that are named after a property of a control plane: they hold whatever the seed, and each
fails with a Nexus, or with sleds, that break what it is named after.
"""

import attrs
import pytest
from support.rows import in_one_test
from support.scenarios.kept import of_library

from sim_sled.play.run import How, play

NOTICED = {
    "sagas-settle": [
        ("variant", "lazy-reaper", "nexus_properties/43"),
        ("sled_variant", "says-nothing-of-running", "expect/settles"),
        ("sled_variant", "keeps-what-is-unregistered", "no_leaks"),
    ],
    "reservations-bounded": [
        ("variant", "stopped-too-early", "nexus_properties/38"),
        ("sled_variant", "boasts-of-room", "capacity"),
        ("sled_variant", "keeps-the-end-to-itself", "expect/room-is-given-back"),
        ("sled_variant", "fails-for-no-reason", "expect/who-waited-gets-it"),
    ],
    "life-cycle-converges": [
        ("variant", "accepts-equal-generation", "nexus_properties/33"),
        ("variant", "forgets-migration", "nexus_properties/40"),
        ("sled_variant", "says-nothing-of-running", "expect/runs-for-its-user"),
        ("sled_variant", "keeps-the-end-to-itself", "expect/ends-for-its-user"),
        ("sled_variant", "keeps-the-end-to-itself", "expect/moves-and-runs"),
        ("sled_variant", "clock-goes-back", "time_ordered"),
    ],
    "accounting": [
        ("variant", "lazy-reaper", "nexus_properties/43"),
        ("sled_variant", "keeps-the-end-to-itself", "expect/is-paid-back"),
        ("sled_variant", "calls-running-failed", "expect/both-sleds-are"),
        ("sled_variant", "fails-for-no-reason", "expect/a-whole-sled-is-free"),
    ],
    "registration-converges": [
        ("sled_variant", "boasts-of-room", "capacity"),
        ("sled_variant", "fails-for-no-reason", "expect/each-sled-is-used"),
    ],
}
"""scenario -> (which kind of wrong, its name, what fails then)."""


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 10), marks=pytest.mark.long)])
@in_one_test("name", NOTICED)
def test_a_property_holds_whatever_the_seed(name, seeds):
    scenario = of_library(name)
    for seed in seeds:
        result = play(scenario, seed, How(keep=False))
        assert [failure.text for failure in result.failures] == [], seed
        assert [warned.text for warned in result.warnings] == [], seed


@in_one_test(
    ("name", "kind", "wrong", "key"), [(name, *each) for name, all_of_it in NOTICED.items() for each in all_of_it]
)
def test_a_property_fails_with_what_breaks_it(name, kind, wrong, key):
    result = play(of_library(name), 0, How(keep=False, **{kind: wrong}))
    assert key in {failure.key for failure in result.failures}


def test_every_expectation_of_theirs_is_made_to_fail():
    for name, wrongs in NOTICED.items():
        wanted = {f"expect/{each.name}" for each in of_library(name).expect if not each.always}
        assert wanted - {key for _, _, key in wrongs} <= {"expect/taken-back"}, name


def test_that_a_start_is_taken_back_is_noticed_by_a_sled_that_takes_everything():
    scenario = of_library("sagas-settle")
    rules = tuple(attrs.evolve(rule, enabled=rule.name != "refused") for rule in scenario.rules)
    failures = play(attrs.evolve(scenario, rules=rules), 0, How(keep=False)).failures
    assert {failure.key for failure in failures} == {"expect/taken-back"}
