"""A Dask cluster as a place: `explore --on tcp://HOST:PORT`. Needs the extra `[cluster]`.

Each batch carries the whole job (scenario with its includes, options) and the version of this package. A worker first
compares that: one with other code would give other results, so it is refused, named once, and its batch goes to
another. Workers may die and join; a batch that was lost is played again, and gives the same bytes.

Read before: campaign/places.py, campaign/version.py. Read next: campaign/guard.py.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import attrs

from sim_sled.campaign import guard
from sim_sled.campaign.job import Job
from sim_sled.campaign.places import BATCH_MAX, Batch, NobodyPlays, Seeds
from sim_sled.campaign.version import code_version

if TYPE_CHECKING:
    from distributed import Client
    from distributed import Future as _Future

    DaskFuture = _Future[Any]

CONNECT_S: Final = 10.0
"""For the connection to the scheduler."""
WORKERS_S: Final = 60.0
"""How long nobody may be there to play: a pod is started again in that time."""
ASK_S: Final = 2.0
"""So old may be what is known of the workers."""
LIVES: Final = 20
"""Workers that may die, or refuse, over one batch before the campaign says so."""
PASSING: Final = ("KilledWorker", "CancelledError", "FutureCancelledError")
"""Ends of a task (by the names of Dask's exceptions) after which it may be tried again."""
MISSING: Final = "this needs the extra: pip install 'sim-sled[cluster]'"


def _only_we_talk() -> None:
    """What goes wrong is said in a sentence of ours. Dask has given some of its parts, and of those it stands on,
    levels of their own, so their parents' would not do.
    """
    theirs = ("distributed", "tornado")
    for name in (*theirs, *logging.root.manager.loggerDict):
        if name.partition(".")[0] in theirs:
            logging.getLogger(name).setLevel(logging.CRITICAL)


@attrs.define(eq=False)
class _Asked:
    """One batch: its future for us, who has refused or died over it."""

    seeds: Seeds
    answer: Future[Batch]
    lives: int = LIVES


@attrs.define(eq=False)
class Cluster:
    """The workers of a scheduler. `say` is told sentences, e.g. who was refused."""

    job: Job
    address: str
    say: Callable[[str], None]
    batch_max: int = BATCH_MAX
    workers_s: float = WORKERS_S
    _client: Client = attrs.field(init=False)
    _payload: bytes = attrs.field(init=False)
    _refused: set[str] = attrs.field(factory=set)
    _futures: dict[int, DaskFuture] = attrs.field(factory=dict)
    _known: dict[str, int] = attrs.field(factory=dict)
    """Workers and their threads, as the scheduler said at `_known_at`."""
    _known_at: float = 0.0
    _empty_since: float | None = None
    _closed: bool = False

    def __attrs_post_init__(self) -> None:
        try:
            import cloudpickle  # type: ignore[import-untyped] # noqa: PLC0415 -- it has no types; comes with distributed
            from distributed import Client  # noqa: PLC0415 -- an extra, and a second of imports
        except ImportError:
            raise NobodyPlays(MISSING) from None
        _only_we_talk()
        cloudpickle.register_pickle_by_value(guard)
        self._payload = pickle.dumps(self.job)
        try:
            self._client = Client(self.address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise NobodyPlays(f"no scheduler at {self.address}: {error}") from None
        try:
            self._client.wait_for_workers(1, timeout=self.workers_s)
        except TimeoutError:
            self._client.close()
            raise NobodyPlays(f"the scheduler at {self.address} has no worker") from None

    def players(self) -> int:
        workers = self._workers()
        return max(1, sum(workers[one] for one in self._right(workers)))

    def submit(self, seeds: Seeds) -> Future[Batch]:
        asked = _Asked(seeds, Future())
        self._ask(asked)
        return asked.answer

    def _ask(self, asked: _Asked) -> None:
        right = None
        if self._refused:
            right = self._right(self._workers())
            if not right:
                asked.answer.set_exception(NobodyPlays(self._nobody()))
                return
        future = self._client.submit(
            guard.play_there, code_version(), self._payload, asked.seeds, pure=False, workers=right
        )
        self._futures[id(asked)] = future
        future.add_done_callback(lambda done: self._done(asked, done))

    def _done(self, asked: _Asked, done: DaskFuture) -> None:
        """Called on a thread of the client's."""
        self._futures.pop(id(asked), None)
        if self._closed or asked.answer.cancelled():
            return
        try:
            got = done.result(timeout=CONNECT_S)
        except Exception as error:  # noqa: BLE001 -- whatever ends a task on a machine of somebody else's
            asked.lives -= 1
            # KilledWorker: several died over it, perhaps not by its fault; a lost connection ends all, see `look`
            if type(error).__name__ not in PASSING or not asked.lives:
                asked.answer.set_exception(NobodyPlays(f"a worker of {self.address} cannot play: {error!r}"))
                return
            self._ask(asked)
            return
        if isinstance(got, Batch):
            with suppress(InvalidStateError):  # nobody wants it any more
                asked.answer.set_result(got)
            return
        worker, has = got
        if worker not in self._refused:
            self._refused.add(worker)
            self.say(f"worker {worker} is refused: it has sim-sled {has}, this is {code_version()}")
        self._ask(asked)

    def look(self) -> None:
        if self._client.status != "running":
            raise NobodyPlays(f"the scheduler at {self.address} is gone")
        if self._right(self._workers()):
            self._empty_since = None
            return
        now = time.monotonic()  # noqa: TID251 -- this is a shell: it waits for machines
        self._empty_since = self._empty_since or now
        if now - self._empty_since > self.workers_s:
            raise NobodyPlays(self._nobody())

    def close(self) -> None:
        self._closed = True
        for future in list(self._futures.values()):
            future.cancel()
        self._client.close()

    def _workers(self) -> dict[str, int]:
        """Asked anew now and then: workers come and go, but not between two batches."""
        now = time.monotonic()  # noqa: TID251 -- this is a shell: it waits for machines
        if now - self._known_at > ASK_S or not self._known:
            said = self._client.scheduler_info(n_workers=-1)["workers"]
            self._known = {str(one): int(about["nthreads"]) for one, about in said.items()}
            self._known_at = now
        return self._known

    def _right(self, workers: dict[str, int]) -> list[str]:
        return sorted(one for one in workers if one not in self._refused)

    def _nobody(self) -> str:
        if self._refused:
            return f"no worker of {self.address} has sim-sled {code_version()}"
        return f"the scheduler at {self.address} has no worker"
