"""Facts of several files on one clock: whose word counts, and by what clocks are set right (LG 0, 5)."""

from sim_sled.incident.clocks import Proof
from sim_sled.incident.facts import Observed, Published, Received
from sim_sled.incident.lines import LogLine, Where
from sim_sled.incident.timeline import Collector, Skew

S = 1_000_000
TODAY = 1_790_000_000 * S
VM = "vm"


def fact(kind, at_s, host="BRM1", **more):
    return kind(where=Where("a.log", 1), host=host, at_us=TODAY + int(at_s * S), vmm=VM, **more)


def record(program, host):
    return LogLine(Where("a.log", 1), program, host, 600, 30, TODAY, "anything", {})


def incident(*facts, nexus=False):
    collector = Collector()
    collector.seen(record("sled-agent", "BRM1"), TODAY)
    if nexus:
        collector.seen(record("nexus", "nexus-1"), TODAY)
    for each in facts:
        collector.add(each)
    return collector.incident()


def states(found):
    return [(each.state, (each.at_us - TODAY) / S) for each in found.vmms[VM].observed]


def test_propolis_own_word_wins_over_the_agents_later_one_for_the_same_state():
    seen = incident(
        fact(Observed, 10, state="running", exact=True),
        fact(Observed, 12, state="running"),
        fact(Observed, 20, state="rebooting", exact=True),
        fact(Observed, 21, state="running"),
    )
    assert states(seen) == [("running", 10), ("rebooting", 20), ("running", 21)]


def test_of_two_words_of_the_agent_both_count():
    seen = incident(fact(Observed, 10, state="running"), fact(Observed, 12, state="running"))
    assert states(seen) == [("running", 10), ("running", 12)]


def test_a_report_that_was_repeated_says_nothing_of_a_clock():
    seen = incident(
        fact(Published, 100, state="running", gen=3),
        fact(Received, 103, "nexus-1", state="running", gen=3, pushed=True),
        fact(Published, 200, state="stopping", gen=4),
        fact(Published, 230, state="stopping", gen=4),
        fact(Received, 233, "nexus-1", state="stopping", gen=4, pushed=True),
        nexus=True,
    )
    assert seen.skews["nexus-1"] == Skew(-3 * S, 0, 1, Proof.REPORT, "BRM1")
    assert [(each.at_us - TODAY) / S for each in seen.vmms[VM].received] == [100, 230]


def test_the_agent_may_tell_late_what_propolis_has_left_already():
    """It had to repeat a report meanwhile, and then comes by each of them."""
    seen = incident(
        fact(Observed, 10, state="running", exact=True),
        fact(Observed, 10.1, state="running"),
        fact(Observed, 30, state="stopping", exact=True),
        fact(Observed, 30.2, state="stopped", exact=True),
        fact(Observed, 31, state="destroyed", exact=True),
        fact(Observed, 50, state="stopping"),
        fact(Observed, 50.1, state="stopped"),
        fact(Observed, 50.2, state="destroyed"),
    )
    assert states(seen) == [("running", 10), ("stopping", 30), ("stopped", 30.2), ("destroyed", 31)]
