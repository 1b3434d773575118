"""A process with one VM: owns the `Vm`, the clock and the one timer. What `propolis-stub serve` runs.

Read before: pacers.py, server/app.py, server/counters.py, server/instance.py, server/metrics.py.
Read next: server/control.py, server/serve.py.
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

from propolis_stub.contract import Effect, Input, Tick
from propolis_stub.pacers import SettablePacer
from propolis_stub.server.counters import Counters
from propolis_stub.server.instance import PropolisServer
from propolis_stub.vm import Hazard, Vm

_VM_ID: Final = UUID("c0ffee00-0000-5000-8000-000000000001")
"""Only a pacer ever sees it, and this one does not look."""


class StandaloneHost:
    """See the module. Time is the event loop's: microseconds of a clock that never goes back."""

    def __init__(
        self, server: PropolisServer, pacer: SettablePacer | None = None, hazards: Hazard = Hazard.NONE
    ) -> None:
        self.pacer = pacer or SettablePacer()
        self.vm = Vm(_VM_ID, self.pacer, strict=hazards)
        self.server = server
        self.counters = Counters()
        server.host = self
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_us: int | None = None

    def now_us(self) -> int:
        return int(self._loop.time() * 1_000_000)

    def handle(self, item: Input, /) -> list[Effect]:
        """Feeds the VM and performs what comes of it. Raises what `Vm.handle` raises."""
        effects = self.vm.handle(item, self.now_us())
        self.counters.add(effects)
        self._arm()
        self.server.perform(effects)
        return effects

    def _arm(self) -> None:
        due_us = self.vm.next_deadline_us()
        if due_us == self._armed_us:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_us = due_us
        if due_us is not None:
            self._timer = self._loop.call_at(due_us / 1_000_000, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._armed_us = None
        due_us = self.vm.next_deadline_us()
        if due_us is not None and due_us > self.now_us():  # a loop that rounds timers down
            self._armed_us = due_us
            self._timer = self._loop.call_later(0.001, self._ring)
            return
        self.handle(Tick())

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self.server.close()
