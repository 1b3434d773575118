"""What an upstairs tells Nexus while it repairs a downstairs (SR 7.10): paths and bodies, in the order of a repair.

Read next: core/companions.py.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import attrs

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
ITEMS: Final = 2
"""Steps that a repair is told in."""


@attrs.frozen
class Repair:
    """One repair of one upstairs. Times in microseconds."""

    upstairs_id: UUID
    session_id: UUID
    repair_id: UUID
    region_id: UUID
    target: str

    def messages(self, now_us: int, repair_us: int, *, aborted: bool) -> list[tuple[int, str, dict[str, Any]]]:
        """(when, path, body) of everything that Nexus is told."""
        upstairs = f"/crucible/0/upstairs/{self.upstairs_id}"
        half_us, end_us = now_us + repair_us // 2, now_us + repair_us
        stopped = {"time": _time(now_us), "reason": "connection_failed"}
        progress = {"time": _time(half_us), "current_item": ITEMS // 2, "total_items": ITEMS}
        return [
            (now_us, f"{upstairs}/downstairs/{self.region_id}/stopped", stopped),
            (now_us, f"{upstairs}/repair-start", self._info(now_us)),
            (half_us, f"{upstairs}/repair/{self.repair_id}/progress", progress),
            (end_us, f"{upstairs}/repair-finish", self._info(end_us) | {"aborted": aborted}),
        ]

    def _info(self, at_us: int) -> dict[str, Any]:
        return {
            "time": _time(at_us),
            "repair_id": str(self.repair_id),
            "repair_type": "live",
            "session_id": str(self.session_id),
            "repairs": [{"region_uuid": str(self.region_id), "target_addr": self.target}],
        }


def _time(at_us: int) -> str:
    when = _EPOCH + timedelta(microseconds=at_us)
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")
