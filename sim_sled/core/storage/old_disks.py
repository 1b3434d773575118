"""Disks as the API had them until 20: attached and detached by `PUT /disks/{disk_id}` (SR 4.9, SA 4.4).

Nobody calls this since 2024; the rules are the old simulator's, and each change takes effect at once.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import attrs

from sim_sled.core.errors import InvalidRequest, TooMany
from sim_sled.core.estate import Area, Estate

DISKS_MAX: Final = 100_000
"""Of one sled; it bounds a client that runs wild."""

_FREE: Final = frozenset({"creating", "detached"})
_HELD: Final = frozenset({"attaching", "attached", "detaching"})


@attrs.frozen
class DiskState:
    """`state` is its name on the wire; `instance` for those that have one."""

    state: str
    instance: UUID | None = None


@attrs.frozen
class DiskRuntime:
    """`updated` is RFC 3339."""

    state: DiskState
    gen: int
    updated: str


class OldDisks(Area):
    """The disks that a sled was told of, by id."""

    def __init__(self, estate: Estate) -> None:
        super().__init__(estate)
        self.disks: dict[UUID, DiskRuntime] = {}

    def ensure(self, disk_id: UUID, first: DiskRuntime, target: DiskState) -> DiskRuntime:
        """Make the disk known as `first` if it is not, then bring it to `target`. Raises `InvalidRequest`."""
        there = self.disks.get(disk_id, first)
        if disk_id not in self.disks and len(self.disks) >= DISKS_MAX:
            raise TooMany(f"more than {DISKS_MAX} disks")
        state = _next(there.state, target)
        if state != there.state:
            there = DiskRuntime(state, there.gen + 1, self.estate.time())
        self.disks[disk_id] = there
        return there


def _next(now: DiskState, target: DiskState) -> DiskState:
    match target.state:
        case "attached":
            if now.state in {"attaching", "attached"} and now.instance == target.instance:
                return DiskState("attached", target.instance)
            if now.state in _FREE:
                return target
        case "detached":
            if now.state in _FREE | _HELD:
                return target
        case _:  # destroyed and faulted are always possible
            return target
    raise InvalidRequest(f"cannot bring a disk from {now.state} to {target.state}")
