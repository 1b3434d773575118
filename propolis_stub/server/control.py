"""Control for tests, on a listener of its own: what no client of the real server can do (docs/propolis.md).

`OPERATIONS`, at the end, is all of it. Bound beyond loopback it needs a token (`Authorization: Bearer TOKEN`),
because whoever reaches it owns the VM.

Read before: nexus_client/dropshot/control_api.py, server/counters.py, server/host.py, server/metrics.py.
Read next: server/serve.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypedDict

import msgspec

from nexus_client.dropshot.answers import Refused, bad_request
from nexus_client.dropshot.body import BODY_MAX
from nexus_client.dropshot.control import Guard
from nexus_client.dropshot.control_api import ControlApi
from nexus_client.dropshot.observing import exposition, observed, probed
from nexus_client.dropshot.operations import About, Answered, Call, Operation
from propolis_stub import contract
from propolis_stub.errors import GuestNotRunning, PropolisError
from propolis_stub.guest_events import GuestEvent
from propolis_stub.migration.script import PROTOCOLS
from propolis_stub.server.host import StandaloneHost
from propolis_stub.server.metrics import families
from propolis_stub.server.operations import told_publication
from propolis_stub.server.refusals import refusal_of
from propolis_stub.spec.types import spec_key
from propolis_stub.vm import Hazard
from propolis_stub.waiting import Pace, Point

AfterUs = Annotated[int, msgspec.Meta(ge=0, le=86_400_000_000)]  # a day: more is a typing error, `null` is for ever
Times = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class PaceBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`after_us` null: for ever. `times` null: from now on."""

    after_us: AfterUs | None = 0
    fail: bool = False
    times: Times | None = None


class FailBody(msgspec.Struct, forbid_unknown_fields=True):
    fail: bool = False


class GuestBody(msgspec.Struct, forbid_unknown_fields=True):
    event: GuestEvent
    at_us: Annotated[int, msgspec.Meta(ge=0)] | None = None
    vcpu: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0


class SerialBody(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    times: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1


class KnobsBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    vcr_result: str | msgspec.UnsetType | None = msgspec.UNSET
    failing_disks: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    protocols: list[str] | msgspec.UnsetType | None = msgspec.UNSET


class Words(TypedDict):
    """What there is to be named in the other operations."""

    operations: list[str]
    points: list[str]
    hazards: list[str]
    guest_events: list[str]


class Queue(TypedDict):
    """The request queue (PR 2.2)."""

    state: str
    state_queue: list[str]
    component_queue: list[str]


class PaceShown(TypedDict):
    """`after_us` null: for ever."""

    after_us: int | None
    fail: bool


class Look(TypedDict):
    """`level`: how far the server has come; `publications`: as the monitor tells them (PR 3.7)."""

    level: str
    state: str | None
    gen: int
    resting_state: str
    waits_for: str | None
    queue: Queue | None
    publications: list[dict[str, Any]]
    paces: dict[str, PaceShown]
    peers: list[str]
    reconfigures_waiting: int
    monitors_waiting: int
    console_clients: int
    console_bytes: int
    nmis: int


_VCR_RESULTS: Final = ("started", "started_already", "completed_already", "missing", "vcr_matches")

HAZARDS: Final[Mapping[str, Hazard]] = {
    "migrate_in_start": Hazard.MIGRATE_IN_START,
    "reconfigure_at_halt": Hazard.RECONFIGURE_AT_HALT,
    "guest_event_in_start": Hazard.GUEST_EVENT_IN_START,
}
POINTS: Final[Mapping[str, Point]] = {point.value: point for point in Point}


def points_of(names: Mapping[str, Any]) -> list[str]:
    """Those of `names` that are no waiting points."""
    return sorted(set(names) - set(POINTS))


def hazards_of(names: list[str]) -> Hazard:
    """Raises `KeyError` for a name that is none."""
    strict = Hazard.NONE
    for name in names:
        strict |= HAZARDS[name]
    return strict


class Control:
    """Handlers; one per process."""

    def __init__(self, host: StandaloneHost) -> None:
        self._host = host

    async def readyz(self, _call: Call[None]) -> Answered:
        return probed(ready=True)  # it takes requests from its first breath

    async def metrics(self, _call: Call[None]) -> Answered:
        return exposition("propolis-stub", families(self._host))

    async def words(self, _call: Call[None]) -> Words:
        return Words(
            operations=[f"{row.method} {row.path}: {row.summary}" for row in OPERATIONS],
            points=list(POINTS),
            hazards=list(HAZARDS),
            guest_events=[event.value for event in GuestEvent],
        )

    async def look(self, _call: Call[None]) -> Look:
        vm, server = self._host.vm, self._host.server
        queue = vm.queue
        return Look(
            level=vm.level.value,
            state=None if vm.state is None else vm.state.value,
            gen=vm.gen,
            resting_state=vm.resting_state().value,
            waits_for=vm.waits_for(),
            queue=None
            if queue is None
            else Queue(
                state=queue.state.value,
                state_queue=[request.type.value for request in queue.state_queue],
                component_queue=[request.type.value for request in queue.component_queue],
            ),
            publications=[told_publication(publication) for publication in server.publications],
            paces={
                point.value: PaceShown(after_us=pace.after_us, fail=pace.fail)
                for point, pace in self._host.pacer.look().items()
            },
            peers=sorted(str(migration_id) for migration_id in server.peers),
            reconfigures_waiting=server.reconfigures_waiting,
            monitors_waiting=server.channel.waiting,
            console_clients=0 if server.console is None else server.console.clients,
            console_bytes=server.serial.history.total,
            nmis=server.nmis,
        )

    async def hold(self, _call: Call[None]) -> None:
        self._host.handle(contract.Hold())

    async def release(self, _call: Call[None]) -> None:
        self._host.handle(contract.Release())

    async def step(self, _call: Call[None]) -> None:
        self._host.handle(contract.Step())

    async def crash(self, _call: Call[None]) -> None:
        self._host.handle(contract.Crash())

    async def settle(self, call: Call[FailBody]) -> None:
        self._host.handle(contract.Settle(call.body.fail))

    async def pace(self, call: Call[dict[str, PaceBody | None]]) -> None:
        paces = call.body
        unknown = points_of(paces)
        if unknown:
            raise bad_request(f"no waiting point {', '.join(unknown)}; there are {', '.join(POINTS)}")
        for name, body in paces.items():
            if body is None:
                self._host.pacer.reset(POINTS[name])
            else:
                self._host.pacer.set(POINTS[name], Pace(body.after_us, body.fail), body.times)

    async def guest(self, call: Call[GuestBody]) -> None:
        self._host.handle(contract.Guest(call.body.event, call.body.at_us, call.body.vcpu))

    async def serial(self, call: Call[SerialBody]) -> None:
        self._host.server.require_active()
        data = call.body.text.encode()
        for _ in range(call.body.times):
            self._host.server.guest_output(data)

    async def hazards(self, call: Call[list[str]]) -> None:
        unknown = sorted(set(call.body) - set(HAZARDS))
        if unknown:
            raise bad_request(f"no hazard {', '.join(unknown)}; there are {', '.join(HAZARDS)}")
        self._host.vm.strict = hazards_of(call.body)

    async def knobs(self, call: Call[KnobsBody]) -> None:
        body = call.body
        knobs = self._host.server.knobs
        if body.vcr_result is not msgspec.UNSET:
            if body.vcr_result is not None and body.vcr_result not in _VCR_RESULTS:
                raise bad_request(f"vcr_result is none of {', '.join(_VCR_RESULTS)}")
            knobs.vcr_result = body.vcr_result
        if body.failing_disks is not msgspec.UNSET:
            knobs.failing_disks = {spec_key(key): text for key, text in body.failing_disks.items()}
        if body.protocols is not msgspec.UNSET:
            knobs.protocols = PROTOCOLS if body.protocols is None else tuple(body.protocols)


ABOUT: Final = About(
    "Control of propolis-stub", "What no client of a real Propolis can do: hold, step, fail and look. No guest runs."
)

OPERATIONS: Final[tuple[Operation[Control, Any], ...]] = (
    *observed(ready=Control.readyz, metrics=Control.metrics),
    Operation("GET", "/control", Control.words, "Operations, waiting points, hazards and guest events", Words),
    Operation("GET", "/control/vm", Control.look, "State, generation, what is waited for, what was published", Look),
    Operation("POST", "/control/hold", Control.hold, "The driver pauses: picks up nothing, passes no point",
              None, 204),
    Operation("POST", "/control/release", Control.release, "End of hold", None, 204),
    Operation("POST", "/control/step", Control.step, "Pass the current waiting point, go on to the next", None, 204),
    Operation("POST", "/control/settle", Control.settle, "What is waited for happens now, well or badly", None, 204,
              body=FailBody, optional=True),
    Operation("PUT", "/control/pace", Control.pace, "How long each waiting point takes; null resets one", None, 204,
              body=dict[str, PaceBody | None]),
    Operation("POST", "/control/guest", Control.guest, "The guest does something", None, 204, body=GuestBody),
    Operation("POST", "/control/serial", Control.serial, "The guest writes to its console", None, 204,
              body=SerialBody),
    Operation("PUT", "/control/hazards", Control.hazards, "Names: where to hang or abort as the original does",
              None, 204, body=list[str]),
    Operation("PUT", "/control/knobs", Control.knobs, "What disks and migration answer", None, 204, body=KnobsBody),
    Operation("POST", "/control/crash", Control.crash, "Drop every connection and forget the VM", None, 204),
)  # fmt: skip
"""Everything this API has: routes, page and document come from here (docs/how-to-add.md)."""


def control_api(host: StandaloneHost, token: str | None = None, hosts: tuple[str, ...] = ()) -> ControlApi[Control]:
    """The API of one Propolis."""
    return ControlApi(
        Control(host), OPERATIONS, Guard(token, hosts), ABOUT, refusal_of=_refusal_of, body_max=BODY_MAX
    )


def _refusal_of(error: Exception) -> Refused | None:
    match error:
        case GuestNotRunning():
            return Refused(409, str(error))
        case PropolisError():
            return refusal_of(error)
        case _:
            return None
