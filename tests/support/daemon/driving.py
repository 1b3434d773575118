"""A daemon on real sockets between a fake Nexus and a client that sends what Nexus sends."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from typing import Any

import aiohttp
import attrs
from aiohttp import web
from support.daemon.sled_http import NEWEST, put, register_body
from support.rack.driving import SLED_A, V1, ScriptedPacer, address_of, instance_of

from sim_sled.core.config import SledConfig
from sim_sled.daemon.daemon import Daemon, Options

WAIT_S = 10.0
"""Only a broken daemon needs it: everything here happens within milliseconds."""


@attrs.define(eq=False)
class FakeNexus:
    """`status` answers whatever sleds PUT or POST; `known` is what GET tells of a sled."""

    status: int = 204
    address: str = ""
    told: list[tuple[str, str, int]] = attrs.field(factory=list)  # VMM, state, status answered
    posted: list[dict[str, Any]] = attrs.field(factory=list)
    known: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    news: asyncio.Condition = attrs.field(factory=asyncio.Condition)

    def of(self, propolis_id: Any) -> list[str]:
        return [state for vmm, state, status in self.told if vmm == str(propolis_id) and status == 204]

    async def until(self, happened: Any) -> None:
        async with asyncio.timeout(WAIT_S), self.news:
            await self.news.wait_for(happened)

    async def _put(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        async with self.news:
            status = self.status
            self.told.append((request.match_info["id"], body["vmm_state"]["state"], status))
            self.news.notify_all()
        return self._answer(status)

    async def _get(self, request: web.Request) -> web.Response:
        info = self.known.get(request.match_info["id"])
        return web.json_response(info) if info else self._answer(404)

    async def _post(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        async with self.news:
            self.posted.append(body)
            if self.status == 204:
                self.known[request.match_info["id"]] = body
            self.news.notify_all()
        return self._answer(self.status)

    def _answer(self, status: int) -> web.Response:
        if status == 204:
            return web.Response(status=204)
        return web.json_response({"request_id": "r", "message": "not like this"}, status=status)


@contextlib.asynccontextmanager
async def fake_nexus():
    """A `FakeNexus` on a port of its own."""
    nexus = FakeNexus()
    app = web.Application()
    app.router.add_put("/vmms/{id}", nexus._put)
    app.router.add_get("/sled-agents/{id}", nexus._get)
    app.router.add_post("/sled-agents/{id}", nexus._post)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "::1", 0).start()
    nexus.address = f"[::1]:{runner.addresses[0][1]}"
    try:
        yield nexus
    finally:
        await runner.cleanup()


class Client:
    """Requests as Nexus sends them to the sleds of one daemon."""

    def __init__(self, daemon: Daemon, session: aiohttp.ClientSession) -> None:
        self.daemon = daemon
        self.session = session

    async def ask(self, method: str, path: str, body: Any = None, *, sled: Any = SLED_A) -> tuple[int, Any]:
        url = f"http://{self.daemon.addresses[sled]}{path}"
        raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        data = None if raw is None else io.BytesIO(raw)
        headers = {"api-version": NEWEST} | ({"content-type": "application/json"} if data else {})
        async with self.session.request(method, url, data=data, headers=headers) as answer:
            raw = await answer.read()
            return answer.status, json.loads(raw) if raw else None

    async def register(self, propolis_id: Any = V1, *, sled: Any = SLED_A, **fields: Any) -> tuple[int, Any]:
        return await self.ask("PUT", f"/vmms/{propolis_id}", body_of(propolis_id, **fields), sled=sled)

    async def put_state(self, state: Any, propolis_id: Any = V1, *, sled: Any = SLED_A) -> tuple[int, Any]:
        asked = {"type": state} if isinstance(state, str) else state
        return await self.ask("PUT", f"/vmms/{propolis_id}/state", {"state": asked}, sled=sled)


def body_of(propolis_id: Any, **fields: Any) -> dict[str, Any]:
    """A registration as the newest Nexus sends it; `fields` by path, with `__` for a dot."""
    body = register_body(48)
    put(body, "instance_id", str(instance_of(propolis_id)))
    put(body, "propolis_addr", address_of(propolis_id))
    for path, value in fields.items():
        put(body, path.replace("__", "."), value)
    return body


@contextlib.asynccontextmanager
async def running_daemon(nexus: FakeNexus, *sleds: SledConfig, pacer: Any = None, **options: Any):
    """A daemon that runs, and a client of its sleds; sled A if none is named."""
    pacer = pacer or ScriptedPacer(1_000)
    configs = list(sleds) or [SledConfig(SLED_A)]
    daemon = Daemon(configs, Options(nexus.address, pacer=pacer, shutdown_wait_s=0.2, **options))
    await daemon.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Client(daemon, session)
    finally:
        await daemon.stop()
