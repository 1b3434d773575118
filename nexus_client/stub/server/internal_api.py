"""Nexus's internal API as sleds call it, and the two lockstep calls which matter to them (NX 3). Shell.

Not offered (404): the internal API's calls for Crucible, metrics collectors, NAT changesets and volumes.

Read before: stub/handoff.py, stub/upstairs.py. Read next: stub/server/serve.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import attrs
from aiohttp import web

from nexus_client.dropshot.answers import Unanswered
from nexus_client.dropshot.json import Json
from nexus_client.dropshot.listen import Server
from nexus_client.stub.contract import ErrorBody, Migrate, SledGot, SledPosted, VmmReported
from nexus_client.stub.handoff import HandoffBody
from nexus_client.stub.refusal import Refused
from nexus_client.stub.server.host import Host
from nexus_client.stub.server.wire import (
    REQUEST_ID,
    Handler,
    Layer,
    Table,
    answer,
    error_response,
    json_response,
    manners,
    path_uuid,
    read_json,
    versioned,
)
from nexus_client.stub.upstairs import RepairFinish, RepairProgress, RepairStart, Stopped
from nexus_client.types import SledAgentInfo, SledVmmState

_REPORT: Final = Json(SledVmmState)
_INFO: Final = Json(SledAgentInfo)
_ANY: Final = Json(dict[str, Any])
LEASE_S: Final = 600
"""Lease of a metric producer (NX 3.4)."""


@attrs.frozen
class _MigrateBody:
    dst_sled_id: UUID


_HANDOFF: Final = Json(HandoffBody)
_REPAIR_START: Final = Json(RepairStart)
_REPAIR_FINISH: Final = Json(RepairFinish)
_REPAIR_PROGRESS: Final = Json(RepairProgress)
_STOPPED: Final = Json(Stopped)
_MIGRATE: Final = Json(_MigrateBody)


def faulty(host: Host) -> Layer:
    """A layer: what control has asked for to go wrong."""

    async def strike(request: web.BaseRequest, handler: Handler) -> web.StreamResponse:
        struck = host.faults.strike(request.path)
        if struck is None:
            return await handler(request)
        number, fault = struck
        match fault.do:
            case "refuse":
                raise Unanswered
            case "hang":
                await host.faults.until_removed(number)  # or until the server stops
                raise Unanswered
            case "delay":
                await asyncio.sleep(fault.delay_ms / 1000)
                return await handler(request)
            case "answer":
                body = ErrorBody(fault.error_code, fault.message)
                return error_response(fault.status, body, request[REQUEST_ID])
            case "lose":
                await handler(request)
                raise Unanswered

    return strike


def make_internal_server(host: Host) -> Server:
    """The internal API, version 1.0.0 required in each request."""

    async def put_vmm(request: web.BaseRequest) -> web.Response:
        propolis_id = path_uuid(request, "propolis_id")
        report = await read_json(request, _REPORT)
        return answer(await host.report(lambda ticket: VmmReported(ticket, propolis_id, report)), request)

    async def post_sled(request: web.BaseRequest) -> web.Response:
        sled_id = path_uuid(request, "sled_id")
        info = await read_json(request, _INFO)
        return answer(await host.submit(lambda ticket: SledPosted(ticket, sled_id, info)), request)

    async def get_sled(request: web.BaseRequest) -> web.Response:
        sled_id = path_uuid(request, "sled_id")
        return answer(await host.submit(lambda ticket: SledGot(ticket, sled_id)), request)

    async def ping(_request: web.BaseRequest) -> web.Response:
        return json_response({"status": "ok"})

    async def put_disk(request: web.BaseRequest) -> web.Response:
        path_uuid(request, "disk_id")
        await read_json(request, _ANY)
        body = ErrorBody("InvalidRequest", "removed due to incorrect abstraction")
        return error_response(400, body, request[REQUEST_ID])

    async def gone(request: web.BaseRequest) -> web.Response:
        return error_response(410, ErrorBody("Gone", "Gone"), request[REQUEST_ID])

    async def post_producer(request: web.BaseRequest) -> web.Response:
        await read_json(request, _ANY)
        return json_response({"lease_duration": {"secs": LEASE_S, "nanos": 0}}, 201)

    async def put_switch(request: web.BaseRequest) -> web.Response:
        path_uuid(request, "switch_id")
        await read_json(request, _ANY)
        return json_response({})

    table = Table()
    _add_upstairs(table, host)
    table.add("PUT", "/vmms/{propolis_id}", put_vmm)
    table.add("POST", "/sled-agents/{sled_id}", post_sled)
    table.add("GET", "/sled-agents/{sled_id}", get_sled)
    table.add("GET", "/v1/ping", ping)
    table.add("PUT", "/disks/{disk_id}", put_disk)
    table.add("GET", "/probes/{sled}", gone)
    table.add("POST", "/refresh-vpc-routes", gone)
    table.add("POST", "/metrics/producers", post_producer)
    table.add("PUT", "/switch/{switch_id}", put_switch)
    return table.server(manners, faulty(host), versioned)


def _add_upstairs(table: Table, host: Host) -> None:
    """What upstairs tell of repairs (SR 7.10)."""

    def kept(request: web.BaseRequest, keep: Callable[[], None]) -> web.Response:
        try:
            keep()
        except Refused as refused:
            why = refused.refusal
            return error_response(why.status, ErrorBody(why.error_code, why.message), request[REQUEST_ID])
        return web.Response(status=204)

    async def repair_start(request: web.BaseRequest) -> web.Response:
        upstairs_id, body = path_uuid(request, "upstairs"), await read_json(request, _REPAIR_START)
        return kept(request, lambda: host.upstairs.started(upstairs_id, body))

    async def repair_finish(request: web.BaseRequest) -> web.Response:
        upstairs_id, body = path_uuid(request, "upstairs"), await read_json(request, _REPAIR_FINISH)
        return kept(request, lambda: host.upstairs.finished(upstairs_id, body))

    async def repair_progress(request: web.BaseRequest) -> web.Response:
        upstairs_id, repair_id = path_uuid(request, "upstairs"), path_uuid(request, "repair")
        body = await read_json(request, _REPAIR_PROGRESS)
        return kept(request, lambda: host.upstairs.progressed(upstairs_id, repair_id, body))

    async def downstairs(request: web.BaseRequest) -> web.Response:
        upstairs_id, downstairs_id = path_uuid(request, "upstairs"), path_uuid(request, "downstairs")
        body, kind = await read_json(request, _STOPPED), request.path.rpartition("/")[2]
        return kept(request, lambda: host.upstairs.downstairs(kind, upstairs_id, downstairs_id, body))

    upstairs = "/crucible/0/upstairs/{upstairs}"
    table.add("POST", upstairs + "/repair-start", repair_start)
    table.add("POST", upstairs + "/repair-finish", repair_finish)
    table.add("POST", upstairs + "/repair/{repair}/progress", repair_progress)
    table.add("POST", upstairs + "/downstairs/{downstairs}/stopped", downstairs)
    table.add("POST", upstairs + "/downstairs/{downstairs}/stop-request", downstairs)


def make_lockstep_server(host: Host) -> Server:
    """Of the lockstep API: the hand-off of a rack and an operator's migrate. Unversioned."""

    async def rack_complete(request: web.BaseRequest) -> web.Response:
        rack_id = path_uuid(request, "rack_id")
        body = await read_json(request, _HANDOFF)
        try:
            host.rack.complete(rack_id, body)
        except Refused as refused:
            why = refused.refusal
            return error_response(why.status, ErrorBody(why.error_code, why.message), request[REQUEST_ID])
        return web.Response(status=204)

    async def migrate(request: web.BaseRequest) -> web.Response:
        instance_id = path_uuid(request, "instance_id")
        body = await read_json(request, _MIGRATE)
        return answer(await host.submit(lambda ticket: Migrate(ticket, instance_id, body.dst_sled_id)), request)

    table = Table()
    table.add("PUT", "/racks/{rack_id}/initialization-complete", rack_complete)
    table.add("POST", "/instances/{instance_id}/migrate", migrate)
    return table.server(manners, faulty(host))
