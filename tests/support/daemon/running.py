"""A daemon with one sled on loopback, and a client for its whole API."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import attrs

from sim_sled.core.config import Hardware, SledConfig
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options

SLED = UUID("2dd26437-062c-4ece-8f50-53c8f0b951a7")


@attrs.define(eq=False)
class Running:
    """`ask` gives status, headers and body of one request."""

    daemon: Daemon
    session: aiohttp.ClientSession
    sled_id: UUID = SLED

    @property
    def base(self) -> str:
        return f"http://{self.daemon.addresses[self.sled_id]}"

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        version: str = "48.0.0",
        data: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        if isinstance(data, bytes):
            data = io.BytesIO(data)  # aiohttp warns of large ones as they are
        sent = {"api-version": version} | (headers or {})
        async with self.session.request(method, self.base + path, json=body, data=data, headers=sent) as answer:
            return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read())

    async def json(self, method: str, path: str, body: Any = None, *, version: str = "48.0.0") -> Any:
        """The body of a success."""
        got = await self.ask(method, path, body, version=version)
        assert got.status < 300, got
        return got.json


@attrs.frozen
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


@asynccontextmanager
async def running(
    *,
    state_dir: Path | None = None,
    hardware: Hardware | None = None,
    sleds: tuple[UUID, ...] = (SLED,),
    **config: Any,
) -> AsyncIterator[Running]:
    """A daemon that nobody registers; it is stopped at the end, and has on the disk then what it would keep."""
    made = [SledConfig(each, "[::1]:0", hardware=hardware or Hardware(zpools=2), **config) for each in sleds]
    daemon = Daemon(made, Options(nexus="[::1]:9", register=False, state_dir=state_dir, shutdown_wait_s=0))
    await daemon.start()
    # as they are: `%2F` in a path is no separator, and a range is not asked for compressed
    async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=["accept-encoding"]) as session:
        try:
            yield Running(daemon, session, sleds[0])
        finally:
            await daemon.stop()
            if state_dir is not None:
                assert _unwritten(daemon, state_dir) == []


def _unwritten(daemon: Daemon, state_dir: Path) -> list[str]:
    """Areas that have changed since they were written last."""
    found = []
    for sled_id, sled in daemon.rack.sleds.items():
        for kind, area in sled.estate.made.items():
            file = state_dir / str(sled_id) / "facts" / f"{kind.kept_as}.json"
            if file.exists() and json.loads(file.read_text()) != json.loads(json.dumps(area.dump())):
                found.append(f"{sled_id} {kind.__name__}")
    return found
