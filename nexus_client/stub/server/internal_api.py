"""Nexus's internal API as sleds call it, and the two lockstep calls which matter to them (NX 3). Shell.

Not offered (404): the internal API's calls for Crucible, metrics collectors, NAT changesets and volumes.

Read before: stub/handoff.py, stub/upstairs.py. Read next: stub/server/serve.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum
from typing import Any, Final
from uuid import UUID

import attrs
import msgspec

from nexus_client.dropshot import web
from nexus_client.dropshot.answers import Refused, Unanswered
from nexus_client.dropshot.json import Json
from nexus_client.dropshot.listen import Server
from nexus_client.dropshot.text import U32, U64, SockAddr
from nexus_client.stub import refusal
from nexus_client.stub.contract import Migrate, SledGot, SledPosted, VmmReported
from nexus_client.stub.handoff import HandoffBody
from nexus_client.stub.server.host import Host
from nexus_client.stub.server.wire import (
    Answer,
    Handler,
    Layer,
    Table,
    answer,
    path_uuid,
    read_json,
    versioned,
)
from nexus_client.stub.upstairs import RepairFinish, RepairProgress, RepairStart, Stopped
from nexus_client.types import Baseboard, SledAgentInfo, SledVmmState

_REPORT: Final = Json(SledVmmState)
_INFO: Final = Json(SledAgentInfo)
_ANY: Final = Json(dict[str, Any])
LEASE_S: Final = 600
"""Lease of a metric producer (NX 3.4)."""


class _ProducerKind(Enum):
    SLED_AGENT = "sled_agent"
    SERVICE = "service"
    INSTANCE = "instance"


class _Duration(msgspec.Struct):
    secs: U64
    nanos: U32


class _Producer(msgspec.Struct):
    """`ProducerEndpoint`: read, and forgotten."""

    id: UUID
    kind: _ProducerKind
    address: SockAddr
    interval: _Duration


class _Switch(msgspec.Struct):
    """`SwitchPutRequest`: the same."""

    baseboard: Baseboard
    rack_id: UUID


@attrs.frozen
class _MigrateBody:
    dst_sled_id: UUID


_HANDOFF: Final = Json(HandoffBody)
_PRODUCER: Final = Json(_Producer)
_SWITCH: Final = Json(_Switch)
_REPAIR_START: Final = Json(RepairStart)
_REPAIR_FINISH: Final = Json(RepairFinish)
_REPAIR_PROGRESS: Final = Json(RepairProgress)
_STOPPED: Final = Json(Stopped)
_MIGRATE: Final = Json(_MigrateBody)


def faulty(host: Host) -> Layer:
    """A layer: what control has asked for to go wrong."""

    async def strike(request: web.BaseRequest, handler: Handler) -> Answer:
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
                raise Refused(fault.status, fault.message, fault.error_code)
            case "lose":
                with contextlib.suppress(Refused, refusal.Refused):  # whatever was answered is lost
                    await handler(request)
                raise Unanswered

    return strike


def make_internal_server(host: Host) -> Server:
    """The internal API, version 1.0.0 required in each request."""

    async def put_vmm(request: web.BaseRequest) -> Answer:
        propolis_id = path_uuid(request, "propolis_id")
        report = await read_json(request, _REPORT)
        return answer(await host.report(lambda ticket: VmmReported(ticket, propolis_id, report)))

    async def post_sled(request: web.BaseRequest) -> Answer:
        sled_id = path_uuid(request, "sled_id")
        info = await read_json(request, _INFO)
        return answer(await host.submit(lambda ticket: SledPosted(ticket, sled_id, info)))

    async def get_sled(request: web.BaseRequest) -> Answer:
        sled_id = path_uuid(request, "sled_id")
        return answer(await host.submit(lambda ticket: SledGot(ticket, sled_id)))

    async def ping(_request: web.BaseRequest) -> Answer:
        return Answer(200, {"status": "ok"})

    async def put_disk(request: web.BaseRequest) -> Answer:
        path_uuid(request, "disk_id")
        await read_json(request, _ANY)
        raise Refused(400, "removed due to incorrect abstraction", "InvalidRequest")

    async def gone(_request: web.BaseRequest) -> Answer:
        raise Refused(410, "Gone", "Gone")

    async def get_probes(request: web.BaseRequest) -> Answer:
        path_uuid(request, "sled")
        return await gone(request)

    async def post_producer(request: web.BaseRequest) -> Answer:
        await read_json(request, _PRODUCER)
        return Answer(201, {"lease_duration": {"secs": LEASE_S, "nanos": 0}})

    async def put_switch(request: web.BaseRequest) -> Answer:
        path_uuid(request, "switch_id")
        await read_json(request, _SWITCH)
        return Answer(200, {})

    table = Table()
    _add_upstairs(table, host)
    table.add("PUT", "/vmms/{propolis_id}", put_vmm)
    table.add("POST", "/sled-agents/{sled_id}", post_sled)
    table.add("GET", "/sled-agents/{sled_id}", get_sled)
    table.add("GET", "/v1/ping", ping)
    table.add("PUT", "/disks/{disk_id}", put_disk)
    table.add("GET", "/probes/{sled}", get_probes)
    table.add("POST", "/refresh-vpc-routes", gone)
    table.add("POST", "/metrics/producers", post_producer)
    table.add("PUT", "/switch/{switch_id}", put_switch)
    return table.server(faulty(host), versioned)


def _add_upstairs(table: Table, host: Host) -> None:
    """What upstairs tell of repairs (SR 7.10)."""

    async def repair_start(request: web.BaseRequest) -> Answer:
        upstairs_id, body = path_uuid(request, "upstairs"), await read_json(request, _REPAIR_START)
        host.upstairs.started(upstairs_id, body)
        return Answer(204)

    async def repair_finish(request: web.BaseRequest) -> Answer:
        upstairs_id, body = path_uuid(request, "upstairs"), await read_json(request, _REPAIR_FINISH)
        host.upstairs.finished(upstairs_id, body)
        return Answer(204)

    async def repair_progress(request: web.BaseRequest) -> Answer:
        upstairs_id, repair_id = path_uuid(request, "upstairs"), path_uuid(request, "repair")
        body = await read_json(request, _REPAIR_PROGRESS)
        host.upstairs.progressed(upstairs_id, repair_id, body)
        return Answer(204)

    async def downstairs(request: web.BaseRequest) -> Answer:
        upstairs_id, downstairs_id = path_uuid(request, "upstairs"), path_uuid(request, "downstairs")
        body, kind = await read_json(request, _STOPPED), request.path.rpartition("/")[2]
        host.upstairs.downstairs(kind, upstairs_id, downstairs_id, body)
        return Answer(204)

    upstairs = "/crucible/0/upstairs/{upstairs}"
    table.add("POST", upstairs + "/repair-start", repair_start)
    table.add("POST", upstairs + "/repair-finish", repair_finish)
    table.add("POST", upstairs + "/repair/{repair}/progress", repair_progress)
    table.add("POST", upstairs + "/downstairs/{downstairs}/stopped", downstairs)
    table.add("POST", upstairs + "/downstairs/{downstairs}/stop-request", downstairs)


def make_lockstep_server(host: Host) -> Server:
    """Of the lockstep API: the hand-off of a rack and an operator's migrate. Unversioned."""

    async def rack_complete(request: web.BaseRequest) -> Answer:
        rack_id = path_uuid(request, "rack_id")
        body = await read_json(request, _HANDOFF)
        host.rack.complete(rack_id, body)
        return Answer(204)

    async def migrate(request: web.BaseRequest) -> Answer:
        instance_id = path_uuid(request, "instance_id")
        body = await read_json(request, _MIGRATE)
        return answer(await host.submit(lambda ticket: Migrate(ticket, instance_id, body.dst_sled_id)))

    table = Table()
    table.add("PUT", "/racks/{rack_id}/initialization-complete", rack_complete)
    table.add("POST", "/instances/{instance_id}/migrate", migrate)
    return table.server(faulty(host))
