"""The control API of the Nexus model: instances, sleds, tasks, faults (issue 4). Not an API of Nexus. Shell.

Its own OpenAPI document is at `GET /v1/openapi.json` (control_openapi.py); statuses and messages of refused actions
are those of NX 4.2, and `detail` says what Nexus would only write into its log.

Read before: dropshot/control.py. Read next: stub/server/serve.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

import attrs
from aiohttp import web

from nexus_client.dropshot.answers import Refused, bad_request
from nexus_client.dropshot.control import Guard, number
from nexus_client.dropshot.json import Json, parse_uuid
from nexus_client.stub.contract import (
    ArmCrash,
    AttachIp,
    CheckConsole,
    CreateInstance,
    Delete,
    DetachIp,
    ErrorBody,
    GetInstance,
    Input,
    ListInstances,
    ListSleds,
    Migrate,
    Reboot,
    RunTask,
    SetSled,
    Start,
    Stop,
    Task,
)
from nexus_client.stub.server.control_bodies import CrashBody, CreateBody, IpBody, MigrateBody, RestartBody, SledBody
from nexus_client.stub.server.control_openapi import OPERATIONS, document
from nexus_client.stub.server.faults import Fault
from nexus_client.stub.server.host import Host
from nexus_client.stub.server.wire import (
    REQUEST_ID,
    VARIABLES,
    Handler,
    Table,
    answer,
    error_response,
    json_response,
    manners,
    path_uuid,
    read_json,
)
from nexus_client.types import time_of

PAGE: Final = (
    "This is not Nexus. It is a model of Nexus for tests and demonstrations, part of sim-sled.\n\n"
    + "".join(f"{each.method.upper():6} {each.path:40} {each.summary}\n" for each in OPERATIONS)
)
EVENTS_PAGE_MAX: Final = 1000


_CREATE: Final = Json(CreateBody)
_MIGRATE: Final = Json(MigrateBody)
_IP: Final = Json(IpBody)
_SLED: Final = Json(SledBody)
_FAULT: Final = Json(Fault)
_RESTART: Final = Json(RestartBody)
_CRASH: Final = Json(CrashBody)


class Control:
    """Handlers; `restart(down_ms)` is the server's."""

    def __init__(self, host: Host, restart: Callable[[int], None]) -> None:
        self._host = host
        self._restart = restart

    async def _ask(self, request: web.Request, make: Callable[[int], Input]) -> web.Response:
        return answer(await self._host.submit(make), request, detail=True)

    def _instance_id(self, request: web.Request) -> UUID:
        """By id or by name; an unknown name is a 404 with the words of an unknown id."""
        key = request[VARIABLES]["instance"]
        try:
            return parse_uuid(key)
        except ValueError:
            row = self._host.nexus.find(key)
            if row is None:
                raise Refused(404, f'not found: instance with name "{key}"') from None
            return row.id

    # -- instances

    async def create(self, request: web.Request) -> web.Response:
        body = await read_json(request, _CREATE)
        cooldown = body.auto_restart_cooldown_ms
        return await self._ask(
            request,
            lambda ticket: CreateInstance(
                ticket=ticket,
                name=body.name,
                hostname=body.name if body.hostname is None else body.hostname,
                description=body.description,
                ncpus=body.ncpus,
                memory=body.memory,
                start=body.start,
                auto_restart_policy=body.auto_restart_policy,
                auto_restart_cooldown_us=None if cooldown is None else cooldown * 1000,
                uses_local_storage=body.uses_local_storage,
                sled_id=body.sled_id,
                project=body.project,
                silo=body.silo,
            ),
        )

    async def list_instances(self, request: web.Request) -> web.Response:
        return await self._ask(request, ListInstances)

    async def get_instance(self, request: web.Request) -> web.Response:
        instance_id = self._instance_id(request)
        return await self._ask(request, lambda ticket: GetInstance(ticket, instance_id))

    async def delete(self, request: web.Request) -> web.Response:
        instance_id = self._instance_id(request)
        return await self._ask(request, lambda ticket: Delete(ticket, instance_id))

    async def act(self, request: web.Request) -> web.Response:
        instance_id = self._instance_id(request)
        verbs: dict[str, type[Start | Stop | Reboot]] = {"start": Start, "stop": Stop, "reboot": Reboot}
        verb = verbs[request.path.rpartition("/")[2]]
        return await self._ask(request, lambda ticket: verb(ticket, instance_id))

    async def migrate(self, request: web.Request) -> web.Response:
        instance_id = self._instance_id(request)
        body = await read_json(request, _MIGRATE)
        return await self._ask(request, lambda ticket: Migrate(ticket, instance_id, body.dst_sled_id))

    async def change_ip(self, request: web.Request) -> web.Response:
        instance_id = self._instance_id(request)
        body = await read_json(request, _IP)
        verb = AttachIp if request.method == "POST" else DetachIp
        return await self._ask(request, lambda ticket: verb(ticket, instance_id, body.kind, body.address))

    async def console(self, request: web.Request) -> web.Response:
        instance_id = self._instance_id(request)
        return await self._ask(request, lambda ticket: CheckConsole(ticket, instance_id))

    # -- sleds, tasks, faults

    async def list_sleds(self, request: web.Request) -> web.Response:
        return await self._ask(request, ListSleds)

    async def set_sled(self, request: web.Request) -> web.Response:
        sled_id = path_uuid(request, "sled_id")
        body = await read_json(request, _SLED)
        return await self._ask(request, lambda ticket: SetSled(ticket, sled_id, body.policy, body.state, body.power))

    async def run_task(self, request: web.Request) -> web.Response:
        name = request[VARIABLES]["task"]
        try:
            task = Task(name)
        except ValueError:
            known = ", ".join(task.value for task in Task)
            raise Refused(404, f"no task {name!r}; there are {known}") from None
        return await self._ask(request, lambda ticket: RunTask(ticket, task))

    async def list_faults(self, _request: web.Request) -> web.Response:
        rules = self._host.faults.rules.items()
        return json_response({"items": [{"id": number} | attrs.asdict(fault) for number, fault in rules]})

    async def add_fault(self, request: web.Request) -> web.Response:
        fault = await read_json(request, _FAULT)
        try:
            number = self._host.faults.add(fault)
        except ValueError as error:
            raise bad_request(str(error)) from None
        return json_response({"id": number}, 201)

    async def drop_fault(self, request: web.Request) -> web.Response:
        name = request[VARIABLES]["fault"]
        if not self._host.faults.remove(number(name, "a fault")):
            raise Refused(404, f"no fault {name}")
        return web.Response(status=204)

    async def clear_faults(self, _request: web.Request) -> web.Response:
        self._host.faults.clear()
        return web.Response(status=204)

    async def restart(self, request: web.Request) -> web.Response:
        body = await read_json(request, _RESTART) if request.can_read_body else RestartBody()
        self._restart(body.down_ms)
        return web.Response(status=202)

    async def arm_crash(self, request: web.Request) -> web.Response:
        body = await read_json(request, _CRASH)
        return await self._ask(request, lambda ticket: ArmCrash(ticket, body.point))

    # -- reading

    async def state(self, _request: web.Request) -> web.Response:
        return json_response(self._host.state())

    async def events(self, request: web.Request) -> web.Response:
        """Events after number `after`; `next` is what to ask for next time."""
        after = number(request.query.get("after", "0"), "after")
        found = [(number, line) for number, line in self._host.events if number > after][:EVENTS_PAGE_MAX]
        items = [
            {
                "number": number,
                "time": time_of(line.at_us),
                "what": line.what,
                "text": line.text,
                "instance_id": line.instance_id,
                "propolis_id": line.propolis_id,
            }
            for number, line in found
        ]
        return json_response({"items": items, "next": found[-1][0] if found else after})

    async def page(self, _request: web.Request) -> web.Response:
        return web.Response(text=PAGE)

    async def openapi(self, _request: web.Request) -> web.Response:
        return json_response(document())

    async def ping(self, _request: web.Request) -> web.Response:
        return json_response({"status": "ok"})


@web.middleware
async def detailed_not_found(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Unknown names read like unknown ids."""
    try:
        return await handler(request)
    except Refused as bad:
        if bad.status == 404:
            return error_response(404, ErrorBody("ObjectNotFound", bad.message), request[REQUEST_ID])
        raise


def make_control_app(host: Host, restart: Callable[[int], None], guard: Guard) -> web.Application:
    control = Control(host, restart)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        guard.check(request)
        return await handler(request)

    one = "/v1/instances/{instance}"
    handlers: dict[tuple[str, str], Handler] = {
        ("get", "/"): control.page,
        ("get", "/v1/openapi.json"): control.openapi,
        ("get", "/v1/ping"): control.ping,
        ("get", "/v1/state"): control.state,
        ("get", "/v1/events"): control.events,
        ("get", "/v1/instances"): control.list_instances,
        ("post", "/v1/instances"): control.create,
        ("get", one): control.get_instance,
        ("delete", one): control.delete,
        ("post", f"{one}/start"): control.act,
        ("post", f"{one}/stop"): control.act,
        ("post", f"{one}/reboot"): control.act,
        ("post", f"{one}/migrate"): control.migrate,
        ("get", f"{one}/console"): control.console,
        ("post", f"{one}/external-ips"): control.change_ip,
        ("delete", f"{one}/external-ips"): control.change_ip,
        ("get", "/v1/sleds"): control.list_sleds,
        ("put", "/v1/sleds/{sled_id}"): control.set_sled,
        ("post", "/v1/tasks/{task}"): control.run_task,
        ("get", "/v1/faults"): control.list_faults,
        ("post", "/v1/faults"): control.add_fault,
        ("delete", "/v1/faults"): control.clear_faults,
        ("delete", "/v1/faults/{fault}"): control.drop_fault,
        ("post", "/v1/restart"): control.restart,
        ("post", "/v1/arm-crash"): control.arm_crash,
    }
    table = Table()
    for operation in OPERATIONS:
        table.add(operation.method.upper(), operation.path, handlers.pop((operation.method, operation.path)))
    assert not handlers, f"operations that the table does not have: {list(handlers)}"
    return table.app(manners, guarded, detailed_not_found)
