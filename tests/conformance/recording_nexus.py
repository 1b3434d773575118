"""A Nexus that says 204 to everything a sled tells it, and remembers what it was told. Nothing of a model."""

import asyncio
from typing import Any, Self
from uuid import UUID

import attrs
import msgspec
from aiohttp import web

_THINKING_S = 0.003
"""How long a PUT takes: long enough that two at a time for one VMM would be seen to overlap."""


@attrs.frozen
class Notification:
    vmm: str
    body: dict[str, Any]

    @property
    def state(self) -> str:
        return self.body["vmm_state"]["state"]

    @property
    def gen(self) -> int:
        return self.body["vmm_state"]["gen"]


@attrs.define(eq=False)
class RecordingNexus:
    """`notifications` are the acknowledged ones, in order; `faults` is what no sled may do."""

    address: str = ""
    notifications: list[Notification] = attrs.field(factory=list)
    faults: list[str] = attrs.field(factory=list)
    registered: list[dict[str, Any]] = attrs.field(factory=list)
    _busy: set[str] = attrs.field(factory=set)
    _news: asyncio.Event = attrs.field(factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_put("/vmms/{id}", self._put_vmm)
        app.router.add_get("/sled-agents/{id}", self._get_sled)
        app.router.add_post("/sled-agents/{id}", self._post_sled)
        self._runner = web.AppRunner(app, shutdown_timeout=1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "::1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"[{host}]:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def news(self, timeout_s: float) -> None:
        """Until something more was notified, or the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return

    def of(self, vmm: str) -> list[Notification]:
        return [notification for notification in self.notifications if notification.vmm == vmm]

    async def _put_vmm(self, request: web.Request) -> web.Response:
        vmm = request.match_info["id"]
        if vmm != str(UUID(vmm)):
            self.faults.append(f"notification of {vmm}, which is not how a UUID is written")
        if request.headers.get("api-version") != "1.0.0":
            self.faults.append(f"notification with api-version {request.headers.get('api-version')!r}")
        if vmm in self._busy:
            self.faults.append(f"two notifications of {vmm} at a time")
        self._busy.add(vmm)
        body = msgspec.json.decode(await request.read())
        await asyncio.sleep(_THINKING_S)
        self._busy.discard(vmm)
        self.notifications.append(Notification(vmm, body))
        self._news.set()
        self._news = asyncio.Event()
        return web.Response(status=204)

    async def _get_sled(self, _request: web.Request) -> web.Response:
        return web.json_response({"request_id": "x", "message": "Not Found"}, status=404)

    async def _post_sled(self, request: web.Request) -> web.Response:
        self.registered.append(msgspec.json.decode(await request.read()))
        return web.Response(status=204)
