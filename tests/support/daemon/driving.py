"""A daemon on real sockets between a fake Nexus and a client that sends what Nexus sends."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import aiohttp
from support.daemon.sled_http import NEWEST, put, register_body
from support.nexus.fake_nexus import FakeNexus
from support.rack.driving import SLED_A, V1, ScriptedPacer, address_of, instance_of

from sim_sled.core.config import SledConfig
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options


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
