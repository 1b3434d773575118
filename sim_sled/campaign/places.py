"""Where batches of seeds are played: in this process, in processes beside it, on a cluster (`cluster.py`).

A place takes batches and gives futures; which batch ends first is its own affair, and `in_order` puts them right.

Read before: campaign/job.py. Read next: campaign/cluster.py, campaign/explore.py.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, wait
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from typing import Final, Protocol

import attrs

from nexus_client.dropshot import collector
from sim_sled.campaign.job import Job, Ran, play_seed
from sim_sled.machine import PLAYER_ENDED
from sim_sled.play.many import children_without_ctrl_c, end_workers, worker_begins

AHEAD: Final = 4
"""Batches per player that wait or lie finished behind a slower one: none idles, and stopping is quick."""
BATCH_S: Final = 0.5
"""A batch takes about that long: a cluster's overhead of some milliseconds per task is then below 2 %."""
BATCH_MAX: Final = 512
"""Seeds of a batch at most: what a dying worker loses."""
LOOK_S: Final = 5.0
"""So often a place is asked whether anybody still plays."""

Seeds = tuple[int, ...]


@attrs.frozen
class Batch:
    """What some seeds gave, in their order, and how long it took the player."""

    runs: tuple[Ran, ...]
    took_s: float


class NobodyPlays(Exception):
    """The place cannot play any more (or never could); the sentence says why. What came until then is good."""


class Place(Protocol):
    """Plays batches. `players`: how many it plays at a time just now. `batch_max` keeps batches small."""

    batch_max: int

    def players(self) -> int: ...
    def submit(self, seeds: Seeds, /) -> Future[Batch]: ...
    def look(self) -> None:
        """Raises `NobodyPlays` if no result will ever come."""
        ...

    def close(self) -> None:
        """What is under way is not waited for: nobody wants it any more."""
        ...


def play_batch(job: Job, seeds: Seeds) -> Batch:
    """Plays some seeds one after the other."""
    started = time.perf_counter()  # for the size of the next batches; nothing of a run depends on it
    runs = tuple(play_seed(job, seed) for seed in seeds)
    return Batch(runs, time.perf_counter() - started)


@attrs.define(eq=False)
class Here:
    """This process, one seed at a time."""

    job: Job
    batch_max: int = 1

    def __attrs_post_init__(self) -> None:
        if collector.ours():
            collector.started()

    def players(self) -> int:
        return 1

    def submit(self, seeds: Seeds) -> Future[Batch]:
        future: Future[Batch] = Future()
        future.set_result(play_batch(self.job, seeds))
        return future

    def look(self) -> None:
        return None

    def close(self) -> None:
        return None


_JOB: Job | None = None
"""The job of a worker process: it comes once, with the process."""


def _begin(job: Job) -> None:
    global _JOB  # noqa: PLW0603 -- a worker process has one job for life
    worker_begins()
    _JOB = job


def _play(seeds: Seeds) -> Batch:
    assert _JOB is not None, "a worker begins with its job"
    return play_batch(_JOB, seeds)


@attrs.define(eq=False)
class Processes:
    """Worker processes of this one."""

    job: Job
    jobs: int
    batch_max: int = BATCH_MAX
    _pool: ProcessPoolExecutor = attrs.field(init=False)
    _under_way: set[Future[Batch]] = attrs.field(factory=set)

    def __attrs_post_init__(self) -> None:
        # spawn: a worker begins as a new process would, whatever this one holds
        spawn = get_context("spawn")
        self._pool = ProcessPoolExecutor(self.jobs, mp_context=spawn, initializer=_begin, initargs=(self.job,))

    def players(self) -> int:
        return self.jobs

    def submit(self, seeds: Seeds) -> Future[Batch]:
        with children_without_ctrl_c():
            future = self._pool.submit(_play, seeds)
            # before Ctrl-C can come: `close` must know of it
            self._under_way.add(future)
            future.add_done_callback(self._under_way.discard)
        return future

    def look(self) -> None:
        return None

    def close(self) -> None:
        if self._under_way:
            end_workers(self._pool)
        self._pool.shutdown(wait=True)


@attrs.define(eq=False)
class Sizer:
    """How many seeds go into a batch: as many as take `BATCH_S`, by what the last ones took."""

    most: int
    size: int = 1

    def learn(self, batch: Batch) -> None:
        each_s = batch.took_s / max(1, len(batch.runs))
        self.size = max(1, min(self.most, round(BATCH_S / max(each_s, 1e-6))))


def in_order(place: Place, seeds: Iterable[int], sizer: Sizer, share: int | None = None) -> Iterator[Ran]:
    """What every seed gave, in the order of the seeds, whoever plays them and whenever they end.

    `share`: a batch is at most so many of them, for a round that all players shall have a part of.
    """
    following = iter(seeds)
    waiting: deque[Future[Batch]] = deque()
    while True:
        while len(waiting) < max(1, place.players()) * AHEAD:
            size = sizer.size if share is None else min(sizer.size, share)
            batch = tuple(islice(following, size))
            if not batch:
                break
            try:
                waiting.append(place.submit(batch))
            except BrokenExecutor:
                raise NobodyPlays(PLAYER_ENDED) from None
            if waiting[0].done():
                break  # who plays at once must not play ahead of what is told
        if not waiting:
            return
        while not wait([waiting[0]], LOOK_S).done:
            place.look()
        try:
            played = waiting.popleft().result()
        except BrokenExecutor:
            raise NobodyPlays(PLAYER_ENDED) from None
        sizer.learn(played)
        yield from played.runs


@lru_cache(maxsize=4)
def _unpickled(payload: bytes) -> Job:
    job = pickle.loads(payload)  # noqa: S301 -- from our own client: whoever reaches a worker can run anything there
    assert isinstance(job, Job), "what `Cluster` has pickled"
    return job


def play_payload(payload: bytes, seeds: Seeds) -> Batch:
    """Runs on a worker, after `guard.py`: the job is only unpickled by the code that has pickled it."""
    return play_batch(_unpickled(payload), seeds)
