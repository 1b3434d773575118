"""The wire arm: the bodies of cases.py against a real server, over sockets and its control API.

Nothing here sleeps to let something happen: it waits for a generation at the monitor, or until the control API tells
what it waits for (`until`), which is a round trip each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import Callable
from typing import Any, Self
from uuid import UUID, uuid5

import aiohttp
from multidict import CIMultiDict
from support.propolis.arms import NO_INSTANCE, denied

from nexus_client.dropshot.text import SocketAddress
from propolis_stub.errors import Reason
from propolis_stub.guest_events import GuestEvent
from propolis_stub.server.serve import Running, start
from propolis_stub.types import RequestKind
from propolis_stub.waiting import Pace, Point

PATIENCE_S = 60.0
VERSION = "5.0.0"
NOBODY = "127.0.0.1:9"  # the discard port: refused at once
NAMESPACE = UUID(int=0x57AB)

PROPERTIES = {
    "id": "11111111-1111-4111-8111-111111111111",
    "name": "vm",
    "description": "a VM of a test",
    "metadata": {
        "project_id": "22222222-2222-4222-8222-222222222222",
        "silo_id": "33333333-3333-4333-8333-333333333333",
        "sled_id": "44444444-4444-4444-8444-444444444444",
        "sled_model": "sim",
        "sled_revision": 1,
        "sled_serial": "S1",
    },
}
VCR = {
    "type": "volume",
    "id": "55555555-5555-4555-8555-555555555555",
    "block_size": 512,
    "read_only_parent": None,
    "sub_volumes": [
        {
            "type": "region",
            "block_size": 512,
            "blocks_per_extent": 1,
            "extent_count": 1,
            "gen": 3,
            "opts": {
                "id": "66666666-6666-4666-8666-666666666666",
                "target": ["[::1]:1001", "[::1]:1002", "[::1]:1003"],
                "lossy": False,
                "read_only": False,
                "key": "a2V5",
            },
        }
    ],
}


def raised(vcr: dict[str, Any], by: int = 1) -> dict[str, Any]:
    """With the generation of its region raised."""
    (region,) = vcr["sub_volumes"]
    return {**vcr, "sub_volumes": [{**region, "gen": region["gen"] + by}]}


def retargeted(vcr: dict[str, Any], *at: int, port: int = 2001) -> dict[str, Any]:
    """With other targets at these places."""
    (region,) = vcr["sub_volumes"]
    targets = [f"[::1]:{port + i}" if i in at else old for i, old in enumerate(region["opts"]["target"])]
    return {**vcr, "sub_volumes": [{**region, "opts": {**region["opts"], "target": targets}}]}


def pci(device: int) -> dict[str, int]:
    return {"bus": 0, "device": device, "function": 0}


def make_spec(**more: Any) -> dict[str, Any]:
    """A valid specification with one Crucible disk called `disk`."""
    spec: dict[str, Any] = {
        "board": {"chipset": {"type": "i440_fx", "value": {"enable_pcie": False}}, "cpus": 4, "memory_mb": 1024},
        "components": {
            "disk-device": {
                "type": "nvme_disk",
                "component": {"backend_id": "disk", "pci_path": pci(16), "serial_number": [0] * 20},
            },
            "disk": {
                "type": "crucible_storage_backend",
                "component": {"readonly": False, "request_json": json.dumps(VCR)},
            },
            "com1": {"type": "serial_port", "component": {"num": "com1"}},
        },
    }
    spec["components"].update(more)
    return spec


def by_spec(spec: dict[str, Any] | None = None) -> dict[str, Any]:
    value = {"spec": make_spec() if spec is None else spec}
    return {"properties": PROPERTIES, "init": {"method": "Spec", "value": value}}


class Either(str):
    """204: queued or ignored, a client cannot tell."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other in {"queued", "ignored", "204"}

    def __hash__(self) -> int:
        return hash("204")


def spell_told(told: dict[str, Any]) -> str:
    text = f"{told['gen']} {told['state']}"
    for direction in ("in", "out"):
        status = told["migration"][f"migration_{direction}"]
        if status is not None:
            text += f" {direction}={status['state']}"
    return text


class WireNet:
    """Servers and clients of one test, and their end."""

    def __init__(self) -> None:
        self.arms: list[WireArm] = []
        self.session: aiohttp.ClientSession | None = None
        self.websockets: list[aiohttp.ClientWebSocketResponse] = []
        self.ids = 0

    async def __aenter__(self) -> Self:
        # One connection per request: what a crash has cut is never used again.
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        self.session._retry_connection = False  # else a GET that a crash has cut is sent again, silently
        return self

    async def __aexit__(self, *_: object) -> None:
        for arm in self.arms:
            await arm.close()
        assert self.session is not None
        await self.session.close()
        for ws in self.websockets:  # else they are collected some day, and the test of that moment fails for it
            await ws.close()

    async def arm(self) -> WireArm:
        arm = WireArm(
            self, await start(SocketAddress("127.0.0.1", 0), SocketAddress("127.0.0.1", 0), base_paces=False)
        )
        self.arms.append(arm)
        return arm

    def new_id(self) -> UUID:
        self.ids += 1
        return uuid5(NAMESPACE, str(self.ids))


class WireArm:
    def __init__(self, net: WireNet, running: Running) -> None:
        self.net = net
        self.running = running
        self.version = VERSION  # of requests that do not say otherwise
        self.address = running.api.address
        assert running.control is not None
        self.control_address = running.control.address
        self.ensuring: asyncio.Task[str] | None = None
        self.monitors: dict[str, asyncio.Task[str]] = {}
        self.reconfigures: dict[int, asyncio.Task[str]] = {}

    async def close(self) -> None:
        for task in (self.ensuring, *self.monitors.values(), *self.reconfigures.values()):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError):
                    await task
        await self.running.close()

    # --- requests ---

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        version: str | None = "the arm's",
        data: bytes | None = None,
    ) -> tuple[int, Any, CIMultiDict[str]]:
        """Status, decoded body, headers."""
        assert self.net.session is not None
        if version == "the arm's":
            version = self.version
        headers = {} if version is None else {"api-version": version}
        if data is None and body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            headers["content-type"] = "application/json"
        async with self.net.session.request(
            method, f"http://{self.address}{path}", data=None if data is None else io.BytesIO(data), headers=headers
        ) as answer:
            raw = await answer.read()
            return answer.status, json.loads(raw) if raw else None, answer.headers.copy()

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        assert self.net.session is not None
        async with self.net.session.request(
            method, f"http://{self.control_address}/control/{path}", json=body
        ) as answer:
            raw = await answer.read()
            assert answer.status in {200, 204}, raw
            return json.loads(raw) if raw else None

    async def look(self) -> dict[str, Any]:
        return dict(await self.control("GET", "vm"))

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                view = await self.look()
                if holds(view):
                    return view
                await asyncio.sleep(0.005)  # what it waits for comes by itself, or when the server looks

    # --- the arm ---

    async def another(self) -> WireArm:
        return await self.net.arm()

    async def ensure_begin(self) -> None:
        await self._ensure_begin(by_spec())

    async def _ensure_begin(self, body: dict[str, Any]) -> None:
        task = asyncio.ensure_future(self._put_instance(body))
        self.ensuring = task
        await self.until(lambda view: task.done() or view["level"] in {"WaitingForInit", "Active"})

    async def _put_instance(self, body: dict[str, Any]) -> str:
        try:
            status, _, _ = await self.request("PUT", "/instance", body)
        except aiohttp.ClientError:
            return "connection lost"
        return str(status)

    async def ensure_end(self) -> str:
        assert self.ensuring is not None
        return await asyncio.wait_for(self.ensuring, PATIENCE_S)

    async def ensure(self) -> str:
        return await self._put_instance(by_spec())

    def _target_body(self, source: Any, *, bad_replacement: bool) -> dict[str, Any]:
        replace = {
            "no-such-component": {
                "component": "CrucibleStorageBackend",
                "spec": {"readonly": False, "request_json": "{}"},
            }
        }
        value = {
            "migration_id": str(self.net.new_id()),
            "src_addr": NOBODY if source is None else source.address,
            "replace_components": replace if bad_replacement else {},
        }
        return {"properties": PROPERTIES, "init": {"method": "MigrationTarget", "value": value}}

    async def target_begin(self, source: Any, *, bad_replacement: bool = False) -> None:
        await self._ensure_begin(self._target_body(source, bad_replacement=bad_replacement))

    async def ensure_target(self, source: Any, *, bad_replacement: bool = False) -> str:
        return await self._put_instance(self._target_body(source, bad_replacement=bad_replacement))

    async def put(self, kind: RequestKind) -> str:
        status, body, _ = await self.request("PUT", "/instance/state", kind.value)
        return self._spell(status, body)

    def _spell(self, status: int, body: Any) -> str:
        if status == 204:
            return Either("204")
        if status == 403:
            prefix = "instance state change not allowed: "
            assert body["message"] == "Forbidden"
            assert body["error_code"].startswith(prefix)
            return denied(Reason(body["error_code"].removeprefix(prefix)).code_name)
        if status == 424:
            assert body["error_code"] == "NoInstance"
            return NO_INSTANCE
        return str(status)

    async def migrate_to(self, target: Any) -> str:
        before = (await self.look())["peers"]
        await target.target_begin(self)
        task = target.ensuring
        view = await self.until(lambda view: task.done() or view["peers"] != before or view["level"] != "Active")
        refused = task.done() and task.result() == "500" and view["peers"] == before
        return "dropped" if refused else "accepted"

    async def websocket(self, path: str, **headers: str) -> aiohttp.ClientWebSocketResponse:
        assert self.net.session is not None
        ws = await self.net.session.ws_connect(
            f"ws://{self.address}{path}", headers={"api-version": self.version, **headers}, autoping=False
        )
        self.net.websockets.append(ws)
        return ws

    async def migrate_raw(self, offer: str | None) -> str:
        ws = await self.websocket(f"/instance/migrate/{self.net.new_id()}/start")
        try:
            if offer is not None:
                with contextlib.suppress(ConnectionError):
                    await ws.send_str(offer)
                async with asyncio.timeout(PATIENCE_S):
                    message = await ws.receive()
                if message.type is aiohttp.WSMsgType.TEXT:
                    return "accepted"
            return "dropped"
        finally:
            await ws.close()

    async def reconfigure(self, ticket: int, disk: str = "disk") -> None:
        waiting = (await self.look())["reconfigures_waiting"]
        port = 3000 + 10 * ticket  # each replaces the same target by another
        body = {"vcr_json": json.dumps(retargeted(VCR, 0, port=port))}

        async def put() -> str:
            status, answer, _ = await self.request("PUT", f"/instance/disk/{disk}/vcr", body)
            return self._spell(status, answer)

        task = asyncio.ensure_future(put())
        self.reconfigures[ticket] = task
        await self.until(lambda view: task.done() or view["reconfigures_waiting"] > waiting)

    async def reconfigured(self, ticket: int) -> str:
        return await asyncio.wait_for(self.reconfigures[ticket], PATIENCE_S)

    async def guest(self, event: GuestEvent, at_us: int | None = None) -> None:
        await self.control("POST", "guest", {"event": event.value, "at_us": at_us})

    async def pace(self, point: Point, pace: Pace) -> None:
        await self.control("PUT", "pace", {point.value: {"after_us": pace.after_us, "fail": pace.fail}})

    async def hold(self) -> None:
        await self.control("POST", "hold")

    async def go(self) -> None:
        await self.control("POST", "release")

    async def step(self) -> None:
        await self.control("POST", "step")

    async def settle(self, *, fail: bool = False) -> None:
        await self.control("POST", "settle", {"fail": fail})

    async def crash(self) -> None:
        await self.control("POST", "crash")

    async def strict(self) -> None:
        names = (await self.control("GET", ""))["hazards"]
        await self.control("PUT", "hazards", names)

    async def reached(self, point: Point) -> None:
        await self.until(lambda view: point.value in (view["waits_for"] or ""))

    async def told(self, expected: str) -> None:
        wanted = expected.split(", ")
        first, last = (int(wanted[end].split()[0]) for end in (0, -1))
        await asyncio.wait_for(self._monitor(last), PATIENCE_S)
        log = [spell_told(told) for told in (await self.look())["publications"]]
        assert log[first - 1 :] == wanted

    async def _monitor(self, gen: int) -> str:
        status, body, _ = await self.request("GET", "/instance/state-monitor", {"gen": gen})
        if status == 410:
            assert body["error_code"] == "NoInstance"
        return f"200 {spell_told(body)}" if status == 200 else str(status)

    async def ask(self, name: str, gen: int) -> None:
        waiting = (await self.look())["monitors_waiting"]
        task = asyncio.ensure_future(self._monitor(gen))
        self.monitors[name] = task
        await self.until(lambda view: task.done() or view["monitors_waiting"] > waiting)

    async def answered(self, name: str) -> str | None:
        task = self.monitors[name]
        async with asyncio.timeout(PATIENCE_S):
            while not task.done():
                pending = sum(not other.done() for other in self.monitors.values())
                if (await self.look())["monitors_waiting"] == pending and not task.done():
                    return None
        return task.result()

    async def get(self) -> str:
        status, body, _ = await self.request("GET", "/instance")
        return f"200 {body['instance']['state']}" if status == 200 else str(status)
