"""A sled configuration as the core sees it (SR 3.1, 3.3).

`OmicronConfig.wire` is the whole of it as plain JSON values in the newest version's shape, canonical: two equal
configurations have equal wires. The rest is what a sled reads of it.

Read next: core/omicron_config/reconcile.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

Json = Mapping[str, Any]

_PLAIN_KINDS: Final = frozenset({"crucible", "local_storage_unencrypted"})
"""Kinds of datasets that lie beside, not in, a pool's encrypted part (SR 3.3)."""

ZONE_OWNED: Final = frozenset(
    {
        "cockroachdb",
        "crucible",
        "clickhouse",
        "clickhouse_keeper",
        "clickhouse_server",
        "external_dns",
        "internal_dns",
    }
)
"""Kinds of datasets that belong to a zone; the others may have datasets nested in them (SR 3.1)."""

DATASET_KINDS: Final = ZONE_OWNED | {"zone", "debug", "local_storage", "local_storage_unencrypted"}
"""All kinds (SR 2.1), but `zone/NAME`."""

ZONE_KIND: Final = "zone/"

_DURABLE: Final[Mapping[str, str]] = {
    "clickhouse": "clickhouse",
    "clickhouse_keeper": "clickhouse_keeper",
    "clickhouse_server": "clickhouse_server",
    "cockroach_db": "cockroachdb",
    "crucible": "crucible",
    "external_dns": "external_dns",
    "internal_dns": "internal_dns",
}
"""Kind of the durable dataset by type of zone; the other types have none."""

_PREFIXES: Final[Mapping[str, str]] = {
    "boundary_ntp": "ntp",
    "internal_ntp": "ntp",
    "cockroach_db": "cockroachdb",
}
"""First part of a zone's name by type, where it is not the type itself (SR 3.3)."""

_WITHOUT_TIME: Final = frozenset({"boundary_ntp", "internal_ntp", "internal_dns"})
"""Zones that start before the clock is synchronised (SR 3.2)."""


def full_name(pool_name: str, kind: str) -> str:
    """Name of a dataset as zfs has it (SR 3.3)."""
    return f"{pool_name}/{kind}" if kind in _PLAIN_KINDS else f"{pool_name}/crypt/{kind}"


def pool_id(pool_name: str) -> str:
    """The id in `oxp_…` or `oxi_…`."""
    return pool_name.partition("_")[2]


@attrs.frozen
class DiskWanted:
    """`vendor`, `model`, `serial` say which disk; `pool_id` is the pool that Nexus chose for it."""

    id: str
    vendor: str
    model: str
    serial: str
    pool_id: str


@attrs.frozen
class DatasetWanted:
    """`pool_name` is `oxp_…`; sizes in bytes."""

    id: str
    pool_name: str
    kind: str
    quota: int | None
    reservation: int | None
    compression: Json

    @property
    def name(self) -> str:
        return full_name(self.pool_name, self.kind)


@attrs.frozen
class ZoneWanted:
    """`kind` is the type on the wire; `filesystem_pool` is `oxp_…`; `artifact` is a SHA-256 or None; `address`
    `[ip]:port` of kinds with one, else None.
    """

    id: str
    kind: str
    filesystem_pool: str | None
    durable_pool: str | None
    artifact: str | None
    address: str | None

    @property
    def name(self) -> str:
        return f"oxz_{_PREFIXES.get(self.kind, self.kind)}_{self.id}"

    @property
    def needs_time(self) -> bool:
        return self.kind not in _WITHOUT_TIME

    @property
    def transient(self) -> str | None:
        """Full name of its root dataset; None if nobody said where."""
        return None if self.filesystem_pool is None else full_name(self.filesystem_pool, ZONE_KIND + self.name)

    @property
    def durable(self) -> str | None:
        """Full name of the dataset that outlives it; None if it has none."""
        return None if self.durable_pool is None else full_name(self.durable_pool, _DURABLE[self.kind])


@attrs.frozen
class OmicronConfig:
    """A parsed `OmicronSledConfig`. Mappings are by id, in the order of the ids."""

    wire: Json

    @property
    def generation(self) -> int:
        return int(self.wire["generation"])

    @property
    def remove_mupdate_override(self) -> str | None:
        wanted: str | None = self.wire["remove_mupdate_override"]
        return wanted

    disks: Mapping[str, DiskWanted] = attrs.field(init=False, eq=False)
    datasets: Mapping[str, DatasetWanted] = attrs.field(init=False, eq=False)
    zones: Mapping[str, ZoneWanted] = attrs.field(init=False, eq=False)

    @disks.default
    def _disks(self) -> Mapping[str, DiskWanted]:
        return _by_id(
            DiskWanted(
                row["id"],
                row["identity"]["vendor"],
                row["identity"]["model"],
                row["identity"]["serial"],
                row["pool_id"],
            )
            for row in self.wire["disks"].values()
        )

    @datasets.default
    def _datasets(self) -> Mapping[str, DatasetWanted]:
        return _by_id(
            DatasetWanted(
                row["id"],
                row["name"]["pool_name"],
                row["name"]["kind"],
                row["quota"],
                row["reservation"],
                row["compression"],
            )
            for row in self.wire["datasets"].values()
        )

    @zones.default
    def _zones(self) -> Mapping[str, ZoneWanted]:
        return _by_id(
            ZoneWanted(
                row["id"],
                row["zone_type"]["type"],
                row["filesystem_pool"],
                row["zone_type"]["dataset"]["pool_name"] if row["zone_type"]["type"] in _DURABLE else None,
                row["image_source"].get("hash"),
                row["zone_type"].get("address"),
            )
            for row in self.wire["zones"].values()
        )

    def slot(self, name: str) -> str | None:
        """Artifact that shall be in host phase 2 slot `a` or `b`; None: what is there."""
        wanted: str | None = self.wire["host_phase_2"][f"slot_{name}"].get("hash")
        return wanted

    @property
    def artifacts(self) -> frozenset[str]:
        """All artifacts that this configuration names."""
        named = {zone.artifact for zone in self.zones.values()} | {self.slot("a"), self.slot("b")}
        named |= {row["hash"] for row in self.wire["measurements"]}
        return frozenset(each for each in named if each is not None)


def _by_id(rows: Iterable[Any]) -> Mapping[str, Any]:
    return {row.id: row for row in sorted(rows, key=lambda row: str(row.id))}
