"""Campaigns: which seeds are played, and when they end."""

import pytest

from sim_sled.language.check import parse_scenario
from sim_sled.play.campaign import Task, explore, play_all
from sim_sled.play.run import How, play

ALWAYS_FAILS = """
version: 1
name: x
load: [{at: 0s, create: {hostname: web-1}}]
expect: [{name: impossible, after: {at: 1s}, lasts: 60s, never: {state: running}}]
"""


def task(seed=0, text=ALWAYS_FAILS):
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    return Task("x.yaml", scenario, seed, How())


def test_seeds_go_on_from_the_first_and_stay_within_64_bits():
    explored = explore(task(2**64 - 2), 4, 1, stop_after=100)
    assert [found.seed for found in explored.found] == [2**64 - 2, 2**64 - 1, 0, 1]


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_campaign_ends_with_the_failure_that_was_asked_for(stop_after):
    told = []
    explored = explore(task(), 10, 1, stop_after=stop_after, told=lambda done, failed: told.append((done, failed)))
    assert (explored.runs, len(explored.found)) == (stop_after, stop_after)
    assert told == [(n, n) for n in range(1, stop_after + 1)]


def test_a_campaign_without_a_failure_plays_all_its_runs():
    explored = explore(task(text=ALWAYS_FAILS.partition("expect")[0]), 3, 1)
    assert (explored.runs, explored.found) == (3, ())


def test_runs_come_in_the_order_of_their_tasks():
    assert [one.task.seed for one in play_all([task(3), task(1), task(2)], 1)] == [3, 1, 2]


NEVER_AT_REST = """
version: 1
name: x
agent: {retry: {first: 1s, factor: 1, max: 10s}}
load: [{at: 0s, create: {hostname: web-1}}]
rules:
- {name: lost, when: {publish: running}, do: {drop: {}}}
- {name: blind, when: {request: vmm_get_state}, do: {fail: {status: 503}}}
expect: [{always: [final_state_acked]}]
"""


def test_a_run_that_never_comes_to_rest_is_judged_at_its_end_too():
    result = play(task(text=NEVER_AT_REST).scenario, 1)
    assert result.end.endswith("not at rest")
    assert [failure.key for failure in result.failures] == ["final_state_acked"]
