"""The request-and-answer operations of the Propolis API (PR 4.2). Streams are in streams.py.

An operation gets the server, the request, the API level and its path parameters; it returns an answer or raises.
Order of checks: path and query, body, then the VM, as dropshot does.

Read before: server/base.py, server/instance.py. Read next: server/app.py.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from nexus_client.dropshot import web
from nexus_client.dropshot.answers import bad_request, internal
from nexus_client.dropshot.body import bad_json
from nexus_client.dropshot.json import BadJson, Json
from propolis_stub import contract
from propolis_stub.serial.history import DEFAULT_MAX_BYTES, HistoryGone
from propolis_stub.server.base import answer, answer_json, decoded, path_uuid, query_numbers
from propolis_stub.server.instance import Preparation, PropolisServer
from propolis_stub.spec import types as t
from propolis_stub.spec import versions as v
from propolis_stub.spec.build import unbuildable
from propolis_stub.spec.read import Spec, check, normalised, read_components, told_status
from propolis_stub.spec.types import spec_key
from propolis_stub.types import InstanceState, MigrationStatus, Publication, RequestKind

Parameters = dict[str, str]


class _MonitorRequest(msgspec.Struct):
    gen: t.U64

    def __post_init__(self) -> None:
        t.fits_u64(gen=self.gen)


class _VcrReplace(msgspec.Struct):
    vcr_json: str


_ENSURE_1: Final = Json(v.EnsureRequest1)
_ENSURE_2: Final = Json(v.EnsureRequest2)
_REQUESTED: Final = Json(RequestKind)
_MONITOR: Final = Json(_MonitorRequest)
_VCR: Final = Json(_VcrReplace)
_NO_CONTENT: Final = 204


# --- instance ---------------------------------------------------------------------------------------------------


async def put_instance(
    server: PropolisServer, request: web.BaseRequest, level: int, _parameters: Parameters
) -> web.StreamResponse:
    """Not idempotent. A bad spec is a 400 even if a VM exists."""
    body: v.EnsureRequest1 | v.EnsureRequest2
    if level < 2:
        body = await decoded(request, _ENSURE_1)
    else:
        body = await decoded(request, _ENSURE_2)
    init = body.init
    if isinstance(init, v.ByTarget):
        target = init.value
        preparation = Preparation(body.properties, None, target.src_addr, target.replace_components)
        ok = await server.ensure(server.target_of(target.migration_id), preparation)
        created: Any = {"migrate": {"migration_id": target.migration_id}}
    else:
        spec = _read_spec(init.value.spec, level)
        check(spec)
        item = contract.EnsureSpec(fails=bool(unbuildable(spec)))
        ok = await server.ensure(item, Preparation(body.properties, normalised(spec)))
        created = {"migrate": None}
    if not ok:
        raise internal()
    return answer_json(201, created)


def _read_spec(raw: v.RawSpec1 | v.RawSpec2, level: int) -> Spec:
    try:
        components = read_components(bytes(raw.components), level)
    except BadJson as problem:
        raise bad_json(problem) from None
    return Spec(raw.board, components, raw.smbios if isinstance(raw, v.RawSpec2) else None)


def _properties(server: PropolisServer) -> v.InstanceProperties:
    if server.properties is None:
        raise internal()  # an embedding host that ensured without saying what
    return server.properties


def _state(server: PropolisServer) -> str:
    # A stepped target has published nothing yet: it is what it will be told as.
    return (server.vm.state or InstanceState.MIGRATING).value


async def get_instance(
    server: PropolisServer, _request: web.BaseRequest, _level: int, _parameters: Parameters
) -> web.StreamResponse:
    await server.objects()
    return answer_json(200, {"instance": {"properties": _properties(server), "state": _state(server)}})


async def get_spec(
    server: PropolisServer, _request: web.BaseRequest, level: int, _parameters: Parameters
) -> web.StreamResponse:
    await server.objects()
    told = {
        "properties": _properties(server),
        "state": _state(server),
        "spec": told_status(server.spec, level),
    }
    return answer_json(200, told)


def _status(status: MigrationStatus | None) -> dict[str, str] | None:
    return None if status is None else {"id": str(status.id), "state": status.state.value}


def told_publication(publication: Publication) -> dict[str, Any]:
    """`InstanceStateMonitorResponse`."""
    return {
        "gen": publication.gen,
        "state": publication.state.value,
        "migration": {
            "migration_in": _status(publication.migration_in),
            "migration_out": _status(publication.migration_out),
        },
    }


async def monitor(
    server: PropolisServer, request: web.BaseRequest, _level: int, _parameters: Parameters
) -> web.StreamResponse:
    asked = await decoded(request, _MONITOR)
    return answer_json(200, told_publication(await server.monitor(asked.gen)))


async def put_state(
    server: PropolisServer, request: web.BaseRequest, _level: int, _parameters: Parameters
) -> web.StreamResponse:
    kind = await decoded(request, _REQUESTED)
    server.require_active()
    server.handle(contract.Request(kind))
    return answer(_NO_CONTENT)


async def migration_status(
    server: PropolisServer, _request: web.BaseRequest, _level: int, _parameters: Parameters
) -> web.StreamResponse:
    server.require_vm()
    vm = server.vm
    return answer_json(200, {"migration_in": _status(vm.migration_in), "migration_out": _status(vm.migration_out)})


# --- serial, disks, nmi -----------------------------------------------------------------------------------------


async def serial_history(
    server: PropolisServer, request: web.BaseRequest, _level: int, _parameters: Parameters
) -> web.StreamResponse:
    asked = query_numbers(request, ("from_start", "most_recent", "max_bytes"))
    server.require_active()
    from_start, most_recent = asked["from_start"], asked["most_recent"]
    if (from_start is None) == (most_recent is None):
        raise bad_request("Exactly one of 'from_start' or 'most_recent' must be specified.")
    history = server.serial.history
    start = history.start_of(from_start=from_start, most_recent=most_recent)
    max_bytes = asked["max_bytes"]
    try:
        data = history.read(start, DEFAULT_MAX_BYTES if max_bytes is None else max_bytes)
    except HistoryGone as gone:
        raise bad_request(str(gone)) from None
    return answer_json(200, {"data": list(data), "last_byte_offset": start + len(data)})


async def snapshot(
    server: PropolisServer, _request: web.BaseRequest, _level: int, parameters: Parameters
) -> web.StreamResponse:
    path_uuid(parameters["snapshot_id"], "snapshot_id")
    server.snapshot(spec_key(parameters["id"]))
    return answer_json(200, None)


async def disk_status(
    server: PropolisServer, _request: web.BaseRequest, level: int, parameters: Parameters
) -> web.StreamResponse:
    return answer_json(200, server.disk_status(spec_key(parameters["id"]), level))


async def vcr(
    server: PropolisServer, request: web.BaseRequest, _level: int, parameters: Parameters
) -> web.StreamResponse:
    asked = await decoded(request, _VCR)
    return answer_json(200, await server.reconfigure(spec_key(parameters["id"]), asked.vcr_json))


async def nmi(
    server: PropolisServer, _request: web.BaseRequest, _level: int, _parameters: Parameters
) -> web.StreamResponse:
    server.inject_nmi()
    return answer_json(200, None)
