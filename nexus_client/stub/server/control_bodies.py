"""Request bodies of the control API (control.py), whose document has their schemas from these classes."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import attrs
import msgspec

from nexus_client.stub.contract import CrashPoint, IpKind
from nexus_client.stub.sizes import NAME_MAX, NAME_PATTERN

Name = Annotated[str, msgspec.Meta(max_length=NAME_MAX, pattern=NAME_PATTERN)]
"""The core judges again (sizes.py); here it makes the page of this API say it."""


@attrs.frozen
class CreateBody:
    """memory in bytes, cooldown in milliseconds."""

    name: Name
    hostname: str | None = None
    description: str = ""
    ncpus: int = 2
    memory: int = 4 * 1024**3
    start: bool = True
    auto_restart_policy: Literal["never", "best_effort"] | None = None
    auto_restart_cooldown_ms: Annotated[int, msgspec.Meta(ge=0)] | None = None
    uses_local_storage: bool = False
    sled_id: UUID | None = None
    project: str = "default"
    silo: str = "default"


@attrs.frozen
class MigrateBody:
    dst_sled_id: UUID


@attrs.frozen
class IpBody:
    kind: IpKind
    address: str | None = None


@attrs.frozen
class SledBody:
    policy: Literal["in_service", "expunged"] | None = None
    state: Literal["active", "decommissioned"] | None = None
    power: Literal["a0", "a1", "a2", "a3", "off", "unknown"] | None = None


@attrs.frozen
class RestartBody:
    """down_ms: how long nothing listens."""

    down_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] = 0


@attrs.frozen
class CrashBody:
    point: CrashPoint
