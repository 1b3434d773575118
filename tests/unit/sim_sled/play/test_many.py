"""Processes that play for this one may be ended at any moment, also in the middle of a result."""

import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from sim_sled.play.many import end_workers

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
