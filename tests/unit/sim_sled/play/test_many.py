"""Processes that play for this one may be ended at any moment, also in the middle of a result."""

import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from sim_sled.language.check import parse_scenario
from sim_sled.play.many import Players, Task, end_workers, play_all
from sim_sled.play.run import How

WITHIN_S = 60


def stops_half_way(told: str) -> str:
    """Of a worker: half of its result is in the pipe, and then it does not go on."""

    def half(_self: Connection, part: bytes) -> None:
        os.write(_self.fileno(), bytes(part)[: len(part) // 2])
        Path(told).touch()
        signal.pause()

    Connection._send = half  # of this process alone, which is the worker's
    return "a result"


def test_workers_in_the_middle_of_a_result_are_ended_and_nobody_waits_for_the_rest(tmp_path):
    told = tmp_path / "half of it is written"
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    future = pool.submit(stops_half_way, str(told))
    deadline = time.monotonic() + WITHIN_S
    while not told.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    end_workers(pool)
    ending = threading.Thread(target=pool.shutdown, daemon=True)
    ending.start()
    ending.join(WITHIN_S)
    assert not ending.is_alive()
    with pytest.raises(BrokenProcessPool):
        future.result(0)


def tasks(seeds: range) -> list[Task]:
    scenario, _ = parse_scenario("version: 1\nname: one\nload: [{at: 0s, create: {hostname: a}}]\n")
    assert scenario is not None
    return [Task("one.yaml", scenario, seed, How()) for seed in seeds]


@pytest.mark.long
def test_stretches_of_runs_are_played_by_the_same_processes_and_each_in_its_order():
    with Players(2) as players:
        first = play_all(tasks(range(100)), players)
        assert next(first).task.seed == 0
        began = {each.pid for each in active_children()}
        first.close()  # nobody wants the rest
        assert [played.task.seed for played in play_all(tasks(range(200, 212)), players)] == list(range(200, 212))
        assert {each.pid for each in active_children()} == began
    assert began.isdisjoint(each.pid for each in active_children())


def test_of_a_stretch_that_nobody_wants_no_run_begins():
    with Players(1) as players:
        slow, late = players.submit(tasks(range(1))[0]), [players.submit(task) for task in tasks(range(50))]
        players.drop()
        assert slow.result(WITHIN_S) is None or slow.result(WITHIN_S).task.seed == 0
        assert late[-1].result(WITHIN_S) is None
