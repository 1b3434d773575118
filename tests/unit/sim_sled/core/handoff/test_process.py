"""The order of a hand-off, its patience, and its words."""

from support.rows import in_one_test

from sim_sled.core.handoff.process import Process, Step
from sim_sled.core.handoff.refusals import explain
from sim_sled.core.handoff.wishes import Wishes


def test_dns_comes_first_and_the_hand_over_last():
    process = Process(0)
    steps = [process.step]
    while process.step is not Step.DONE:
        steps.append(process.did())
    assert steps == [Step.FILL_DNS, Step.WAIT, Step.LEDGER, Step.HAND_OVER, Step.DONE]


def test_it_tries_for_ever_with_growing_pauses_and_tells_each_reason_once():
    process = Process(0)
    pauses, told = zip(*(process.failed("nobody there") for _ in range(100)), strict=True)
    assert 50_000 <= pauses[0] < 150_000
    assert 90e6 <= pauses[-1] < 270e6
    assert told == (True, *[False] * 99)
    assert process.failed("something else")[1]
    assert process.attempt == 101
    process.did()
    assert (process.attempt, process.why) == (0, None)


@in_one_test(
    ("status", "message", "words"),
    [
        (404, 'not found: rack with id "x"', "--rack-id"),
        (404, 'not found: switch-port with name "qsfp0"', "Dendrite"),
        (404, "Not Found", "NEXUS_LOCKSTEP_PORT"),
        (400, "no system services pool for external IP 10.0.0.1", "--rss-nexus-external-addr"),
        (400, "invalid certificate", "--rss-tls-cert"),
        (503, "Service Unavailable", "database"),
        (400, "anything else", "anything else"),
    ],
)
def test_a_refusal_is_explained_with_the_option_that_mends_it(status, message, words):
    text = explain(status, message, Wishes("[::1]:1", 2))
    assert words in text
    assert message in text
