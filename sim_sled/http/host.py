"""What the HTTP shell asks of the daemon: hand an input to the core and wait for its answer."""

from __future__ import annotations

from typing import Protocol, TypeAlias

from sim_sled.core.contract import (
    CallArea,
    GetState,
    Poke,
    PutState,
    Register,
    SimMigrationSource,
    Unregister,
)

EdgeRequest: TypeAlias = Register | Unregister | GetState | PutState | Poke | SimMigrationSource | CallArea
"""Inputs of the core that an HTTP request turns into; each has a `ticket` and a `sled_id`."""


class Host(Protocol):
    """The daemon, as a server of one sled sees it.

    `submit` must not depend on the caller staying: a client that hangs up does not undo what it asked for.
    """

    async def submit(self, item: EdgeRequest) -> object:
        """The `value` of the `Reply` to `item.ticket`. Raises `SledError`: the refusal, now or late."""

    def ticket(self) -> int:
        """A number no waiting request has."""
