"""Many runs in parallel processes: `run --jobs`, `explore`, `shrink`. A run is its scenario and its seed, so it does
not matter in which process it is played.

Read before: play/run.py. Read next: play/shrink.py.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import active_children, get_context
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


def play_all(tasks: Iterable[Task], jobs: int, progress: Callable[[World], None] | None = None) -> Iterator[Played]:
    """Every run, in the order of the tasks, whatever order they finish in. Closing the iterator stops the rest."""
    if jobs <= 1:
        collector.started()
        for task in tasks:
            started = time.perf_counter()
            result = play(task.scenario, task.seed, task.how, progress)
            yield Played(task, result, time.perf_counter() - started)
        return
    # spawn: a worker begins as a new process would, whatever this one holds
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=collector.worker) as pool:
        waiting: dict[int, Future[Played]] = {}
        done: dict[int, Played] = {}
        numbered = enumerate(tasks)
        following = 0
        try:
            while True:
                while len(waiting) < jobs * AHEAD and (one := next(numbered, None)) is not None:
                    with _children_without_ctrl_c():
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
            for worker in active_children():
                worker.terminate()
            raise
        finally:
            for future in waiting.values():
                future.cancel()


@contextlib.contextmanager
def _children_without_ctrl_c() -> Iterator[None]:
    """A terminal sends Ctrl-C to all its processes; the first one answers for all.

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


@attrs.frozen
class Found:
    """A failing run of a campaign."""

    seed: int
    keys: tuple[str, ...]
    text: str


@attrs.frozen
class Explored:
    """What a campaign found."""

    runs: int
    found: tuple[Found, ...]


def explore(
    task: Task,
    runs: int,
    jobs: int,
    *,
    stop_after: int = 1,
    told: Callable[[int, int], None] | None = None,
) -> Explored:
    """Plays seeds from the task's on until so many failed; `told(done, failed)` after each."""
    quick = attrs.evolve(task.how, keep=False)
    tasks = (attrs.evolve(task, seed=(task.seed + i) % 2**64, how=quick) for i in range(runs))
    found: list[Found] = []
    done = 0
    played = play_all(tasks, jobs)
    for one in played:
        done += 1
        if not one.result.good:
            keys = tuple(dict.fromkeys(failure.key for failure in one.result.failures))
            found.append(Found(one.task.seed, keys, one.result.failures[0].text))
        if told is not None:
            told(done, len(found))
        if len(found) >= stop_after:
            break
    return Explored(done, tuple(found))
