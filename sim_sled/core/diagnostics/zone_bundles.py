"""Zone bundles: what is kept of a zone that is gone, and how the old ones are cleaned up (SR 4.7).

Here a VMM that ends leaves one; nobody else makes any. The last `ENDED_KEPT` of a sled are told.

Read before: core/identity/small.py.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import attrs

from sim_sled.core.config import derived_id
from sim_sled.core.errors import BadRequest, Missing
from sim_sled.core.estate import Area, Estate
from sim_sled.core.identity.small import propolis_zone

PERIOD_S: Final = range(60, 86_400 + 1)
LIMIT: Final = range(1, 50 + 1)
QUOTA: Final = 100 * 2**30
"""Bytes of a debug dataset (SR 4.7)."""

BUNDLE_BYTES: Final = 4096
"""What a bundle is taken to occupy: it is made when it is read."""


def duration_text(secs: int, nanos: int) -> str:
    """As Rust writes a `Duration` for people: `59.5s`, `1ms`, `1.5µs`, `0ns`."""
    for unit, scale in (("s", 10**9), ("ms", 10**6), ("µs", 10**3), ("ns", 1)):
        whole, rest = divmod(secs * 10**9 + nanos, scale)
        if whole or unit == "ns":
            digits = f"{rest:0{len(str(scale)) - 1}}".rstrip("0") if rest else ""
            return f"{whole}.{digits}{unit}" if digits else f"{whole}{unit}"
    raise AssertionError("the last unit takes everything")


@attrs.frozen
class CleanupContext:
    """`storage_limit` in per cent of a quota."""

    period_secs: int = 600
    period_nanos: int = 0
    storage_limit: int = 25
    priority: tuple[str, str] = ("cause", "time")


@attrs.frozen
class ZoneBundle:
    """`created` is RFC 3339."""

    zone_name: str
    bundle_id: UUID
    created: str


class ZoneBundles(Area):
    """The bundles of a sled, one for each VMM that has ended here; `removed`: those that are gone again."""

    def __init__(self, estate: Estate) -> None:
        super().__init__(estate)
        self.context = CleanupContext()
        self.removed: set[UUID] = set()

    def all(self, pattern: str = "") -> list[ZoneBundle]:
        """Bundles of zones whose names contain `pattern`, sorted."""
        found = []
        for propolis_id, ended in self.estate.sled.ended:
            bundle_id = derived_id(self.estate.sled_id, f"zone bundle/{propolis_id}/{ended.isoformat()}")
            name = propolis_zone(propolis_id)
            if bundle_id not in self.removed and pattern in name:
                created = ended.isoformat(timespec="microseconds").replace("+00:00", "Z")
                found.append(ZoneBundle(name, bundle_id, created))
        return sorted(found, key=lambda each: (each.zone_name, str(each.bundle_id)))

    def of_zone(self, name: str) -> list[ZoneBundle]:
        return [each for each in self.all(name) if each.zone_name == name]

    def get(self, name: str, bundle_id: UUID) -> ZoneBundle:
        """Raises `Missing`."""
        for each in self.of_zone(name):
            if each.bundle_id == bundle_id:
                return each
        raise Missing(f"no bundle {bundle_id} of zone {name}")

    def delete(self, name: str, bundle_id: UUID) -> None:
        self.get(name, bundle_id)
        self._remove(bundle_id)

    def _remove(self, bundle_id: UUID) -> None:
        there = {each.bundle_id for each in self.all()}
        self.removed = {each for each in self.removed if each in there} | {bundle_id}

    def get_context(self) -> CleanupContext:
        return self.context

    def update(self, period: tuple[int, int] | None, limit: int | None, priority: tuple[str, str] | None) -> None:
        """None leaves a part as it is. Raises `BadRequest` for the first bad part; then nothing has changed."""
        if period is not None:
            secs, nanos = period
            if secs not in PERIOD_S or (secs == PERIOD_S[-1] and nanos > 0):
                told = duration_text(secs, nanos)
                raise BadRequest(f"invalid cleanup period ({told}): must be between 60s and 86400s, inclusive")
        if limit is not None and limit not in LIMIT:
            raise BadRequest(f"invalid storage limit ({limit}): must be expressed as a percentage in (0, 50]")
        old = self.context
        secs, nanos = period or (old.period_secs, old.period_nanos)
        self.context = CleanupContext(secs, nanos, limit or old.storage_limit, priority or old.priority)

    def cleanup(self) -> dict[str, Any]:
        """What was removed, by directory: nothing while the bundles stay within the limit."""
        left = QUOTA * self.context.storage_limit // 100
        too_many = max(0, len(self.all()) - left // BUNDLE_BYTES)
        if too_many == 0:
            return {}
        for each in sorted(self.all(), key=lambda each: each.created)[:too_many]:
            self._remove(each.bundle_id)
        return {key: {"bundles": too_many, "bytes": too_many * BUNDLE_BYTES} for key in self.directories()}

    def utilization(self) -> dict[str, Any]:
        """By directory."""
        used = len(self.all()) * BUNDLE_BYTES
        return {
            key: {
                "dataset_quota": QUOTA,
                "bytes_available": QUOTA * self.context.storage_limit // 100,
                "bytes_used": used,
            }
            for key in self.directories()
        }

    def directories(self) -> list[str]:
        """One on each M.2 disk."""
        return [
            f"/pool/int/{derived_id(self.estate.sled_id, f'internal zpool/{slot}')}/debug/bundle/zone"
            for slot in range(2)
        ]
