"""The fake sleds of world.py on real sockets, and a client of the Nexus model that checks every answer."""

import json
from contextlib import AsyncExitStack
from io import BytesIO
from urllib.parse import unquote
from uuid import UUID

import aiohttp
import attrs
import msgspec
from aiohttp import web
from support.nexus.world import FakeSled, link, sled_id, sled_info
from support.wire.documents import answer_schema, fits

from nexus_client.stub.contract import (
    Answered,
    AttachSubnet,
    DeleteExternalIp,
    DetachSubnet,
    ErrorAnswered,
    GetVmmState,
    IpKind,
    PutExternalIp,
    PutVmmState,
    ReadInventory,
    RegisterVmm,
    UnregisterVmm,
)
from nexus_client.stub.server.serve import NexusServer
from nexus_client.types import TERMINAL, Asked, InstanceMigrationTargetParams, VmmStateRequested

VERSION = {"api-version": "1.0.0"}


@attrs.define(eq=False)
class SledServer:
    """One fake sled with an HTTP face; `requests` is what Nexus sent: (method, path, headers, body)."""

    number: int
    rack: "HttpRack"
    fake: FakeSled = attrs.field(init=False)
    requests: list = attrs.field(factory=list)
    answers: dict = attrs.field(factory=dict)
    runner: object = None
    address: str = ""

    def __attrs_post_init__(self):
        self.fake = FakeSled(sled_id(self.number), self.rack)

    async def up(self):
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.handle)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "::1", 0).start()
        self.address = f"[::1]:{self.runner.addresses[0][1]}"

    async def handle(self, request):
        body = await request.json() if request.can_read_body else None
        self.requests.append((request.method, request.raw_path, request.headers.copy(), body))
        canned = self.answers.get((request.method, request.path.rpartition("/")[2])) or self.answers.get("*")
        if canned is not None:
            return await canned(request)
        op = self.op(request, body)
        outcome = Answered() if isinstance(op, (AttachSubnet, DetachSubnet, ReadInventory)) else self.fake.answer(op)
        if isinstance(outcome, ErrorAnswered):
            error = {"request_id": str(UUID(int=1)), "message": outcome.message, "error_code": outcome.error_code}
            return web.json_response(error, status=outcome.status)
        if outcome.body is None:
            return web.json_response({}) if isinstance(op, ReadInventory) else web.Response(status=204)
        return web.Response(body=msgspec.json.encode(outcome.body), content_type="application/json")

    @staticmethod
    def op(request, body):
        parts = request.raw_path.strip("/").split("/")
        if parts[0] == "inventory":
            return ReadInventory()
        vmm, what = UUID(parts[1]), parts[2] if len(parts) > 2 else ""
        if what == "state":
            if request.method == "GET":
                return GetVmmState(vmm)
            value = body["state"].get("value")
            params = None if value is None else InstanceMigrationTargetParams(**value)
            return PutVmmState(vmm, VmmStateRequested(Asked(body["state"]["type"]), params))
        if what == "external-ip":
            verb = PutExternalIp if request.method == "PUT" else DeleteExternalIp
            return verb(vmm, IpKind(body["type"]), body["value"])
        if what == "attached-subnets":
            return AttachSubnet(vmm, body["subnet"]) if body else DetachSubnet(vmm, unquote(parts[3]))
        if request.method == "DELETE":
            return UnregisterVmm(vmm)
        runtime = body["vmm_runtime"]
        migration = body.get("migration_id")
        return RegisterVmm(
            vmm,
            UUID(body["instance_id"]),
            body["propolis_addr"],
            runtime["state"],
            runtime["gen"],
            0,
            None if migration is None else UUID(migration),
            None,
        )


@attrs.define(eq=False)
class HttpRack:
    """A NexusServer with fake sleds around it; also the `world` of those sleds."""

    nexus: NexusServer
    sleds: dict = attrs.field(factory=dict)
    session: aiohttp.ClientSession = None
    now_us: int = 1_700_000_000_000_000
    real_agents: bool = True

    @classmethod
    async def make(cls, stack: AsyncExitStack, sleds=2, **options):
        nexus = await stack.enter_async_context(NexusServer(**options))
        rack = cls(nexus)
        rack.session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        )
        rack.session._retry_connection = False  # a request whose connection was closed is not repeated
        for number in range(1, sleds + 1):
            sled = SledServer(number, rack)
            await sled.up()
            stack.push_async_callback(sled.runner.cleanup)
            rack.sleds[sled.fake.id] = sled
            info = sled_info(number, sa_address=sled.address)
            status, _ = await rack.internal("POST", f"/sled-agents/{sled.fake.id}", info)
            assert status == 204
        return rack

    # the world of the fake sleds
    def link_migration(self, target, src_addr):
        return link(self.sleds_of(), target, src_addr)

    def sleds_of(self):
        return [sled.fake for sled in self.sleds.values()]

    async def request(self, base, method, path, body=None, headers=None):
        raw = body if isinstance(body, bytes | None) else msgspec.json.encode(body)
        data = None if raw is None else BytesIO(raw)
        sent = {"content-type": "application/json"} | (headers or {})
        async with self.session.request(method, f"http://{base}{path}", data=data, headers=sent) as answer:
            raw = await answer.read()
            assert answer.headers["x-sim-sled"] == "this is not Nexus"
            UUID(answer.headers["x-request-id"])
            value = json.loads(raw) if answer.content_type == "application/json" and raw else raw.decode()
            if answer.status >= 400:
                assert value["request_id"] == answer.headers["x-request-id"]
            return answer.status, value

    async def internal(self, method, path, body=None, headers=VERSION):
        """A request to the internal API, its answer checked against the OpenAPI document."""
        status, value = await self.request(self.nexus.internal, method, path, body, headers)
        template = {"vmms": "/vmms/{propolis_id}", "sled-agents": "/sled-agents/{sled_id}"}.get(path.split("/")[1])
        if template is not None:
            schema = answer_schema("nexus-internal/1.0.0", method.lower(), template, status)
            assert (schema is None) == (value == "")
            assert schema is None or not fits("nexus-internal/1.0.0", schema, value)
        return status, value

    async def control(self, method, path, body=None, template=None, headers=None):
        """A request to the control API, its answer checked against its own document."""
        status, value = await self.request(self.nexus.control, method, path, body, headers)
        schema = answer_schema("control", method.lower(), template or self.template(path), status)
        assert (schema is None) == (value == "")
        assert schema is None or not fits("control", schema, value), fits("control", schema, value)
        return status, value

    @staticmethod
    def template(path):
        parts = path.split("?")[0].split("/")
        named = {"instances": "{instance}", "sleds": "{sled_id}", "faults": "{fault}", "tasks": "{task}"}
        if len(parts) > 3 and parts[2] in named:
            parts[3] = named[parts[2]]
        return "/".join(parts)

    async def settle(self):
        """All VMMs do what they plan and report it, each report until Nexus has taken it."""
        busy = True
        while busy:
            busy = False
            for sled in self.sleds.values():
                for vmm in list(sled.fake.vmms.values()):
                    if vmm.unacknowledged:
                        busy = True
                        await self.deliver(sled, vmm)
                    elif vmm.plan:
                        busy = True
                        sled.fake.step(vmm.id)

    async def deliver(self, sled, vmm):
        status, value = await self.internal("PUT", f"/vmms/{vmm.id}", vmm.body(self.now_us))
        assert status == 204, value
        vmm.unacknowledged = False
        if vmm.state in TERMINAL:
            sled.fake.vmms.pop(vmm.id, None)

    async def public(self, name):
        return (await self.control("GET", f"/v1/instances/{name}"))[1]["instance"]["run_state"]

    async def running(self, name="web", **body):
        status, value = await self.control("POST", "/v1/instances", {"name": name} | body)
        assert status == 201, value
        await self.settle()
        assert await self.public(name) == "running"
        return value["id"]

    async def vmm(self, name):
        """(sled server, fake VMM) of the active VMM."""
        key = UUID((await self.control("GET", f"/v1/instances/{name}"))[1]["record"]["active_propolis_id"])
        return next((sled, sled.fake.vmms[key]) for sled in self.sleds.values() if key in sled.fake.vmms)
