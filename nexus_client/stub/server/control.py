"""The control API of the Nexus model: instances, sleds, tasks, faults. Not an API of Nexus. Shell.

`OPERATIONS`, at the end, is all of it; statuses and messages of refused actions are those of NX 4.2, and `detail`
says what Nexus would only write into its log.

Read before: dropshot/control_api.py, stub/server/control_answers.py, stub/server/counters.py, stub/server/metrics.py.
Read next: stub/server/serve.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import attrs

from nexus_client.dropshot.answers import Refused, Unanswered, bad_request
from nexus_client.dropshot.body import BODY_MAX
from nexus_client.dropshot.control import Guard
from nexus_client.dropshot.control_api import ControlApi
from nexus_client.dropshot.json import parse_uuid
from nexus_client.dropshot.observing import exposition, observed, probed
from nexus_client.dropshot.operations import About, Answered, Call, Named, Operation, number, uuid_in_path
from nexus_client.stub.contract import (
    ArmCrash,
    AttachIp,
    CheckConsole,
    CreateInstance,
    Delete,
    DetachIp,
    Dropped,
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
from nexus_client.stub.server.control_answers import SCHEMAS
from nexus_client.stub.server.control_bodies import CrashBody, CreateBody, IpBody, MigrateBody, RestartBody, SledBody
from nexus_client.stub.server.faults import Fault
from nexus_client.stub.server.host import Host
from nexus_client.stub.server.metrics import families
from nexus_client.stub.server.wire import NOT_NEXUS
from nexus_client.types import time_of

EVENTS_PAGE_MAX: Final = 1000


class Control:
    """Handlers; `restart(down_ms)` is the server's."""

    def __init__(self, host: Host, restart: Callable[[int], None]) -> None:
        self._host = host
        self._restart = restart

    async def _ask(self, make: Callable[[int], Input]) -> Answered:
        outcome = await self._host.submit(make)
        if isinstance(outcome, Dropped):
            raise Unanswered
        error = outcome.body
        if isinstance(error, ErrorBody):
            raise Refused(outcome.status, error.message, error.error_code, detail=error.detail)
        return Answered(error, outcome.status)

    def _instance_id(self, call: Call[Any]) -> UUID:
        """By id or by name; an unknown name is a 404 with the words of an unknown id."""
        key = call.text("instance")
        try:
            return parse_uuid(key)
        except ValueError:
            row = self._host.nexus.find(key)
            if row is None:
                raise _nothing(f'not found: instance with name "{key}"') from None
            return row.id

    async def readyz(self, _call: Call[None]) -> Answered:
        """While the model is down, as after a crash, its internal API takes no connections."""
        return probed(ready=self._host.nexus.up)

    async def metrics(self, _call: Call[None]) -> Answered:
        return exposition("sim-nexus", families(self._host))

    # -- instances

    async def create(self, call: Call[CreateBody]) -> Answered:
        body = call.body
        cooldown = body.auto_restart_cooldown_ms
        return await self._ask(
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

    async def list_instances(self, _call: Call[None]) -> Answered:
        return await self._ask(ListInstances)

    async def get_instance(self, call: Call[None]) -> Answered:
        instance_id = self._instance_id(call)
        return await self._ask(lambda ticket: GetInstance(ticket, instance_id))

    async def delete(self, call: Call[None]) -> Answered:
        instance_id = self._instance_id(call)
        return await self._ask(lambda ticket: Delete(ticket, instance_id))

    async def start(self, call: Call[None]) -> Answered:
        instance_id = self._instance_id(call)
        return await self._ask(lambda ticket: Start(ticket, instance_id))

    async def stop(self, call: Call[None]) -> Answered:
        instance_id = self._instance_id(call)
        return await self._ask(lambda ticket: Stop(ticket, instance_id))

    async def reboot(self, call: Call[None]) -> Answered:
        instance_id = self._instance_id(call)
        return await self._ask(lambda ticket: Reboot(ticket, instance_id))

    async def migrate(self, call: Call[MigrateBody]) -> Answered:
        instance_id = self._instance_id(call)
        return await self._ask(lambda ticket: Migrate(ticket, instance_id, call.body.dst_sled_id))

    async def attach_ip(self, call: Call[IpBody]) -> Answered:
        instance_id = self._instance_id(call)
        return await self._ask(lambda ticket: AttachIp(ticket, instance_id, call.body.kind, call.body.address))

    async def detach_ip(self, call: Call[IpBody]) -> Answered:
        instance_id = self._instance_id(call)
        return await self._ask(lambda ticket: DetachIp(ticket, instance_id, call.body.kind, call.body.address))

    async def console(self, call: Call[None]) -> Answered:
        instance_id = self._instance_id(call)
        return await self._ask(lambda ticket: CheckConsole(ticket, instance_id))

    # -- sleds, tasks, faults

    async def list_sleds(self, _call: Call[None]) -> Answered:
        return await self._ask(ListSleds)

    async def set_sled(self, call: Call[SledBody]) -> Answered:
        sled_id, body = call.uuid("sled_id"), call.body
        return await self._ask(lambda ticket: SetSled(ticket, sled_id, body.policy, body.state, body.power))

    async def run_task(self, call: Call[None]) -> Answered:
        name = call.text("task")
        try:
            task = Task(name)
        except ValueError:
            known = ", ".join(task.value for task in Task)
            raise _nothing(f"no task {name!r}; there are {known}") from None
        return await self._ask(lambda ticket: RunTask(ticket, task))

    async def list_faults(self, _call: Call[None]) -> dict[str, Any]:
        rules = self._host.faults.rules.items()
        return {"items": [{"id": number} | attrs.asdict(fault) for number, fault in rules]}

    async def add_fault(self, call: Call[Fault]) -> dict[str, int]:
        try:
            return {"id": self._host.faults.add(call.body)}
        except ValueError as error:
            raise bad_request(str(error)) from None

    async def drop_fault(self, call: Call[None]) -> None:
        number = call.number("fault")
        if not self._host.faults.remove(number):
            raise _nothing(f"no fault {number}")

    async def clear_faults(self, _call: Call[None]) -> None:
        self._host.faults.clear()

    async def restart(self, call: Call[RestartBody]) -> None:
        self._restart(call.body.down_ms)

    async def arm_crash(self, call: Call[CrashBody]) -> Answered:
        return await self._ask(lambda ticket: ArmCrash(ticket, call.body.point))

    # -- reading

    async def state(self, _call: Call[None]) -> dict[str, Any]:
        return self._host.state()

    async def events(self, call: Call[None]) -> dict[str, Any]:
        """Events after number `after`; `next` is what to ask for next time."""
        after = call.number("after")
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
        return {"items": items, "next": found[-1][0] if found else after}

    async def ping(self, _call: Call[None]) -> dict[str, str]:
        return {"status": "ok"}


def _nothing(what: str) -> Refused:
    """Unknown names read like unknown ids."""
    return Refused(404, what, "ObjectNotFound")


ABOUT: Final = About(
    "Control API of the Nexus model in sim-sled",
    "This is not Nexus, and this is not an API of Nexus: it is a model of Nexus for tests and demonstrations.",
    schemas=SCHEMAS,
)
_SLED: Final = uuid_in_path("sled_id", "a sled")
_FAULT: Final = number("fault", "number of a fault", most=2**64 - 1, where="path")
_AFTER: Final = number("after", "number of the last event that is known", most=2**64 - 1)
_ONE: Final = "/v1/instances/{instance}"

OPERATIONS: Final[tuple[Operation[Control, Any], ...]] = (
    *observed(ready=Control.readyz, metrics=Control.metrics),
    Operation("GET", "/v1/ping", Control.ping, "Always ok", Named("Ping")),
    Operation("GET", "/v1/state", Control.state, "Whether Nexus is up, its rules, its running and stuck sagas",
              Named("State")),
    Operation("GET", "/v1/events", Control.events, "Everything that happened after event number `after`",
              Named("Events"), parameters=(_AFTER,)),
    Operation("GET", "/v1/instances", Control.list_instances, "All undeleted instances", Named("Instances")),
    Operation("POST", "/v1/instances", Control.create, "Create, and start unless told otherwise", Named("Instance"),
              201, body=CreateBody),
    Operation("GET", _ONE, Control.get_instance, "One instance with records and full timeline",
              Named("FullInstance")),
    Operation("DELETE", _ONE, Control.delete, "Delete", None, 204),
    Operation("POST", f"{_ONE}/start", Control.start, "Start", Named("Instance"), 202),
    Operation("POST", f"{_ONE}/stop", Control.stop, "Stop", Named("Instance"), 202),
    Operation("POST", f"{_ONE}/reboot", Control.reboot, "Reboot", Named("Instance"), 202),
    Operation("POST", f"{_ONE}/migrate", Control.migrate, "Move to another sled", Named("Instance"),
              body=MigrateBody),
    Operation("GET", f"{_ONE}/console", Control.console, "May a user connect to the serial console now",
              Named("Console")),
    Operation("POST", f"{_ONE}/external-ips", Control.attach_ip, "Attach an IP or a subnet", Named("Instance"), 202,
              body=IpBody),
    Operation("DELETE", f"{_ONE}/external-ips", Control.detach_ip, "Detach an IP or a subnet", None, 204,
              body=IpBody),
    Operation("GET", "/v1/sleds", Control.list_sleds, "Registered sleds and their VMMs", Named("Sleds")),
    Operation("PUT", "/v1/sleds/{sled_id}", Control.set_sled, "Policy, state and power of a sled", Named("Sled"),
              parameters=(_SLED,), body=SledBody),
    Operation("POST", "/v1/tasks/{task}", Control.run_task, "Run a background task now", None, 204),
    Operation("GET", "/v1/faults", Control.list_faults, "Faults of the internal API", Named("Faults")),
    Operation("POST", "/v1/faults", Control.add_fault, "Add a fault", Named("FaultId"), 201, body=Fault),
    Operation("DELETE", "/v1/faults", Control.clear_faults, "Remove all faults", None, 204),
    Operation("DELETE", "/v1/faults/{fault}", Control.drop_fault, "Remove a fault", None, 204,
              parameters=(_FAULT,)),
    Operation("POST", "/v1/restart", Control.restart, "Crash, stay away, come back", None, 202, body=RestartBody,
              optional=True),
    Operation("POST", "/v1/arm-crash", Control.arm_crash, "Crash when this point is reached next", None, 204,
              body=CrashBody),
)  # fmt: skip
"""Everything this API has: routes, page and document come from here (docs/how-to-add.md)."""


def control_api(host: Host, restart: Callable[[int], None], guard: Guard) -> ControlApi[Control]:
    """The API of one model; `restart(down_ms)` is its server's."""
    return ControlApi(
        Control(host, restart),
        OPERATIONS,
        guard,
        ABOUT,
        body_max=BODY_MAX,
        headers={"x-sim-sled": NOT_NEXUS},
        documents=("/openapi.json", "/v1/openapi.json"),  # where it was before all control APIs had one
    )
