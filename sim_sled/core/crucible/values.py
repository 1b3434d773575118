"""What a Crucible agent is asked for and tells (SR 5.1). Sizes as on the wire: extents in blocks, blocks in bytes.

Read next: core/crucible/agent.py, core/crucible/blocks.py, core/mishaps.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Final
from uuid import UUID

import attrs
from msgspec import Struct

from sim_sled.core.crucible.blocks import Blocks

REPAIR_PORT_OFFSET: Final = 4000
"""The repair port of a downstairs lies so much above its port; a read-only copy is made from there."""


class RegionState(Enum):
    """As on the wire. `creating` of the original is told as `requested`."""

    REQUESTED = "requested"
    CREATED = "created"
    TOMBSTONED = "tombstoned"
    DESTROYED = "destroyed"
    FAILED = "failed"


GOING: Final = frozenset({RegionState.TOMBSTONED, RegionState.DESTROYED})


@attrs.frozen
class RegionRequest:
    """`source`: `address:port` of what a read-only copy is made from."""

    id: UUID
    block_size: int
    extent_size: int
    extent_count: int
    encrypted: bool
    cert_pem: str | None = None
    key_pem: str | None = None
    root_pem: str | None = None
    source: str | None = None


class Snapshot(Struct, eq=False):
    """A copy of a region's blocks. `created_us`: core time."""

    name: str
    created_us: int
    blocks: Blocks


class RunningSnapshot(Struct, eq=False):
    """A read-only downstairs over a snapshot. `due_us`: when its state changes by itself."""

    name: str
    port: int
    state: RegionState
    due_us: int | None = None


@attrs.define(eq=False)
class Region:
    """`due_us`: when its state changes by itself."""

    request: RegionRequest
    port: int
    state: RegionState
    blocks: Blocks
    due_us: int | None = None
    snapshots: dict[str, Snapshot] = attrs.field(factory=dict)
    running: dict[str, RunningSnapshot] = attrs.field(factory=dict)
