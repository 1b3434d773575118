"""A Crucible agent over HTTP: API 1.0.0, the header may be absent (SR 5.1, SA 5.1).

Read before: companions/asking.py, core/crucible/agent.py. Read next: companions/servers.py.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from nexus_client.dropshot.json import Json
from nexus_client.dropshot.text import U32, U64, SockAddr, Uuid
from sim_sled.companions.asking import ask
from sim_sled.core.companions import Server, Where
from sim_sled.core.crucible.agent import Agent
from sim_sled.core.crucible.values import Region, RegionRequest, RunningSnapshot, Snapshot
from sim_sled.http.app import Api
from sim_sled.http.asking import NO_CONTENT, ok
from sim_sled.http.bodies_network import Struct
from sim_sled.http.routes import Answer, Call, Route, Router

VERSION: Final = 1
BODY_MAX: Final = 10 * 1024
"""Bytes, as the real agent: a region with certificates fits."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class CreateRegion(Struct, kw_only=True):
    id: Uuid
    block_size: U64
    extent_size: U64
    extent_count: U32
    encrypted: bool
    cert_pem: str | None = None
    key_pem: str | None = None
    root_pem: str | None = None
    source: SockAddr | None = None


_CREATE: Final = Json(CreateRegion)


def api(dataset: UUID) -> Api:
    """The API of the agent of `dataset`."""
    agent = _Handlers(Where(Server.CRUCIBLE, dataset))
    regions = "/crucible/0/regions"
    region = regions + "/{region_id}"
    snapshot = region + "/snapshots/{snapshot}"
    routes = (
        Route("GET", regions, agent.region_list, op="region_list"),
        Route("POST", regions, agent.region_create, _CREATE, op="region_create"),
        Route("GET", region, agent.region_get, op="region_get"),
        Route("DELETE", region, agent.region_delete, op="region_delete"),
        Route("GET", region + "/snapshots", agent.region_get_snapshots, op="region_get_snapshots"),
        Route("GET", snapshot, agent.region_get_snapshot, op="region_get_snapshot"),
        Route("DELETE", snapshot, agent.region_delete_snapshot, op="region_delete_snapshot"),
        Route("POST", snapshot + "/run", agent.region_run_snapshot, op="region_run_snapshot"),
        Route("DELETE", snapshot + "/run", agent.region_delete_running_snapshot, op="region_delete_running_snapshot"),
    )
    return Api(Router(routes), VERSION, unversioned=True, body_max=BODY_MAX, oldest=VERSION)  # SR 5.1


class _Handlers:
    """The operations of one agent."""

    def __init__(self, where: Where) -> None:
        self._where = where

    async def region_list(self, call: Call) -> Answer:
        regions = await ask(call, self._where, Agent.all)
        return ok([_region(each) for each in regions])

    async def region_create(self, call: Call) -> Answer:
        body: CreateRegion = call.body
        request = RegionRequest(
            id=body.id.uuid,
            block_size=body.block_size,
            extent_size=body.extent_size,
            extent_count=body.extent_count,
            encrypted=body.encrypted,
            cert_pem=body.cert_pem,
            key_pem=body.key_pem,
            root_pem=body.root_pem,
            source=None if body.source is None else str(body.source),
        )
        return ok(_region(await ask(call, self._where, Agent.create, request)))

    async def region_get(self, call: Call) -> Answer:
        return ok(_region(await ask(call, self._where, Agent.get, str(call.path[0]))))

    async def region_delete(self, call: Call) -> Answer:
        await ask(call, self._where, Agent.delete, str(call.path[0]))
        return NO_CONTENT

    async def region_get_snapshots(self, call: Call) -> Answer:
        region_id = str(call.path[0])
        snapshots, running = await ask(call, self._where, Agent.snapshots, region_id)
        return ok(
            {
                "snapshots": [_snapshot(each) for each in snapshots],
                "running_snapshots": {each.name: _running(region_id, each) for each in running},
            }
        )

    async def region_get_snapshot(self, call: Call) -> Answer:
        return ok(_snapshot(await ask(call, self._where, Agent.snapshot, str(call.path[0]), call.path[1])))

    async def region_delete_snapshot(self, call: Call) -> Answer:
        await ask(call, self._where, Agent.delete_snapshot, str(call.path[0]), call.path[1])
        return NO_CONTENT

    async def region_run_snapshot(self, call: Call) -> Answer:
        region_id = str(call.path[0])
        return ok(_running(region_id, await ask(call, self._where, Agent.run_snapshot, region_id, call.path[1])))

    async def region_delete_running_snapshot(self, call: Call) -> Answer:
        await ask(call, self._where, Agent.stop_snapshot, str(call.path[0]), call.path[1])
        return NO_CONTENT


def _region(region: Region) -> dict[str, Any]:
    request = region.request
    return {
        "id": str(request.id),
        "block_size": request.block_size,
        "extent_size": request.extent_size,
        "extent_count": request.extent_count,
        "encrypted": request.encrypted,
        "cert_pem": request.cert_pem,
        "key_pem": request.key_pem,
        "root_pem": request.root_pem,
        "source": request.source,
        "port_number": region.port,
        "state": region.state.value,
        "read_only": request.source is not None,
    }


def _snapshot(snapshot: Snapshot) -> dict[str, Any]:
    created = _EPOCH + timedelta(microseconds=snapshot.created_us)
    return {"name": snapshot.name, "created": created.isoformat(timespec="microseconds").replace("+00:00", "Z")}


def _running(region_id: str, running: RunningSnapshot) -> dict[str, Any]:
    return {"id": region_id, "name": running.name, "port_number": running.port, "state": running.state.value}
