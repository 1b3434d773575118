"""The one fake Nexus of all tests on sockets: remembers what sleds tell it, misbehaves as told. Nothing of a model.

It also watches what no sled may do, whatever the test is about (`faults`, empty at its end).
"""

import asyncio
from collections import deque
from typing import Any, NamedTuple, Self
from uuid import UUID

import msgspec
from aiohttp import web


class Notification(NamedTuple):
    """A report of one VMM."""

    vmm: str
    body: dict[str, Any]

    @property
    def state(self) -> str:
        return self.body["vmm_state"]["state"]

    @property
    def gen(self) -> int:
        return self.body["vmm_state"]["gen"]


class FakeNexus:
    """`answers` are given to the next reports (a status, or "hang"); afterwards `status` to all, `post_status` to
    registrations. `thinking_s` passes before an answer: two reports of one VMM at a time would be seen to overlap.
    """

    def __init__(self, *, thinking_s: float = 0.0) -> None:
        self.acked: list[Notification] = []
        self.seen: list[tuple[str, dict[str, Any], int | str]] = []  # every report, with what is answered
        self.sleds: dict[str, dict[str, Any]] = {}  # what GET knows
        self.posted: list[dict[str, Any]] = []  # every registration, taken or not
        self.faults: list[str] = []
        self.answers: deque[int | str] = deque()
        self.status: int | str = 204
        self.post_status = 204
        self.thinking_s = thinking_s
        self.address = ""
        self._port = 0
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._hanging: asyncio.Event = asyncio.Event()
        self._busy: set[str] = set()

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.down()
        if kind is None:
            assert not self.faults

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

    async def news(self, timeout_s: float) -> None:
        """Until something more was told, or the time is over."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait()
        except TimeoutError:
            return

    def of(self, vmm: Any) -> list[Notification]:
        """What was acknowledged of one VMM."""
        return [told for told in self.acked if told.vmm == str(vmm)]

    def states(self, vmm: Any) -> list[str]:
        return [told.state for told in self.of(vmm)]

    async def heard(self, vmm: Any, state: str) -> None:
        await self.until(lambda: state in self.states(vmm))

    async def _put(self, request: web.Request) -> web.Response:
        vmm = request.match_info["id"]
        if vmm != str(UUID(vmm)):
            self.faults.append(f"a report of {vmm}, which is not how a UUID is written")
        if request.headers.get("api-version") != "1.0.0":
            self.faults.append(f"a report with api-version {request.headers.get('api-version')!r}")
        body = msgspec.json.decode(await request.read())
        answer = self.answers.popleft() if self.answers else self.status
        self.seen.append((vmm, body, answer))
        await self._tell()
        if answer == "hang":  # the sled may give it up and send another
            await self._hanging.wait()
            return self._refusal(503)
        if self.thinking_s:
            if vmm in self._busy:
                self.faults.append(f"two reports of {vmm} at a time")
            self._busy.add(vmm)
            await asyncio.sleep(self.thinking_s)  # time passing is what is tested
            self._busy.discard(vmm)
        if answer != 204:
            return self._refusal(int(answer))
        self.acked.append(Notification(vmm, body))
        await self._tell()
        return web.Response(status=204)

    async def _get_sled(self, request: web.Request) -> web.Response:
        info = self.sleds.get(request.match_info["id"])
        return web.json_response(info) if info else self._refusal(404)

    async def _post_sled(self, request: web.Request) -> web.Response:
        info = msgspec.json.decode(await request.read())
        self.posted.append(info)
        if self.post_status == 204:
            self.sleds[request.match_info["id"]] = info
        await self._tell()
        return web.Response(status=204) if self.post_status == 204 else self._refusal(self.post_status)

    @staticmethod
    def _refusal(status: int) -> web.Response:
        return web.json_response({"request_id": "r", "message": "no such rack"}, status=status)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
