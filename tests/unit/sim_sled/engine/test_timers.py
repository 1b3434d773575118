"""What rules will do later: in order, and whether something is still to come."""

from sim_sled.engine.timers import Timers


def test_what_a_rule_has_set_off_is_planned_and_a_trigger_that_only_looks_is_not():
    timers = Timers()
    timers.at(5, lambda _: None, trigger=True)
    assert not timers.has_planned(10)
    timers.at(8, lambda _: None)
    assert timers.has_planned(8)
    assert not timers.has_planned(7)
    timers.run(8)
    assert not timers.has_planned(10)


def test_of_equal_times_the_one_that_was_armed_first_comes_first():
    timers, done = Timers(), []
    for name in "ab":
        timers.at(3, lambda _, name=name: done.append(name))
    timers.run(3)
    assert done == ["a", "b"]
