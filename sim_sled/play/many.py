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
from typing import Any, Final, Self

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


class Players:
    """Processes that play one stretch of runs after the other, as a reduction wants them: to begin them takes longer
    than most runs. They begin with the first stretch; leaving the `with` block ends them, whatever they do.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs: Final = jobs
        self._pool: ProcessPoolExecutor | None = None
        self._under_way: set[Future[Played | None]] = set()
        self._stretch: Any = None
        """The number of the stretch that somebody still wants, for all of them to see."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is None:
            return
        if not all(each.done() for each in list(self._under_way)):
            # Ctrl-C, a worker's death, or nobody wants the rest: it is not waited for
            end_workers(self._pool)
        self._pool.shutdown(wait=True)

    def submit(self, task: Task) -> Future[Played | None]:
        """A run of the present stretch; None if that is over before the run begins."""
        if self._pool is None:
            # spawn: a worker begins as a new process would, whatever this one holds
            spawn = get_context("spawn")
            self._stretch = spawn.RawValue("Q", 0)
            self._pool = ProcessPoolExecutor(
                self.jobs, mp_context=spawn, initializer=_begin, initargs=(self._stretch,)
            )
        with children_without_ctrl_c():
            future = self._pool.submit(_play_if_wanted, self._stretch.value, task)
            self._under_way.add(future)
            future.add_done_callback(self._under_way.discard)
        return future

    def drop(self) -> None:
        """Nobody wants the rest of this stretch: what is under way is played to its end, and no more."""
        if self._stretch is not None:
            self._stretch.value += 1


_STRETCH: Any = None
"""In a worker: as `Players` has it."""


def _begin(stretch: Any) -> None:
    global _STRETCH  # noqa: PLW0603 -- a worker process belongs to one `Players` for life
    worker_begins()
    _STRETCH = stretch


def _play_if_wanted(stretch: int, task: Task) -> Played | None:
    return play_task(task) if _STRETCH.value == stretch else None


def play_all(
    tasks: Iterable[Task], jobs: int | Players, progress: Callable[[World], None] | None = None
) -> Iterator[Played]:
    """Every run, in the order of the tasks, whatever order they finish in. Closing the iterator stops the rest.
    `jobs`: how many processes, or those that there are already.
    """
    if not isinstance(jobs, Players):
        with Players(jobs) as players:
            yield from play_all(tasks, players, progress)
        return
    if jobs.jobs <= 1:
        if collector.ours():
            collector.started()
        for task in tasks:
            started = time.perf_counter()
            result = play(task.scenario, task.seed, task.how, progress)
            yield Played(task, result, time.perf_counter() - started)
        return
    waiting: dict[int, Future[Played | None]] = {}
    done: dict[int, Played] = {}
    numbered = enumerate(tasks)
    following = 0
    try:
        while True:
            while len(waiting) < jobs.jobs * AHEAD and (one := next(numbered, None)) is not None:
                waiting[one[0]] = jobs.submit(one[1])
            if not waiting and following not in done:
                return
            if following not in done:
                wait(waiting.values(), return_when=FIRST_COMPLETED)
                for number in [n for n, future in waiting.items() if future.done()]:
                    played = waiting.pop(number).result()
                    assert played is not None, "its stretch is not over"
                    done[number] = played
            while following in done:
                yield done.pop(following)
                following += 1
    finally:
        if waiting:
            jobs.drop()


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
        results._writer.close()  # noqa: SLF001 -- nor has its queue


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
