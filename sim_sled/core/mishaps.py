"""What may happen to the servers beside a sled, as values (SR 8): from the control API, or whoever plays faults.

Read before: core/crucible/values.py. Read next: core/companions.py, daemon/companion_faults.py.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import attrs
from msgspec import Struct

from sim_sled.core.crucible.values import RegionState

OPERATIONS: Final = frozenset(
    {
        "region_list", "region_create", "region_get", "region_delete", "region_get_snapshots", "region_get_snapshot",
        "region_delete_snapshot", "region_run_snapshot", "region_delete_running_snapshot",
        "pantry_status", "volume_status", "attach", "detach", "attach_activate_background", "bulk_write", "bulk_read",
        "import_from_url", "snapshot", "scrub", "validate", "replace", "is_job_finished", "job_result_ok",
        "dns_config_get", "dns_config_put",
        "artifact_get_by_sha256",
    }
)  # fmt: skip
"""Of all servers beside a sled, by their ids in the OpenAPI documents: no two have one in common."""

TIMES_MAX: Final = 1_000_000
"""Answers in a row; more is for ever, which a knob says better."""

REFUSALS_MAX: Final = 100
"""That wait at once: a person writes them down."""


@attrs.define
class Refuse:
    """The next `times` answers of an operation are this status; None: the connection breaks without one.

    `dataset`: only at this Crucible agent.
    """

    op: str
    status: int | None
    times: int = 1
    dataset: UUID | None = None


class Adjust(Struct, frozen=True):
    """Turn knobs of one server: `crucible` (of a dataset), `pantry`, `dns` or `repo-depot`. What waited for a knob to
    be turned back, a region or an attach that never ended, goes on.
    """

    server: str
    changes: tuple[tuple[str, object], ...]
    dataset: UUID | None = None


class SetRegion(Struct, frozen=True):
    """A region is in another state from now on."""

    dataset: UUID
    region_id: UUID
    state: RegionState


class TakeOver(Struct, frozen=True):
    """Another upstairs activates a volume of the pantry: whoever works on it here is told 410."""

    volume_id: str


class BreakDownstairs(Struct, frozen=True):
    """The downstairs of a region stops, and each upstairs writing to it tells Nexus (SR 7.10): stopped, repair
    started, half of it done, finished after `repair_us`. `aborted`: the repair does not succeed, the region fails.
    """

    dataset: UUID
    region_id: UUID
    repair_us: int = 0
    aborted: bool = False


Mishap = Refuse | Adjust | SetRegion | TakeOver | BreakDownstairs
