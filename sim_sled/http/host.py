"""What the HTTP shell asks of the daemon: hand an input to the core and wait for its answer.

Read next: http/blobs.py.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from uuid import UUID

from sim_sled.core.contract import (
    CallArea,
    GetState,
    Poke,
    PutState,
    Register,
    SimMigrationSource,
    Unregister,
)

if TYPE_CHECKING:
    from sim_sled.http.blobs import Blobs

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

    def blobs(self, sled_id: UUID) -> Blobs:
        """The stored bytes of a sled."""

    def log_lines(self, sled_id: UUID, propolis_id: UUID | None) -> list[tuple[str, str]]:
        """What is remembered of a VMM, or of the sled itself: time (RFC 3339) and text, the oldest first."""

    def in_background(self, work: Coroutine[Any, Any, None], at_most: int) -> bool:
        """Carry `work` on although nobody waits for it. False, and it is dropped, if `at_most` are under way."""
