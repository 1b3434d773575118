"""What a sled says of itself: `GET /inventory` in the newest version's shape (SA 3.5, SR 3.3, 3.6).

Everything comes from what is there: hardware, the ledgered configuration, what the last run made of it.

Read before: core/omicron_config/ledger.py.
Read next: core/diagnostics/queries.py, core/facts.py, http/bodies_inventory.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sim_sled.core.estate import Area, Estate
from sim_sled.core.omicron_config.ledger import Ledger
from sim_sled.core.omicron_config.reconcile import HEADER_BYTES, Image, Reconciled, as_wire

NO_UUID: Final = "00000000-0000-0000-0000-000000000000"

_MANIFEST: Final = "/fake/path/install/zones.json"
_MEASUREMENTS: Final = "/fake/path/install/measurements/measurements.json"
_OVERRIDE: Final = "/fake/path/install/mupdate_override.json"

_REFERENCE: Final = (
    {"path": "this/is/fake1", "result": {"result": "ok"}},
    {"path": "this/is/fake2", "result": {"result": "err", "message": "this is a fake error"}},
)
"""The existing simulator's (SA 3.5); Nexus only stores them."""

FMD_WELL: Final[Mapping[str, Any]] = {"ok": {"cases": [], "resources": []}}
"""What the fault manager says of a sled without faults."""


class Inventory(Area):
    """A view of the other areas, and the faults that only a view has (SR 8)."""

    def __init__(self, estate: Estate) -> None:
        super().__init__(estate)
        self.pool_health: dict[str, str] = {}
        """By pool id; `online` where nothing is said."""
        self.services: list[dict[str, str]] | None = None
        """SMF services that are enabled and not online: `{fmri, zone, state}`; None: nobody has looked yet."""
        self.reference_measurements: tuple[Mapping[str, Any], ...] = _REFERENCE
        self.fmd: Mapping[str, Any] = FMD_WELL

    def read(self) -> dict[str, Any]:
        """The inventory, in the shape of 48.0.0."""
        estate, ledger = self.estate, self.estate.of(Ledger)
        hardware = estate.hardware
        wire = None if ledger.ledgered is None else ledger.ledgered.wire
        return {
            "sled_id": str(estate.sled_id),
            "sled_agent_address": v6_address(estate.sled.address),
            "sled_role": hardware.role.value,
            "baseboard_id": {"part_number": hardware.baseboard_model, "serial_number": estate.serial},
            "usable_hardware_threads": hardware.hardware_threads,
            "usable_physical_ram": hardware.physical_ram,
            "reservoir_size": hardware.reservoir_size,
            "cpu_family": hardware.cpu_family.value,
            "disks": self._disks(ledger),
            "zpools": [
                {"id": key, "total_size": size, "health": self.pool_health.get(key, "online")}
                for key, size in ledger.pools().items()
            ],
            "datasets": self._datasets(ledger),
            "ledgered_sled_config": wire,
            "reconciler_status": self._status(ledger),
            "last_reconciliation": None if ledger.last is None else self._last(ledger.last, ledger),
            "file_source_resolver": self._resolver(ledger),
            "smf_services_enabled_not_online": self._services(),
            "reference_measurements": list(self.reference_measurements),
            "fmd": self.fmd,
        }

    def _disks(self, ledger: Ledger) -> list[dict[str, Any]]:
        present = [key for key in ledger.disks() if key[2] not in ledger.faults.missing_disks]
        rows = [
            (identity, "U2", slot)
            for slot, identity in enumerate(ledger.disks())
            if identity in present  # a missing disk leaves its slot empty
        ]
        return [
            {
                "identity": dict(zip(("vendor", "model", "serial"), identity, strict=True)),
                "variant": variant,
                "slot": slot,
                "active_firmware_slot": 1,
                "next_active_firmware_slot": None,
                "number_of_firmware_slots": 1,
                "slot1_is_read_only": True,
                "slot_firmware_versions": ["SIMUL1"],
            }
            for identity, variant, slot in rows
        ]

    def _datasets(self, ledger: Ledger) -> list[dict[str, Any]]:
        """Those that the last run made. What is free: the quota or the whole pool; nothing here uses any of it."""
        last = ledger.last
        if last is None:
            return []
        found = []
        for key, why in last.datasets.items():
            if why is not None:
                continue
            dataset = last.config.datasets[key]
            pool = last.pools[dataset.pool_name.partition("_")[2]]
            found.append(
                {
                    "id": key,
                    "name": dataset.name,
                    "available": pool.size if dataset.quota is None else min(dataset.quota, pool.size),
                    "used": 0,
                    "quota": dataset.quota,
                    "reservation": dataset.reservation,
                    "compression": _compression(dataset.compression),
                }
            )
        return found

    def _status(self, ledger: Ledger) -> dict[str, Any]:
        if ledger.run is not None:
            return {
                "status": "running",
                "config": ledger.run.config.wire,
                "started_at": self.estate.time(ledger.run.started_us),
                "running_for": duration(max(0, self.estate.now_us - ledger.run.started_us)),
            }
        if ledger.ended is None:
            return {"status": "not_yet_run"}
        return {
            "status": "idle",
            "completed_at": self.estate.time(ledger.ended.completed_us),
            "ran_for": duration(ledger.ended.ran_for_us),
        }

    def _last(self, last: Reconciled, ledger: Ledger) -> dict[str, Any]:
        return {
            "last_reconciled_config": last.config.wire,
            "external_disks": as_wire(last.disks),
            "datasets": as_wire(last.datasets),
            # what left the configuration is destroyed, unless somebody wants that to fail
            "orphaned_datasets": [
                {
                    "name": {"pool_name": each.pool_name, "kind": each.kind},
                    "reason": "failed to destroy dataset: dataset is busy",
                    "id": key,
                    "mounted": True,
                    "available": last.pools[each.pool_name.partition("_")[2]].size,
                    "used": 0,
                }
                for key, each in last.orphans.items()
            ],
            "zones": as_wire(last.zones),
            "remove_mupdate_override": _removed(last.override_result),
            "boot_partitions": {
                "boot_disk": {"ok": ledger.boot_slot.upper()} if last.boot_disk is None else {"err": last.boot_disk},
                "slot_a": _slot(last.slots["a"]),
                "slot_b": _slot(last.slots["b"]),
            },
        }

    def _resolver(self, ledger: Ledger) -> dict[str, Any]:
        override = None if ledger.override is None else {"mupdate_override_id": ledger.override}
        return {
            "zone_manifest": _manifest(_MANIFEST),
            "measurement_manifest": _manifest(_MEASUREMENTS),
            "mupdate_override": {
                "boot_disk_path": _OVERRIDE,
                "boot_override": {"ok": override},
                "non_boot_status": [],
            },
        }

    def _services(self) -> dict[str, Any]:
        if self.services is None:
            return {"type": "data_unavailable"}
        value = {"services": self.services, "errors": [], "time_of_status": self.estate.time()}
        return {"type": "svcs_enabled_not_online", "value": value}


def v6_address(address: str) -> str:
    """A socket address as IPv6: one of IPv4 is mapped, because the wire has no other (SR 3.6)."""
    if address.startswith("["):
        return address
    host, _, port = address.rpartition(":")
    return f"[::ffff:{host}]:{port}"


def duration(us: int) -> dict[str, int]:
    """A `Duration` of microseconds."""
    return {"secs": us // 1_000_000, "nanos": us % 1_000_000 * 1_000}


def _compression(algorithm: Mapping[str, Any]) -> str:
    """As zfs writes it."""
    kind: str = algorithm["type"]
    return f"gzip-{algorithm['level']}" if kind == "gzip_n" else kind


def _manifest(path: str) -> dict[str, Any]:
    source = {"source": "installinator", "mupdate_id": NO_UUID}
    return {
        "boot_disk_path": path,
        "boot_inventory": {"ok": {"source": source, "artifacts": []}},
        "non_boot_status": [],
    }


def _removed(result: str | None) -> dict[str, Any] | None:
    if result is None:
        return None
    told = {"ok": result} if result in {"removed", "no_override"} else {"err": result}
    return {"boot_disk_result": told, "non_boot_message": "simulated: the other disk is like the boot disk"}


def _slot(content: Image | str) -> dict[str, Any]:
    if isinstance(content, str):
        return {"err": content}
    data_size = content.size - HEADER_BYTES if content.data_size is None else content.data_size
    return {
        "ok": {
            "header": {
                "flags": content.flags,
                "data_size": data_size,
                "image_size": data_size,
                "target_size": data_size if content.target_size is None else content.target_size,
                "sha256": list(content.data_sha256),
                "image_name": content.image_name,
            },
            "artifact_hash": content.hash,
            "artifact_size": content.size,
        }
    }
