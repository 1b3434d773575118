"""The wrapper of one VM: its level, and the queue that lives as long as the VM's objects do (PR 3.1).

Levels without a driver (NoVm, Rundown, RundownComplete) answer `NoInstance`.

Read before: contract.py, request_queue.py. Read next: driver.py.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from propolis_stub import contract
from propolis_stub.contract import Effect, ReconfigureResult
from propolis_stub.errors import AlreadyInitialized, NoInstance
from propolis_stub.request_queue import RequestQueue
from propolis_stub.table import Birth
from propolis_stub.types import Level

_NO_DRIVER: Final = frozenset({Level.NO_VM, Level.RUNDOWN, Level.RUNDOWN_COMPLETE})
ENSURABLE: Final = frozenset({Level.NO_VM, Level.RUNDOWN_COMPLETE})

_ENSURED: Final = contract.EnsureFinished(ok=True)
_LEVEL_CHANGED: Final = {level: contract.LevelChanged(level) for level in Level}


class Wrapper(Struct, eq=False, gc=False):
    """See the module. `queue` is None where there is no VM, and from its rundown on."""

    level: Level = Level.NO_VM
    queue: RequestQueue | None = None

    def require_queue(self) -> RequestQueue:
        """For who wants something of the VM. Raises `NoInstance`."""
        if self.level in _NO_DRIVER or self.queue is None:
            raise NoInstance(self.level)
        return self.queue

    def live_queue(self) -> RequestQueue:
        """For the driver, which only runs while there is one."""
        assert self.queue is not None
        return self.queue

    def require_ensurable(self) -> None:
        """Raises `AlreadyInitialized` while a VM exists."""
        if self.level not in ENSURABLE:
            raise AlreadyInitialized(self.level)

    def ensure(self, birth: Birth, out: list[Effect]) -> None:
        self.queue = RequestQueue.new(auto_start=birth is Birth.TARGET)
        self.set_level(Level.WAITING_FOR_INIT, out)

    def become_active(self, out: list[Effect]) -> None:
        self.set_level(Level.ACTIVE, out)
        out.append(_ENSURED)

    def release_queue(self, out: list[Effect]) -> None:
        """The objects go, and whoever still waits for the volumes is told so (PR 2.4)."""
        if self.queue is not None:
            for request in self.queue.drop():
                assert isinstance(request.key, int)
                out.append(contract.ReconfigureDone(request.key, ReconfigureResult.GONE))
        self.queue = None

    def set_level(self, level: Level, out: list[Effect]) -> None:
        self.level = level
        out.append(_LEVEL_CHANGED[level])
