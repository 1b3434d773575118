"""Campaigns: which seeds are played, and when they end; whoever plays them, the results are the same bytes."""

import contextlib
from multiprocessing import active_children

import pytest

from sim_sled.campaign import job as jobs
from sim_sled.campaign import places
from sim_sled.campaign.explore import explore, place_of
from sim_sled.campaign.groups import keep_group
from sim_sled.campaign.guide import OneByOne
from sim_sled.campaign.job import Job, play_seed, read_ran
from sim_sled.campaign.places import Batch, Future, NobodyPlays, Processes, Sizer, in_order, play_batch
from sim_sled.cli.scenario_commands import RunOptions, run_files
from sim_sled.cli.traces import replay_file
from sim_sled.language.check import parse_scenario
from sim_sled.play.many import Task, play_all
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


def job(text=ALWAYS_FAILS):
    one = task(text=text)
    return Job("x.yaml", one.scenario, one.how)


SOME_FAIL = """
version: 1
name: x
load: [{at: 0s, create: {hostname: a}}]
rules: [{name: dies, when: {state: starting}, chance: 30%, do: {note: x}}]
expect: [{after: {rule: dies}, within: 1s, that: {vmm: failed}}]
"""


def lines(explored_job, place, runs=12):
    return [ran.line() for ran in in_order(place, range(runs), Sizer(place.batch_max))]


def test_seeds_go_on_from_the_first_and_stay_within_64_bits():
    [group] = explore(job(), OneByOne(2**64 - 2), 4).groups.values()
    assert group.seeds == [2**64 - 2, 2**64 - 1, 0, 1]


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_campaign_ends_with_the_failure_that_was_asked_for(stop_after):
    told = []
    explored = explore(
        job(), OneByOne(0), 10, stop_after=stop_after, told=lambda so_far: told.append((so_far.runs, so_far.failed))
    )
    assert (explored.runs, explored.failed) == (stop_after, stop_after)
    assert told == [(n, n) for n in range(1, stop_after + 1)]


def test_a_campaign_without_a_failure_plays_all_its_runs():
    explored = explore(job(ALWAYS_FAILS.partition("expect")[0]), OneByOne(0), 3)
    assert (explored.runs, explored.failed, explored.groups) == (3, 0, {})


def test_failures_are_grouped_by_their_reason_and_each_group_knows_its_first_seed():
    explored = explore(job(SOME_FAIL), OneByOne(0), 12)
    [group] = explored.groups.values()
    assert 0 < group.count == explored.failed < 12
    first = next(seed for seed in range(12) if play_seed(job(SOME_FAIL), seed).failures)
    assert group.seeds[0] == first


def test_a_run_in_which_nobody_gets_an_instance_is_a_failure_with_a_name():
    text = "version: 1\nload: [{at: 0s, create: {hostname: a, ncpus: 4096}}]\n"
    assert play_seed(job(text), 1).failures[0][0] == "nothing-created"


def test_a_bug_of_ours_is_what_its_seed_has_found_and_the_campaign_goes_on(monkeypatch):
    def breaks(*_):
        raise KeyError("x")

    monkeypatch.setattr(jobs, "play", breaks)
    explored = explore(job(), OneByOne(0), 3)
    assert list(explored.groups) == ["crash/KeyError"]
    assert explored.runs == 3


def test_a_run_is_the_same_after_its_line_was_read_again():
    ran = play_seed(job(SOME_FAIL), 3)
    assert read_ran(ran.line()) == ran
    failed = play_seed(job(), 0)
    assert failed.failures
    assert read_ran(failed.line()) == failed


def test_processes_give_the_same_bytes_as_one_process():
    one = place_of(job(SOME_FAIL), 1)
    two = place_of(job(SOME_FAIL), 2)
    try:
        assert lines(job(SOME_FAIL), two) == lines(job(SOME_FAIL), one)
    finally:
        two.close()


class LastFirst:
    """A place whose players end in the opposite order."""

    batch_max = 3

    def __init__(self):
        self.asked = []
        self.looks = 0

    def players(self):
        return 2

    def submit(self, seeds):
        future = Future()
        self.asked.append((seeds, future))
        return future

    def look(self):
        self.looks += 1

    def close(self):
        return None


class Reversed(LastFirst):
    def submit(self, seeds):
        future = super().submit(seeds)
        if len(self.asked) == 8 or seeds[-1] == 29:
            while self.asked:
                seeds, one = self.asked.pop()
                one.set_result(play_batch(job(SOME_FAIL), seeds))
        return future


def test_results_come_in_the_order_of_the_seeds_whoever_ends_first(monkeypatch):
    monkeypatch.setattr("sim_sled.campaign.places.LOOK_S", 0.01)
    here = place_of(job(SOME_FAIL), 1)
    assert lines(job(SOME_FAIL), Reversed(), 30) == lines(job(SOME_FAIL), here, 30)


def test_a_place_where_nobody_plays_any_more_ends_the_campaign(monkeypatch):
    monkeypatch.setattr("sim_sled.campaign.places.LOOK_S", 0.001)

    class Deserted(LastFirst):
        def look(self):
            raise NobodyPlays("all have gone")

    with pytest.raises(NobodyPlays, match="all have gone"):
        explore(job(), OneByOne(0), 3, Deserted())


def test_batches_grow_until_they_take_half_a_second():
    sizer = Sizer(most=100)
    sizer.learn(Batch(runs=(None,), took_s=0.05))
    assert sizer.size == 10
    sizer.learn(Batch(runs=(None,) * 10, took_s=0.000001))
    assert sizer.size == 100
    sizer.learn(Batch(runs=(None,), took_s=7.0))
    assert sizer.size == 1


class NobodyAnswers:
    """A pool of processes that takes everything and does nothing."""

    def __init__(self):
        self.futures, self.ended = [], []

    def submit(self, *_):
        self.futures.append(Future())
        return self.futures[-1]

    def shutdown(self, **how):
        self.ended.append(how)


def test_what_is_under_way_when_a_campaign_ends_is_not_cancelled():
    """Its worker is ended; the pool tells each future so, and trips over a cancelled one (InvalidStateError)."""
    place = Processes(job(), 2)
    place._pool = pool = NobodyAnswers()
    for seed in range(4):
        place.submit((seed,))
    place.close()
    assert pool.ended == [{"wait": True}]
    assert not any(future.cancelled() for future in pool.futures)


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


def test_a_group_has_its_folder_with_all_that_is_needed_to_see_it_again(tmp_path):
    explored = explore(job(SOME_FAIL), OneByOne(0), 12)
    [group] = explored.groups.values()
    kept = keep_group(job(SOME_FAIL), group, tmp_path / "found")
    assert sorted(path.name for path in kept.folder.iterdir()) == [
        "README.md",
        "minimal.html",
        "minimal.trace",
        "minimal.yaml",
    ]
    again = run_files([str(kept.folder / "minimal.yaml")], RunOptions())
    assert again.code == 1
    assert replay_file(str(kept.folder / "minimal.trace")).code == 0
    assert f"seed {group.seeds[0]}" in (kept.folder / "minimal.yaml").read_text()
    assert keep_group(job(SOME_FAIL), group, tmp_path / "found").folder != kept.folder


def test_ctrl_c_while_a_batch_is_handed_over_waits_for_nobody(monkeypatch):
    """It is kept back while a worker process starts, and comes right behind: what was handed over is under way."""

    @contextlib.contextmanager
    def with_ctrl_c():
        yield
        raise KeyboardInterrupt

    monkeypatch.setattr(places, "children_without_ctrl_c", with_ctrl_c)
    place = Processes(job(ENDLESS), 1)
    try:
        with pytest.raises(KeyboardInterrupt):
            place.submit((1,))
    finally:
        place.close()


ENDLESS = """
version: 1
load:
- {every: 1s, from: 0s, to: 10000h, churn: {population: 40, create: 6, stop: 2, start: 1, reboot: 2, delete: 2}}
"""


def test_a_player_that_is_ended_from_outside_is_told_in_a_sentence():
    """As the system does when memory runs out: while it plays, and from then on."""
    place = Processes(job(ENDLESS), 1)
    others = active_children()
    try:
        place.submit((0,))
        [player] = set(active_children()) - set(others)
        player.kill()
        for _ in range(2):
            with pytest.raises(NobodyPlays, match="a process that plays runs was ended"):
                list(in_order(place, range(8), Sizer(1)))
    finally:
        place.close()
