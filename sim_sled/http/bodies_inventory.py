"""`Inventory` in every version from 1 to 48: the newest one converted down, step by step (SR 3.6).

Where an old shape has no words for a value the whole answer is an error, as in the original; nothing is left out that
somebody could miss.

Read before: core/inventory.py, http/bodies_omicron.py. Read next: http/omicron.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sim_sled.core.errors import Internal
from sim_sled.http.bodies_omicron import older

Json = dict[str, Any]


def inventory_of(newest: Mapping[str, Any], level: int) -> Json:
    """The inventory in the shape of `level`. Raises `InvalidRequest` or `Internal` where that cannot be said."""
    value = dict(newest)
    for since, step in _STEPS:
        if level >= since:
            break
        step(value)
    if level < 14:
        _older_configs(value, level)
    return value


def _before_46(value: Json) -> None:
    status = value["smf_services_enabled_not_online"]
    if status["type"] == "svcs_enabled_not_online" and any(
        service["state"] == "unrecognized" for service in status["value"]["services"]
    ):
        raise Internal("a service is in a state that versions before 46 have no word for")


def _before_43(value: Json) -> None:
    board = value.pop("baseboard_id")
    value["baseboard"] = {
        "type": "gimlet",
        "identifier": board["serial_number"],
        "model": board["part_number"],
        "revision": 0,  # a baseboard id has none (SA 3.5)
    }


def _before_40(value: Json) -> None:
    del value["fmd"]


def _before_34(value: Json) -> None:
    status = value["smf_services_enabled_not_online"]
    if status["type"] == "svcs_cmd_error":
        failure = {"type": "command_failure", "value": status["value"]["error"]}
        value["smf_services_enabled_not_online"] = status | {"value": failure}


def _before_28(value: Json) -> None:
    del value["smf_services_enabled_not_online"]
    value["smf_services_in_maintenance"] = {"err": "Unable to retrieve services in maintenance"}


def _before_24(value: Json) -> None:
    value["zpools"] = [{key: pool[key] for key in ("id", "total_size")} for pool in value["zpools"]]


def _before_22(value: Json) -> None:
    value["health_monitor"] = {"smf_services_in_maintenance": value.pop("smf_services_in_maintenance")}


def _before_16(value: Json) -> None:
    """14 and 15 told the reference measurements with the last reconciliation."""
    measured = value.pop("reference_measurements")
    if value["last_reconciliation"] is not None:
        told = [
            {"file_name": each["path"].rpartition("/")[2], "path": each["path"], "result": each["result"]}
            for each in measured
        ]
        value["last_reconciliation"] = value["last_reconciliation"] | {"measurements": told}


def _before_14(value: Json) -> None:
    resolver = value.pop("file_source_resolver")
    value["zone_image_resolver"] = {key: resolver[key] for key in ("zone_manifest", "mupdate_override")}
    if value["last_reconciliation"] is not None:
        last = dict(value["last_reconciliation"])
        del last["measurements"]
        value["last_reconciliation"] = last


def _before_12(value: Json) -> None:
    del value["health_monitor"]


_STEPS: Final[tuple[tuple[int, Callable[[Json], None]], ...]] = (
    (46, _before_46),
    (43, _before_43),
    (40, _before_40),
    (34, _before_34),
    (28, _before_28),
    (24, _before_24),
    (22, _before_22),
    (16, _before_16),
    (14, _before_14),
    (12, _before_12),
)
"""What is different before each version, newest first."""


def _older_configs(value: Json, level: int) -> None:
    """The configuration stands in three places."""
    if value["ledgered_sled_config"] is not None:
        value["ledgered_sled_config"] = older(value["ledgered_sled_config"], level)
    if value["last_reconciliation"] is not None:
        last = value["last_reconciliation"]
        config = older(last["last_reconciled_config"], level)
        value["last_reconciliation"] = last | {"last_reconciled_config": config}
    if value["reconciler_status"]["status"] == "running":
        status = value["reconciler_status"]
        value["reconciler_status"] = status | {"config": older(status["config"], level)}
