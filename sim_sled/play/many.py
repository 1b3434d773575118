"""Many runs in parallel processes: `run --jobs`, `shrink`. A run is its scenario and its seed, so it does not matter
in which process it is played. Campaigns of many seeds are in `sim_sled/campaign`.

Read before: play/run.py. Read next: play/shrink.py, campaign/job.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import active_children, get_context, parent_process
from typing import Final

import attrs

from nexus_client.dropshot import collector
from sim_sled.language.schema import Scenario
from sim_sled.play.run import How, Result, play
from sim_sled.play.virtual import World

AHEAD: Final = 4
"""Tasks per process that wait: enough that none idles, few enough that stopping is quick."""


@attrs.frozen
class Task:
    """One run to be played. `shown` names the file."""

    shown: str
    scenario: Scenario
    seed: int
    how: How


@attrs.frozen
class Played:
    """A finished run and how long it took."""

    task: Task
    result: Result
    took_s: float


def play_task(task: Task) -> Played:
    """Plays one run (also the entry of a worker process)."""
    started = time.perf_counter()  # wall time of the report only; nothing of a run depends on it
    result = play(task.scenario, task.seed, task.how)
    return Played(task, result, time.perf_counter() - started)


def worker_begins() -> None:
    """Of a worker process: it ends when the process that started it has died, even by SIGKILL.

    The pool alone does not see to that: its workers hold both ends of the pipe they read from, and wait for ever.
    """
    collector.worker()
    threading.Thread(target=_ends_with_parent, daemon=True).start()


def _ends_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a worker has one"
    parent.join()
    os._exit(1)  # nobody is left to whom anything could be told


def play_all(tasks: Iterable[Task], jobs: int, progress: Callable[[World], None] | None = None) -> Iterator[Played]:
    """Every run, in the order of the tasks, whatever order they finish in. Closing the iterator stops the rest."""
    if jobs <= 1:
        if collector.ours():
            collector.started()
        for task in tasks:
            started = time.perf_counter()
            result = play(task.scenario, task.seed, task.how, progress)
            yield Played(task, result, time.perf_counter() - started)
        return
    # spawn: a worker begins as a new process would, whatever this one holds
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=worker_begins) as pool:
        waiting: dict[int, Future[Played]] = {}
        done: dict[int, Played] = {}
        numbered = enumerate(tasks)
        following = 0
        try:
            while True:
                while len(waiting) < jobs * AHEAD and (one := next(numbered, None)) is not None:
                    with children_without_ctrl_c():
                        waiting[one[0]] = pool.submit(play_task, one[1])
                if not waiting and following not in done:
                    return
                if following not in done:
                    wait(waiting.values(), return_when=FIRST_COMPLETED)
                    for number in [n for n, future in waiting.items() if future.done()]:
                        done[number] = waiting.pop(number).result()
                while following in done:
                    yield done.pop(following)
                    following += 1
        except BaseException:
            # Ctrl-C, a worker's death, or nobody wants the rest: what is under way is not waited for
            end_workers(pool)
            raise


def end_workers(pool: ProcessPoolExecutor) -> None:
    """At once, whatever they do; the pool is broken then. What waits in it is not cancelled: the pool tells it that
    its worker is gone, and trips over what has been cancelled.
    """
    for worker in active_children():
        worker.terminate()
    # A worker may be in the middle of a result, and the pool's thread reads on until there is no end left that could
    # write the rest. This process holds one, too.
    results = getattr(pool, "_result_queue", None)  # the pool has no word for it before Python 3.14
    if results is not None:
        results._writer.close()  # noqa: SLF001 -- same


@contextlib.contextmanager
def children_without_ctrl_c() -> Iterator[None]:
    """Around the start of a child. A terminal sends Ctrl-C to all its processes; the first one answers for all.

    Blocked, not ignored: children inherit it through exec, and what comes meanwhile reaches us afterwards.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
