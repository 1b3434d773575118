"""One Propolis process as a pure machine (API first; the driver follows in the next commits)."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from propolis_stub.edge import Effect, Input
from propolis_stub.request_queue import RequestQueue
from propolis_stub.timing import MILESTONES, Pacer, Point
from propolis_stub.types import InstanceState, Level, Publication

NO_HAZARDS: Final[frozenset[str]] = frozenset()


class Vm:
    """`handle(input, now_us) -> effects` (see edge.py for both) and `next_deadline_us()`.

    `state` None and `gen` 0 until the first publication; `publication` is the newest one.
    """

    vm_id: UUID
    level: Level
    state: InstanceState | None
    gen: int
    queue: RequestQueue | None

    def __init__(
        self, vm_id: UUID, pacer: Pacer, *, stepped: bool = False, milestones: frozenset[Point] = MILESTONES
    ) -> None: ...

    @property
    def publication(self) -> Publication | None: ...

    def handle(self, item: Input, now_us: int) -> list[Effect]: ...

    def next_deadline_us(self) -> int | None: ...

    def resting_state(self) -> InstanceState: ...

    def waits_for(self) -> str | None: ...
