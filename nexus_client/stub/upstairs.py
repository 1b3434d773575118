"""What upstairs tell a Nexus about repairs: it only keeps records of them (SR 7.10).

Read before: stub/refusal.py. Read next: stub/server/internal_api.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final
from uuid import UUID

import attrs
import msgspec

from nexus_client.stub.refusal import conflict, not_found

RECORDS_MAX: Final = 10_000
"""The oldest go first: nobody reads them here but tests."""


class RepairType(Enum):
    LIVE = "live"
    RECONCILIATION = "reconciliation"


class UnderRepair(msgspec.Struct):
    region_uuid: UUID
    target_addr: str


class RepairStart(msgspec.Struct):
    """`RepairStartInfo`."""

    time: str
    repair_id: UUID
    repair_type: RepairType
    session_id: UUID
    repairs: list[UnderRepair]


class RepairFinish(RepairStart):
    """`RepairFinishInfo`."""

    aborted: bool


class RepairProgress(msgspec.Struct):
    time: str
    current_item: int
    total_items: int


class Stopped(msgspec.Struct):
    """A downstairs has stopped, or is asked to."""

    time: str
    reason: str


@attrs.frozen
class Told:
    """One record: what was told of which upstairs. `about`: the repair or the downstairs."""

    kind: str
    upstairs_id: UUID
    about: UUID
    body: Any


@attrs.define(eq=False)
class Upstairs:
    """All that was told, in order."""

    records: list[Told] = attrs.field(factory=list)

    def started(self, upstairs_id: UUID, body: RepairStart) -> None:
        """Raises `Refused`: a repair has one type, and does not start again when it has finished."""
        if self._find("repair-finish", upstairs_id, body.repair_id) is not None:
            raise conflict(f"repair {body.repair_id} has finished already")
        there = self._find("repair-start", upstairs_id, body.repair_id)
        if there is not None and there.body.repair_type is not body.repair_type:
            raise conflict(f"repair {body.repair_id} started with another type")
        self._keep(Told("repair-start", upstairs_id, body.repair_id, body))

    def progressed(self, upstairs_id: UUID, repair_id: UUID, body: RepairProgress) -> None:
        """Raises `Refused` for a repair that was not started."""
        if self._find("repair-start", upstairs_id, repair_id) is None:
            raise not_found("upstairs-repair", repair_id)
        self._keep(Told("progress", upstairs_id, repair_id, body))

    def finished(self, upstairs_id: UUID, body: RepairFinish) -> None:
        """Raises `Refused`: a repair ends in one way only."""
        there = self._find("repair-finish", upstairs_id, body.repair_id)
        if there is not None and there.body.aborted is not body.aborted:
            raise conflict(f"repair {body.repair_id} finished in another way")
        self._keep(Told("repair-finish", upstairs_id, body.repair_id, body))

    def downstairs(self, kind: str, upstairs_id: UUID, downstairs_id: UUID, body: Stopped) -> None:
        """`stopped` or `stop-request`."""
        self._keep(Told(kind, upstairs_id, downstairs_id, body))

    def _find(self, kind: str, upstairs_id: UUID, about: UUID) -> Told | None:
        for told in self.records:
            if (told.kind, told.upstairs_id, told.about) == (kind, upstairs_id, about):
                return told
        return None

    def _keep(self, told: Told) -> None:
        if len(self.records) >= RECORDS_MAX:
            del self.records[0]
        self.records.append(told)
