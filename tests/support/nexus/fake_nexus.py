"""A Nexus for end-to-end tests: remembers what it acknowledged, and misbehaves as told."""

import asyncio
from collections import deque
from typing import Any, Self

import msgspec
from aiohttp import web


class FakeNexus:
    """`answers` are given to the next PUTs (a status, or "hang"); afterwards `status` to all."""

    def __init__(self) -> None:
        self.acked: list[tuple[str, dict[str, Any]]] = []
        self.seen: list[tuple[str, dict[str, Any], int | str]] = []
        self.sleds: dict[str, dict[str, Any]] = {}
        self.answers: deque[int | str] = deque()
        self.status: int | str = 204
        self.post_status = 204
        self.address = ""
        self._port = 0
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._hanging: asyncio.Event = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def up(self) -> None:
        """Listen, on the same port as before."""
        self._hanging = asyncio.Event()
        app = web.Application()
        app.router.add_put("/vmms/{id}", self._put)
        app.router.add_get("/sled-agents/{id}", self._get_sled)
        app.router.add_post("/sled-agents/{id}", self._post_sled)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "::1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]
        self.address = f"[::1]:{self._port}"

    async def down(self) -> None:
        """Stop listening and drop every connection."""
        runner, self._runner = self._runner, None
        self._hanging.set()
        if runner is not None:
            for site in list(runner.sites):
                await site.stop()
            for _ in range(3):  # what was just accepted becomes a connection that the runner knows, and closes
                await asyncio.sleep(0)
            await runner.cleanup()

    async def until(self, condition: Any, timeout_s: float = 20.0) -> Any:
        """Wait until `condition()` is true; returns its value."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(condition)
        return condition()

    def states(self, vmm: Any) -> list[str]:
        """What was acknowledged of one VMM."""
        return [body["vmm_state"]["state"] for who, body in self.acked if who == str(vmm)]

    async def heard(self, vmm: Any, state: str) -> None:
        await self.until(lambda: state in self.states(vmm))

    async def _put(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read())
        answer = self.answers.popleft() if self.answers else self.status
        who = request.match_info["id"]
        self.seen.append((who, body, answer))
        await self._tell()
        if answer == "hang":
            await self._hanging.wait()
            return web.Response(status=503)
        if answer == 204:
            self.acked.append((who, body))
            await self._tell()
        return web.Response(status=int(answer))

    async def _get_sled(self, request: web.Request) -> web.Response:
        info = self.sleds.get(request.match_info["id"])
        return web.json_response(info) if info else web.json_response({"message": "Not Found"}, status=404)

    async def _post_sled(self, request: web.Request) -> web.Response:
        if self.post_status == 204:
            self.sleds[request.match_info["id"]] = msgspec.json.decode(await request.read())
            await self._tell()
        return (
            web.json_response({"message": "no such rack"}, status=self.post_status)
            if (self.post_status != 204)
            else web.Response(status=204)
        )

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
