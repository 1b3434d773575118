"""Who stands in a recorded rack for the owner of a migrating VM: its answers are inputs that come within a turn.

What a VM takes along in a migration, and whether what came can be taken, its core asks of its owner in the middle of
a turn (`propolis_stub.migration.script.Baggage`). That owner is a server with sockets, of which a recording has
nothing but these answers. So the core of a recorded rack has a `Witness` for it, which asks its desk: in the daemon
that asks the server and writes down what it says, in a replay it reads that. A witness has no state of its own, so it
can stand in an input and in a checkpoint.

Read next: daemon/recorder.py, recording/replaying.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol
from uuid import UUID

import attrs

from propolis_stub.migration.script import Baggage, Payload

UNBUILDABLE: Final = "unbuildable"
"""The question whether a VM can be made of what came."""


class Desk(Protocol):
    """Of one rack: where all its witnesses ask."""

    def asked(self, witness: Witness, question: str, ask: Callable[[Baggage], object], /) -> object:
        """What the owner of that VM answers."""
        ...


@attrs.define(eq=False)
class Witness:
    """`Baggage` of one VMM. `desk` None: it stands in a file, and is given one before it is asked."""

    sled_id: UUID
    propolis_id: UUID
    desk: Desk | None

    def pack(self, payload: Payload, /) -> str:
        return str(self._asked(f"pack {payload.value}", lambda owner: owner.pack(payload)))

    def unpack(self, payload: Payload, text: str, /) -> str | None:
        refused = self._asked(f"unpack {payload.value}", lambda owner: owner.unpack(payload, text))
        return None if refused is None else str(refused)

    def unbuildable(self) -> bool:
        return bool(self._asked(UNBUILDABLE, lambda owner: owner.unbuildable()))

    def _asked(self, question: str, ask: Callable[[Baggage], object]) -> object:
        assert self.desk is not None, "whoever read it has given it one"
        return self.desk.asked(self, question, ask)
