"""The OpenAPI document of the control API, made from one table of its operations."""

from __future__ import annotations

from typing import Any, Final

import attrs
import msgspec

from nexus_client.stub.server.control_bodies import CrashBody, CreateBody, IpBody, MigrateBody, RestartBody, SledBody
from nexus_client.stub.server.faults import Fault

Json = dict[str, Any]


@attrs.frozen
class Operation:
    """body: the class of the request body; answer: name of the schema of the body of `status`, None for no body."""

    method: str
    path: str
    summary: str
    status: int
    answer: str | None = None
    body: type | None = None
    optional_body: bool = False


_ONE: Final = "/v1/instances/{instance}"
OPERATIONS: Final = (
    Operation("get", "/", "What this is, as text", 200, "text"),
    Operation("get", "/v1/openapi.json", "This document", 200, "Any"),
    Operation("get", "/v1/ping", "Always ok", 200, "Ping"),
    Operation("get", "/v1/state", "Whether Nexus is up, its rules, its running and stuck sagas", 200, "State"),
    Operation("get", "/v1/events", "Everything that happened after event number `after`", 200, "Events"),
    Operation("get", "/v1/instances", "All undeleted instances", 200, "Instances"),
    Operation("post", "/v1/instances", "Create, and start unless told otherwise", 201, "Instance", CreateBody),
    Operation("get", _ONE, "One instance with records and full timeline", 200, "FullInstance"),
    Operation("delete", _ONE, "Delete", 204),
    Operation("post", f"{_ONE}/start", "Start", 202, "Instance"),
    Operation("post", f"{_ONE}/stop", "Stop", 202, "Instance"),
    Operation("post", f"{_ONE}/reboot", "Reboot", 202, "Instance"),
    Operation("post", f"{_ONE}/migrate", "Move to another sled", 200, "Instance", MigrateBody),
    Operation("get", f"{_ONE}/console", "May a user connect to the serial console now", 200, "Console"),
    Operation("post", f"{_ONE}/external-ips", "Attach an IP or a subnet", 202, "Instance", IpBody),
    Operation("delete", f"{_ONE}/external-ips", "Detach an IP or a subnet", 204, None, IpBody),
    Operation("get", "/v1/sleds", "Registered sleds and their VMMs", 200, "Sleds"),
    Operation("put", "/v1/sleds/{sled_id}", "Policy, state and power of a sled", 200, "Sled", SledBody),
    Operation("post", "/v1/tasks/{task}", "Run a background task now", 204),
    Operation("get", "/v1/faults", "Faults of the internal API", 200, "Faults"),
    Operation("post", "/v1/faults", "Add a fault", 201, "FaultId", Fault),
    Operation("delete", "/v1/faults", "Remove all faults", 204),
    Operation("delete", "/v1/faults/{fault}", "Remove a fault", 204),
    Operation("post", "/v1/restart", "Crash, stay away, come back", 202, None, RestartBody, optional_body=True),
    Operation("post", "/v1/arm-crash", "Crash when this point is reached next", 204, None, CrashBody),
)

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


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_STATES: Final = [
    "creating",
    "starting",
    "running",
    "stopping",
    "stopped",
    "rebooting",
    "migrating",
    "repairing",
    "failed",
    "destroyed",
]
_SIDES: Final[Json] = {"enum": ["pending", "in_progress", "completed", "failed"]}

_ANSWERS: Final[dict[str, Json]] = {
    "Any": {"type": "object"},
    "Error": {
        "type": "object",
        "properties": {"request_id": _STR, "error_code": _STR, "message": _STR, "detail": _STR},
        "required": ["message", "request_id"],
        "additionalProperties": False,
    },
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
    "Instances": _object(items=_array(_ref("Instance"))),
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
        instance=_ref("Instance"),
        sled_id=_maybe(_UUID),
        record=_ref("Record"),
        vmms=_array(_ref("Vmm")),
        migrations=_array(_ref("Migration")),
        external_ips=_array(_ref("ExternalIp")),
        timeline=_array(_ref("TimelineEntry")),
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
    "Sleds": _object(items=_array(_ref("Sled"))),
    "Saga": _object(id=_UUID, kind=_STR, instance_id=_UUID, node=_INT, unwinding=_BOOL, stuck=_BOOL),
    "State": _object(
        up=_BOOL,
        quiet=_BOOL,
        rules=_STR,
        variant=_maybe(_STR),
        saga_mode=_STR,
        instances=_INT,
        sagas=_array(_ref("Saga")),
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
}


def _operation(op: Operation) -> Json:
    if op.answer == "text":
        content: Json = {"text/plain": {"schema": _STR}}
    else:
        content = {"application/json": {"schema": _ref(op.answer)}} if op.answer is not None else {}
    done: Json = {"description": op.summary}
    if content:
        done["content"] = content
    error = {"description": "Error", "content": {"application/json": {"schema": _ref("Error")}}}
    value: Json = {
        "operationId": f"{op.method}_{op.path.strip('/').replace('/', '_').replace('{', '').replace('}', '')}",
        "summary": op.summary,
        "responses": {str(op.status): done, "4XX": error, "5XX": error},
    }
    names = [part[1:-1] for part in op.path.split("/") if part.startswith("{")]
    parameters: list[Json] = [{"name": name, "in": "path", "required": True, "schema": _STR} for name in names]
    if op.path == "/v1/events":
        parameters.append({"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0}})
    if parameters:
        value["parameters"] = parameters
    if op.body is not None:
        schema = {"application/json": {"schema": _ref(op.body.__name__)}}
        value["requestBody"] = {"required": not op.optional_body, "content": schema}
    return value


def document() -> Json:
    """OpenAPI 3.1, because the schemas of the bodies are JSON Schema of 2020-12."""
    bodies = [op.body for op in OPERATIONS if op.body is not None]
    _, schemas = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    paths: dict[str, Json] = {}
    for op in OPERATIONS:
        paths.setdefault(op.path, {})[op.method] = _operation(op)
    fault_item = {"allOf": [_ref("Fault"), {"type": "object", "properties": {"id": _INT}, "required": ["id"]}]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Control API of the Nexus model in sim-sled",
            "description": "This is not Nexus, and this is not an API of Nexus.",
            "version": "1.0.0",
        },
        "paths": paths,
        "components": {"schemas": _ANSWERS | schemas | {"Faults": _object(items=_array(fault_item))}},
    }
