"""The three control APIs, served in this process, each with a story that asks every operation of its table."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import attrs
from support.propolis.wire import by_spec

from nexus_client.dropshot.control import Guard
from nexus_client.dropshot.control_api import ControlApi
from nexus_client.dropshot.openapi import document
from nexus_client.dropshot.text import SocketAddress
from nexus_client.stub import contract as nx
from nexus_client.stub.server import control as nexus_control
from nexus_client.stub.server.serve import NexusServer
from propolis_stub.server.control import control_api
from propolis_stub.server.serve import start
from sim_sled.companions.servers import Ports
from sim_sled.core.config import Hardware, SledConfig
from sim_sled.daemon.control import Control, serve_control
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options
from sim_sled.daemon.snapshot import Snapshots
from sim_sled.language.pacer import PresetPacer

SLED, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
NOBODY = uuid.UUID(int=99)
WITHIN_S = 60
OBSERVED = ("/healthz", "/readyz", "/metrics")


@attrs.define(eq=False)
class Served:
    """One control API: its table, its document, and somebody who asks it."""

    api: ControlApi[Any]
    url: str
    http: aiohttp.ClientSession
    document: dict[str, Any] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.document = json.loads(json.dumps(document(self.api.about, self.api.operations)))

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, Any]:
        """Status, content type and content; JSON is read. `body`: bytes go as they are."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            headers.setdefault("content-type", "application/json")
        async with self.http.request(method, self.url + path, data=data, headers=headers) as answer:
            content: Any = await answer.text()
            if answer.content_type == "application/json" and method != "HEAD":
                content = json.loads(content)
            return answer.status, answer.content_type, content


RULES = """
version: 1
name: two-rules
fleet: {sleds: 2}
rules:
  - {name: notes, when: {manual: go}, do: {note: gone}}
  - {name: holds, for: {hostname: held}, when: {state: running}, do: {hold: {publish: running}}}
"""


@asynccontextmanager
async def a_daemon():
    """Two sleds with everything beside them, and a Nexus model."""
    async with NexusServer() as nexus, aiohttp.ClientSession() as http:
        options = Options(nexus=nexus.internal, pacer=PresetPacer("instant"), companions=Ports(), shutdown_wait_s=0.2)
        sleds = [SledConfig(each, "[::1]:0", hardware=Hardware(zpools=2)) for each in (SLED, OTHER)]
        running = Daemon(sleds, options)
        await running.start()
        try:
            for event in running.reporting.registered.values():
                await event.wait()

            async def scale(sleds: int) -> None:
                if sleds != 2:
                    raise ValueError("two sleds are enough")

            control = Control(running, scale=scale)
            listener = await serve_control(control, SocketAddress("::1", 0))
            try:
                yield DaemonServed(control.api, f"http://{listener.address}", http, nexus, running)
            finally:
                await listener.close()
        finally:
            await running.stop()


@attrs.define(eq=False)
class DaemonServed(Served):
    """With what its story needs besides."""

    nexus: NexusServer
    daemon: Daemon

    async def _vm(self, name: str) -> None:
        await self.nexus.host.submit(lambda ticket: nx.CreateInstance(ticket, name, name, 1, 2**30))
        await self.daemon.look.expect(name, "running", within_s=WITHIN_S)

    async def story(self):
        """(method, template, path, body) of requests that succeed, in this order."""
        for name in ("web-1", "web-2", "web-3", "web-4"):
            await self._vm(name)
        for path in ("/", "/openapi.json", "/ready", *OBSERVED, "/version", "/sleds", "/vmms", "/events"):
            yield "GET", path, path, None
        for path in ("/page", "/page/words.json"):
            yield "GET", path, path, None
        for name in ("main.js", "page.css", "icon.svg"):
            yield "GET", "/page/{file}", f"/page/{name}", None
        yield "GET", "/page/feed", "/page/feed?once=1", None
        yield "GET", "/sleds/{sled_id}/networking", f"/sleds/{SLED}/networking", None
        beside = "/sleds/{sled_id}/companions"
        dataset = str(next(iter(self.daemon.listening.companion_addresses()[SLED].crucible)))
        for fault in (
            {"refuse": "region_list", "times": 2},
            {"set": {"born": "tombstoned"}, "server": "crucible", "dataset_id": dataset},
        ):
            yield "POST", beside, f"/sleds/{SLED}/companions", fault
        yield "GET", beside, f"/sleds/{SLED}/companions", None
        facts = {"time_synchronized": False, "pool_sizes": {"1": "3GiB"}, "crucible": {"create": "2s"}}
        yield "POST", "/sleds/{sled_id}/facts", f"/sleds/{SLED}/facts", {"set": facts}
        yield "PUT", "/rules", "/rules", {"scenario": RULES}
        yield "GET", "/rules", "/rules", None
        yield "GET", "/scenario", "/scenario", None
        yield "POST", "/fire/{name}", "/fire/go", None
        await self._vm("held")
        yield "POST", "/release/{name}", "/release/holds", None
        yield "POST", "/scale", "/scale", {"sleds": 2}
        for path, body in (
            ("/pause", None), ("/step", None), ("/step", {"steps": 2}), ("/until", {"within_ms": 10}),
            ("/until", {"within_ms": 0, "who": "web-1", "state": "destroyed"}), ("/resume", None),
        ):  # fmt: skip
            yield "POST", path, path, body
        yield "GET", "/time", "/time", None
        yield "GET", "/snapshot", "/snapshot", None
        yield "POST", "/restore", "/restore", {"snapshot": (await Snapshots(self.daemon).take()).text}
        yield "GET", "/vmms/{who}", "/vmms/web-1", None
        yield "GET", "/vmms/{who}/log", "/vmms/v1/log", None
        yield "GET", "/vmms/{who}/story", "/vmms/web-1/story", None
        yield "GET", "/vmms/{who}/expect", "/vmms/web-1/expect?state=running&within_ms=1000", None
        yield "GET", "/vmms/{who}/expect", "/vmms/web-1/expect?state=destroyed&within_ms=1", None
        for who, fault in (
            ("web-1", {"state": "failed"}),
            ("web-2", {"kill_propolis": {"restart": True}}),
            ("web-3", {"forget_vmm": True}),
            ("web-4", {"guest": "halt"}),
        ):
            yield "POST", "/vmms/{who}/inject", f"/vmms/{who}/inject", fault
        yield "GET", "/vmms/{who}", "/vmms/web-3", None


@asynccontextmanager
async def a_nexus():
    """The model, with two sleds that answer."""
    async with a_daemon() as sleds:
        nexus = sleds.nexus
        api = nexus_control.control_api(nexus.host, nexus.restart, Guard(None))
        yield NexusServed(api, f"http://{nexus.control}", sleds.http, nexus)


@attrs.define(eq=False)
class NexusServed(Served):
    nexus: NexusServer

    async def _reaches(self, state: str) -> None:
        async with asyncio.timeout(WITHIN_S):
            while (await self.ask("GET", "/v1/instances/web-1"))[2]["instance"]["run_state"] != state:
                await asyncio.sleep(0)

    async def _is_up(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not (await self.ask("GET", "/v1/state"))[2]["up"]:
                await asyncio.sleep(0)

    async def story(self):
        """As of a daemon."""
        one, here = "/v1/instances/{instance}", "/v1/instances/web-1"
        for path in ("/", "/openapi.json", "/v1/openapi.json", *OBSERVED, "/v1/ping", "/v1/state", "/v1/sleds"):
            yield "GET", path, path, None
        body = {"name": "web-1", "ncpus": 1, "memory": 2**30, "sled_id": str(SLED), "start": False}
        yield "POST", "/v1/instances", "/v1/instances", body
        await self._reaches("stopped")
        yield "POST", f"{one}/start", f"{here}/start", None
        await self._reaches("running")
        for path in ("", "/console"):
            yield "GET", one + path, here + path, None
        yield "POST", f"{one}/external-ips", f"{here}/external-ips", {"kind": "ephemeral"}
        yield "DELETE", f"{one}/external-ips", f"{here}/external-ips", {"kind": "ephemeral"}
        yield "POST", f"{one}/migrate", f"{here}/migrate", {"dst_sled_id": str(OTHER)}
        await self._reaches("running")
        yield "GET", one, here, None
        yield "POST", f"{one}/reboot", f"{here}/reboot", None
        await self._reaches("running")
        yield "GET", "/v1/instances", "/v1/instances", None
        yield "GET", "/v1/sleds", "/v1/sleds", None
        yield "POST", f"{one}/stop", f"{here}/stop", None
        await self._reaches("stopped")
        yield "DELETE", one, here, None
        yield "GET", "/v1/events", "/v1/events?after=3", None
        yield "PUT", "/v1/sleds/{sled_id}", f"/v1/sleds/{OTHER}", {"policy": "expunged"}
        yield "POST", "/v1/tasks/{task}", "/v1/tasks/instance_watcher", None
        for _ in range(2):
            yield "POST", "/v1/faults", "/v1/faults", {"do": "delay", "match": "/nowhere"}
        yield "GET", "/v1/faults", "/v1/faults", None
        yield "DELETE", "/v1/faults/{fault}", "/v1/faults/1", None
        yield "DELETE", "/v1/faults", "/v1/faults", None
        for body in (None, {"down_ms": 1}):
            yield "POST", "/v1/restart", "/v1/restart", body
            await self._is_up()
        yield "POST", "/v1/arm-crash", "/v1/arm-crash", {"point": "after_commit"}


@asynccontextmanager
async def a_propolis():
    """One VMM that has its instance."""
    running = await start(SocketAddress("::1", 0), SocketAddress("::1", 0), base_paces=False)
    try:
        async with aiohttp.ClientSession() as http:
            url, version = f"http://{running.api.address}/instance", {"api-version": "5.0.0"}
            async with http.put(url, json=by_spec(), headers=version) as answer:
                assert answer.status == 201, await answer.text()
            async with http.put(f"{url}/state", json="Run", headers=version) as answer:
                assert answer.status == 204, await answer.text()
            yield PropolisServed(control_api(running.host), f"http://{running.control.address}", http)
    finally:
        await running.close()


class PropolisServed(Served):
    async def story(self):
        """As of a daemon."""
        for path in ("/", "/openapi.json", *OBSERVED, "/control", "/control/vm"):
            yield "GET", path, path, None
        for name, body in (
            ("hazards", ["migrate_in_start"]),
            ("knobs", {"vcr_result": "started", "failing_disks": {}, "protocols": None}),
            ("pace", {"finish": {"after_us": None}, "rundown": None}),
        ):
            yield "PUT", f"/control/{name}", f"/control/{name}", body
        yield "GET", "/control/vm", "/control/vm", None
        for name, body in (
            ("serial", {"text": "hello", "times": 2}),
            ("hold", None),
            ("step", None),
            ("release", None),
            ("guest", {"event": "reset"}),
            ("settle", None),
            ("settle", {"fail": False}),
            ("crash", None),
        ):
            yield "POST", f"/control/{name}", f"/control/{name}", body


ALL = {"daemon": a_daemon, "nexus": a_nexus, "propolis": a_propolis}
