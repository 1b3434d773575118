"""Whether a worker still turns: once a second its event loop writes an empty line to its parent, which counts the
seconds since the last one.

The parent counts seconds in which it turned itself, and reads no clock: after the machine was suspended, or the
parent stopped (Ctrl-Z), nobody has been silent for longer than before.

Read next: daemon/worker.py, daemon/workers.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import attrs

BEAT: Final = b"\n"
BEAT_S: Final = 1.0
SILENT_S: Final = 5
"""From then on nobody waits for a worker: commands wait 10 s for an answer, and are to have one that says why."""
HUNG_S: Final = 120
"""From then on it does not come back by itself. The longest turns we know (rules for 10,000 sleds, a full collection
with 200,000 VMMs) take some seconds of a core; at fifteen processes to a core that is a minute or more.
"""
HUNG_LEAST_S: Final = 2 * SILENT_S
"""Of what may be said instead: sooner, nobody would have had the time to see who it is."""


async def beat(file: int) -> None:
    """Writes to this file descriptor for ever. A parent that does not read stops nobody: it is spared some."""
    while True:
        if select.select([], [file], [], 0)[1]:
            with contextlib.suppress(OSError):  # it has gone: stdin says so, too
                os.write(file, BEAT)
        await asyncio.sleep(BEAT_S)


@attrs.define(eq=False)
class Pulse:
    """Of one process, as its parent hears it."""

    silent_s: int = 0
    """Seconds since the last beat."""
    _asking: dict[asyncio.Timeout, float] = attrs.field(factory=dict)
    """Who waits for an answer, and from when on (of the loop) only for one who is not silent."""

    @property
    def is_silent(self) -> bool:
        return self.silent_s >= SILENT_S

    def heard(self) -> None:
        self.silent_s = 0

    def second(self) -> None:
        """One has gone by."""
        self.silent_s += 1
        if self.is_silent:
            now = asyncio.get_running_loop().time()
            for limit, since in self._asking.items():
                if now >= since and not limit.expired():  # who is let go already may take its time
                    limit.reschedule(now)

    @contextlib.asynccontextmanager
    async def answering(self, waits_s: float = 0.0) -> AsyncIterator[None]:
        """Around a question to that process. Raises TimeoutError if it is silent, or falls so meanwhile. If the
        answer is to come within `waits_s`, silence counts from then on: it may have been over long before.
        """
        if self.is_silent and not waits_s:
            raise TimeoutError
        async with asyncio.timeout(None) as limit:
            self._asking[limit] = asyncio.get_running_loop().time() + waits_s
            try:
                yield
            finally:
                del self._asking[limit]


def is_debugged(pid: int) -> bool:
    """Whether a debugger holds that process: who looks at one that hangs is not to lose it. Linux only."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    _, _, tracer = status.partition("\nTracerPid:")
    return tracer.split(maxsplit=1)[:1] not in ([], ["0"])
