"""Schemas of the answers of the Nexus model's control API. What the model shows is made in stub/views.py.

Read before: dropshot/openapi.py, stub/public_state.py. Read next: stub/server/control.py.
"""

from __future__ import annotations

from typing import Any, Final

from nexus_client.dropshot.openapi import ref
from nexus_client.stub.public_state import PublicState
from nexus_client.types import MigrationState

Json = dict[str, Any]

_UUID: Final[Json] = {"type": "string", "format": "uuid"}
_TIME: Final[Json] = {"type": "string", "format": "date-time"}
_STR: Final[Json] = {"type": "string"}
_INT: Final[Json] = {"type": "integer"}
_BOOL: Final[Json] = {"type": "boolean"}


def _maybe(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(**properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


_STATES: Final = [state.value for state in PublicState]
_SIDES: Final[Json] = {"enum": [state.value for state in MigrationState]}

SCHEMAS: Final[dict[str, Json]] = {
    "Ping": _object(status=_STR),
    "Instance": _object(
        id=_UUID,
        name=_STR,
        description=_STR,
        hostname=_STR,
        ncpus=_INT,
        memory=_INT,
        project_id=_UUID,
        run_state={"enum": _STATES},
        time_created=_TIME,
        time_modified=_TIME,
        time_run_state_updated=_TIME,
        time_last_auto_restarted=_maybe(_TIME),
        auto_restart_enabled=_BOOL,
        auto_restart_policy=_maybe({"enum": ["never", "best_effort"]}),
        auto_restart_cooldown_expiration=_maybe(_TIME),
        enable_jumbo_frames=_BOOL,
        boot_disk_id=_maybe(_UUID),
        cpu_platform=_maybe(_STR),
    ),
    "Instances": _object(items=_array(ref("Instance"))),
    "Record": _object(
        state={"enum": ["creating", "no_vmm", "vmm", "failed", "destroyed"]},
        state_generation=_INT,
        active_propolis_id=_maybe(_UUID),
        target_propolis_id=_maybe(_UUID),
        migration_id=_maybe(_UUID),
        updater_id=_maybe(_UUID),
        updater_gen=_INT,
        intended_state={"enum": ["running", "stopped", "guest_shutdown", "destroyed"]},
        time_deleted=_maybe(_TIME),
    ),
    "Vmm": _object(
        id=_UUID,
        sled_id=_UUID,
        propolis_addr=_STR,
        state=_STR,
        state_generation=_INT,
        time_state_updated=_TIME,
        failure_reason=_maybe(_STR),
        time_deleted=_maybe(_TIME),
    ),
    "Migration": _object(
        id=_UUID,
        source_propolis_id=_UUID,
        target_propolis_id=_UUID,
        source_state=_SIDES,
        source_gen=_INT,
        target_state=_SIDES,
        target_gen=_INT,
        time_deleted=_maybe(_TIME),
    ),
    "ExternalIp": _object(address=_STR, kind=_STR, state=_STR),
    "TimelineEntry": _object(time=_TIME, what=_STR, text=_STR, propolis_id=_maybe(_UUID)),
    "FullInstance": _object(
        instance=ref("Instance"),
        sled_id=_maybe(_UUID),
        record=ref("Record"),
        vmms=_array(ref("Vmm")),
        migrations=_array(ref("Migration")),
        external_ips=_array(ref("ExternalIp")),
        timeline=_array(ref("TimelineEntry")),
    ),
    "Console": _object(propolis_id=_UUID, propolis_addr=_STR),
    "Sled": _object(
        id=_UUID,
        sa_address=_STR,
        generation=_INT,
        policy=_STR,
        state=_STR,
        power=_STR,
        vmms=_array(_object(id=_UUID, instance_id=_UUID, state=_STR)),
    ),
    "Sleds": _object(items=_array(ref("Sled"))),
    "Saga": _object(
        id=_UUID,
        kind=_STR,
        instance_id=_UUID,
        node=_INT,
        at=_STR,
        propolis_id=_maybe(_UUID),
        awaits=_maybe(_UUID),
        unwinding=_BOOL,
        stuck=_BOOL,
    ),
    "State": _object(
        up=_BOOL,
        quiet=_BOOL,
        rules=_STR,
        variant=_maybe(_STR),
        saga_mode=_STR,
        instances=_INT,
        sagas=_array(ref("Saga")),
        breaches=_array(_STR),
        broken=_array(_STR),
    ),
    "Events": _object(
        items=_array(
            _object(
                number=_INT,
                time=_TIME,
                what=_STR,
                text=_STR,
                instance_id=_maybe(_UUID),
                propolis_id=_maybe(_UUID),
            )
        ),
        next=_INT,
    ),
    "FaultId": _object(id=_INT),
    "Faults": _object(
        items=_array({"allOf": [ref("Fault"), {"type": "object", "properties": {"id": _INT}, "required": ["id"]}]})
    ),
}
