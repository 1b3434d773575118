"""The events of several workers as one feed with one count, for the control API in front of them.

Read before: daemon/looking.py, daemon/workers.py. Read next: daemon/front.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import deque
from typing import Any, Final

import aiohttp

from nexus_client.dropshot import foreign
from sim_sled.core.event import Event
from sim_sled.daemon.clock import Clock
from sim_sled.daemon.looking import EVENTS_KEPT
from sim_sled.daemon.workers import Worker, Workers

ANSWER_S: Final = 30.0
"""How long a worker may take for an answer that is none of waiting."""
AGAIN_S: Final = 0.5
"""Until a feed that broke off is asked for again: its worker is coming back."""
LINE_MAX: Final = 1024 * 1024
"""Bytes of one event."""
_NUMBER: Final = re.compile(rb'\{"number": (\d+), ')


class EventFeed:
    """The events of all workers in the order in which they reach us; those of before in the order of their times.
    What becomes of the workers is an event, too (`worker`).
    """

    def __init__(self, http: aiohttp.ClientSession, workers: Workers) -> None:
        self._http = http
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=EVENTS_KEPT)
        self.number = 0
        self.begun = asyncio.Event()
        self._changed = asyncio.Event()
        self._clock = Clock()
        self._workers = workers
        self._tasks = [asyncio.create_task(self._begin(workers))]

    async def _begin(self, workers: Workers) -> None:
        before: list[tuple[int, bytes]] = []
        seen = await asyncio.gather(*(self._look_back(worker, before) for worker in workers.all))
        for _, rest in sorted(before, key=lambda each: each[0]):
            self._add(rest)
        for worker in workers.all:
            if worker.why_not is not None:
                self._tell(worker.why_not)
        workers.told = self._tell
        self.begun.set()
        self._tasks += [
            asyncio.create_task(self._follow(worker, last)) for worker, last in zip(workers.all, seen, strict=True)
        ]

    async def _look_back(self, worker: Worker, into: list[tuple[int, bytes]]) -> int:
        """What has happened there so far, with its times; returns the number of the last. Of one that does not answer
        whatever came: the rest follows once it does.
        """
        last = 0
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with worker.pulse.answering():
                async for number, rest in self._read(worker, "/events?after=0", ANSWER_S):
                    into.append((int(foreign.loads(b"{" + rest)["at_us"]), rest))
                    last = number
        return last

    def _tell(self, text: str) -> None:
        event = Event(self._clock.now_us(), "worker", "", text=text)
        self._add(json.dumps(event.plain()).encode()[1:])

    async def _follow(self, worker: Worker, seen: int) -> None:
        last = seen
        while True:
            process = worker.process
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async for number, rest in self._read(worker, f"/events?follow=1&after={last}", None):
                    self._add(rest)
                    last = number
            await asyncio.sleep(AGAIN_S)
            if worker.process is not process:
                last = 0  # another process, which counts anew

    async def _read(self, worker: Worker, path: str, seconds: float | None) -> Any:
        if worker.ready is None:
            return
        async with self._http.get(
            f"http://{worker.ready.control}{path}",
            headers={"authorization": f"Bearer {worker.spec.token}"},
            timeout=aiohttp.ClientTimeout(total=seconds),
            read_bufsize=LINE_MAX,
        ) as response:
            async for line in response.content:
                match = _NUMBER.match(line)
                if match is not None:
                    yield int(match[1]), line[match.end() :].rstrip(b"\n")

    def _add(self, rest: bytes) -> None:
        self.number += 1
        self._kept.append((self.number, rest))
        self._changed.set()

    def after(self, number: int, most: int = 1_000) -> list[tuple[int, bytes]]:
        """As `Looking.after`."""
        if number == self.number or not self._kept:
            return []
        if number > self.number:
            number = 0
        skip = max(0, number + 1 - self._kept[0][0])
        return [self._kept[i] for i in range(skip, min(len(self._kept), skip + most))]

    async def change(self, seconds: float) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def close(self) -> None:
        self._workers.told = lambda _: None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
