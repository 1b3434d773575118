"""What the guest does to its VM, waiting to be picked up: before every request, and in order (PR 3.4).

Equal events that still wait are one: chipset events are equal by kind, vCPU events by kind and time, triple faults
also by vCPU. Once picked up, an equal one can wait again.

Read before: types.py. Read next: contract.py, driver.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from msgspec import Struct


class GuestEvent(Enum):
    """What a guest does to its VM (PR 3.4). An unhandled exit is `contract.Crash`."""

    HALT = "halt"  # vCPU suspend: halt
    RESET = "reset"  # vCPU suspend: reset
    TRIPLE_FAULT = "triple-fault"  # reboots, does not fail
    CHIPSET_HALT = "chipset-halt"
    CHIPSET_RESET = "chipset-reset"

    @property
    def halts(self) -> bool:
        """Whether it ends the VM; every other one reboots it."""
        return self in _HALTS


_HALTS: Final = frozenset({GuestEvent.HALT, GuestEvent.CHIPSET_HALT})
_CHIPSET: Final = frozenset({GuestEvent.CHIPSET_HALT, GuestEvent.CHIPSET_RESET})

WAITING_MAX: Final = 1024
"""Guest events that wait. A guest raises one or two before its VM stops or reboots; equal ones are dropped already,
so this bounds only a caller that makes up a new time for each. What comes on top is dropped like a duplicate."""

_Key = tuple[GuestEvent, int, int]
"""Event, time, vCPU: what makes two waiting guest events one."""


class GuestEvents(Struct, eq=False, gc=False):
    """The queue of one VM."""

    waiting: tuple[_Key, ...] = ()  # a tuple: nearly always empty, and then it costs nothing

    def add(self, event: GuestEvent, at_us: int, vcpu: int) -> None:
        """Lets an event wait, unless an equal one does."""
        key = (event, 0 if event in _CHIPSET else at_us, vcpu if event is GuestEvent.TRIPLE_FAULT else 0)
        if key not in self.waiting and len(self.waiting) < WAITING_MAX:
            self.waiting += (key,)

    @property
    def first(self) -> GuestEvent:
        return self.waiting[0][0]

    def pop(self) -> GuestEvent:
        first, *rest = self.waiting
        self.waiting = tuple(rest)
        return first[0]

    @property
    def will_halt(self) -> bool:
        """Whether one that waits ends the VM."""
        return any(event.halts for event, _, _ in self.waiting)

    def clear(self) -> None:
        self.waiting = ()
