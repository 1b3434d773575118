"""Times that their neighbours make impossible, and clocks that nobody has set."""

from sim_sled.incident.clocks import DAY_US, Steady, set_right
from sim_sled.incident.facts import Published, Received
from sim_sled.incident.lines import LogLine, Reading, Where

NOW = 1_790_000_000_000_000
OF_1986 = 536_000_000_000_000


def passed(*times, hosts=None):
    """Times in days from now as a file has them, or of 1986; times as they come out."""
    reading, out = Reading(), []
    steady = Steady(reading)
    for number, days in enumerate(times):
        at_us = OF_1986 + number if days == "1986" else NOW + round(days * DAY_US)
        host = hosts[number] if hosts else "BRM1"
        out += steady.passed(LogLine(Where("a", number + 1), "sled-agent", host, 1, 30, at_us, "x", {}))
    out += steady.rest()
    shown = [
        (each.where.line, "1986" if each.time_us < NOW - 9999 * DAY_US else (each.time_us - NOW) / DAY_US)
        for each in out
    ]
    return shown, sum(reading.odd.values())


def test_a_time_that_is_years_from_those_around_it_is_taken_for_that_of_its_neighbour():
    assert passed(0, 0.1, -3650, 0.2) == ([(1, 0), (2, 0.1), (3, 0.1), (4, 0.2)], 1)


def test_the_first_and_the_last_time_may_be_garbled_too():
    assert passed(3650, 0, 0.1) == ([(1, 0), (2, 0), (3, 0.1)], 1)
    assert passed(0, 0.1, 3650) == ([(1, 0), (2, 0.1), (3, 0.1)], 1)


def test_a_log_with_a_gap_of_weeks_has_one():
    assert passed(0, 0.1, 20, 20.1) == ([(1, 0), (2, 0.1), (3, 20), (4, 20.1)], 0)


def test_lines_that_are_weeks_apart_each_are_as_they_are():
    """As `grep` for one id gives them."""
    shown, odd = passed(0, 20, 40, 60, 80, 100)
    assert sorted(shown) == [(1, 0), (2, 20), (3, 40), (4, 60), (5, 80), (6, 100)]
    assert odd == 0


def test_each_host_has_its_own_clock():
    assert passed(0, 30, 0.1, 30.1, 0.2, hosts="ABABA")[1] == 0


def test_a_sled_that_has_not_found_the_time_is_not_garbled_and_keeps_its_order():
    shown, odd = passed(0, "1986", "1986", 1.5, 1.6)
    assert [number for number, _ in shown] == [1, 2, 3, 4, 5]
    assert odd == 0


def test_reports_of_2023_are_about_instances_and_set_clocks_right_too():
    one = {"where": Where("a", 1), "state": "running", "gen": 3}
    facts = [
        Published(**one, host="BRM1", at_us=NOW, vmm="vmm", instance="one"),
        Received(**one, host="nexus", at_us=NOW + 400_000, instance="one", pushed=True),
    ]
    skews, _ = set_right(facts, ["BRM1"])
    assert skews["nexus"].offset_us == -400_000
