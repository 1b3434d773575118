"""Control for tests, on a listener of its own: what no client of the real server can do (docs/propolis.md).

All bodies and answers are JSON. `GET /control` lists everything. Bound beyond loopback it needs a token
(`Authorization: Bearer TOKEN`), because whoever reaches it owns the VM.

Read before: server/host.py. Read next: server/serve.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from nexus_client.dropshot.answers import Refused, bad_request, internal, not_found
from nexus_client.dropshot.control import Guard
from nexus_client.dropshot.json import Json
from propolis_stub import contract
from propolis_stub.errors import GuestNotRunning, PropolisError
from propolis_stub.guest_events import GuestEvent
from propolis_stub.migration.script import PROTOCOLS
from propolis_stub.server.base import answer, answer_json, answer_refusal, decoded
from propolis_stub.server.host import StandaloneHost
from propolis_stub.server.operations import told_publication
from propolis_stub.server.refusals import refusal_of
from propolis_stub.spec.types import spec_key
from propolis_stub.vm import Hazard
from propolis_stub.waiting import Pace, Point

log = logging.getLogger("propolis_stub")

AfterUs = Annotated[int, msgspec.Meta(ge=0, le=86_400_000_000)]  # a day: more is a typing error, `null` is for ever
Times = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class PaceBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`after_us` null: for ever. `times` null: from now on."""

    after_us: AfterUs | None = 0
    fail: bool = False
    times: Times | None = None


class _Fail(msgspec.Struct, forbid_unknown_fields=True):
    fail: bool = False


class _Guest(msgspec.Struct, forbid_unknown_fields=True):
    event: GuestEvent
    at_us: Annotated[int, msgspec.Meta(ge=0)] | None = None
    vcpu: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0


class _Serial(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    times: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1


class _Knobs(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    vcr_result: str | msgspec.UnsetType | None = msgspec.UNSET
    failing_disks: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    protocols: list[str] | msgspec.UnsetType | None = msgspec.UNSET


_PACES: Final = Json(dict[str, PaceBody | None])
_FAIL: Final = Json(_Fail)
_GUEST: Final = Json(_Guest)
_SERIAL: Final = Json(_Serial)
_KNOBS: Final = Json(_Knobs)
_NAMES: Final = Json(list[str])
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
    """The operations; one per process."""

    def __init__(self, host: StandaloneHost, token: str | None = None, hosts: tuple[str, ...] = ()) -> None:
        self._host = host
        self._guard = Guard(token, hosts)
        self._routes: dict[str, tuple[str, Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], str]] = {
            "/control": ("GET", self._list, "this list"),
            "/control/vm": ("GET", self._look, "state, generation, level, what is waited for, what was published"),
            "/control/hold": (
                "POST",
                self._hold,
                "the driver pauses: picks up nothing, passes no point",
            ),
            "/control/release": ("POST", self._release, "end of hold"),
            "/control/step": ("POST", self._step, "pass the current waiting point and go on to the next"),
            "/control/settle": ("POST", self._settle, '{"fail"}: what is waited for happens now, well or badly'),
            "/control/pace": ("PUT", self._pace, '{point: {"after_us", "fail", "times"} or null}: null resets'),
            "/control/guest": ("POST", self._guest, '{"event", "at_us", "vcpu"}: the guest does something'),
            "/control/serial": ("POST", self._serial, '{"text", "times"}: the guest writes to its console'),
            "/control/hazards": ("PUT", self._hazards, "[names]: where to hang or abort as the original does"),
            "/control/knobs": ("PUT", self._knobs, '{"vcr_result", "failing_disks", "protocols"}'),
            "/control/crash": ("POST", self._crash, "drop every connection and forget the VM"),
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The aiohttp handler."""
        try:
            self._guard.check(request)
            route = self._routes.get(request.rel_url.path.rstrip("/"))
            if route is None:
                return answer_refusal(not_found())
            method, operation, _ = route
            if request.method != method:
                return answer_refusal(Refused(405, "Method Not Allowed", allow=(method,)))
            return await operation(request)
        except Refused as refused:
            return answer_refusal(refused)
        except GuestNotRunning as error:
            return answer_refusal(Refused(409, str(error)))
        except PropolisError as error:
            return answer_refusal(refusal_of(error))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.raw_path)
            return answer_refusal(internal())

    async def _list(self, _request: web.BaseRequest) -> web.StreamResponse:
        return answer_json(
            200,
            {
                "operations": [f"{method} {path}: {what}" for path, (method, _, what) in self._routes.items()],
                "points": list(POINTS),
                "hazards": list(HAZARDS),
                "guest_events": [event.value for event in GuestEvent],
            },
        )

    async def _look(self, _request: web.BaseRequest) -> web.StreamResponse:
        vm, server = self._host.vm, self._host.server
        queue = vm.queue
        return answer_json(
            200,
            {
                "level": vm.level.value,
                "state": None if vm.state is None else vm.state.value,
                "gen": vm.gen,
                "resting_state": vm.resting_state().value,
                "waits_for": vm.waits_for(),
                "queue": None
                if queue is None
                else {
                    "state": queue.state.value,
                    "state_queue": [request.type.value for request in queue.state_queue],
                    "component_queue": [request.type.value for request in queue.component_queue],
                },
                "publications": [told_publication(publication) for publication in server.publications],
                "paces": {
                    point.value: {"after_us": pace.after_us, "fail": pace.fail}
                    for point, pace in self._host.pacer.look().items()
                },
                "peers": sorted(str(migration_id) for migration_id in server.peers),
                "reconfigures_waiting": server.reconfigures_waiting,
                "monitors_waiting": server.channel.waiting,
                "console_clients": 0 if server.console is None else server.console.clients,
                "console_bytes": server.serial.history.total,
                "nmis": server.nmis,
            },
        )

    async def _hold(self, _request: web.BaseRequest) -> web.StreamResponse:
        return self._feed(contract.Hold())

    async def _release(self, _request: web.BaseRequest) -> web.StreamResponse:
        return self._feed(contract.Release())

    async def _step(self, _request: web.BaseRequest) -> web.StreamResponse:
        return self._feed(contract.Step())

    async def _crash(self, _request: web.BaseRequest) -> web.StreamResponse:
        return self._feed(contract.Crash())

    async def _settle(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._feed(contract.Settle((await self._optional(request, _FAIL, _Fail())).fail))

    async def _optional(self, request: web.BaseRequest, decoder: Json[Any], default: Any) -> Any:
        return await decoded(request, decoder) if request.can_read_body else default

    def _feed(self, item: contract.Input) -> web.StreamResponse:
        self._host.handle(item)
        return answer(204)

    async def _pace(self, request: web.BaseRequest) -> web.StreamResponse:
        paces = await decoded(request, _PACES)
        unknown = points_of(paces)
        if unknown:
            raise bad_request(f"no waiting point {', '.join(unknown)}; there are {', '.join(POINTS)}")
        for name, body in paces.items():
            if body is None:
                self._host.pacer.reset(POINTS[name])
            else:
                self._host.pacer.set(POINTS[name], Pace(body.after_us, body.fail), body.times)
        return answer(204)

    async def _guest(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await decoded(request, _GUEST)
        return self._feed(contract.Guest(body.event, body.at_us, body.vcpu))

    async def _serial(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await decoded(request, _SERIAL)
        self._host.server.require_active()
        data = body.text.encode()
        for _ in range(body.times):
            self._host.server.guest_output(data)
        return answer(204)

    async def _hazards(self, request: web.BaseRequest) -> web.StreamResponse:
        names = await decoded(request, _NAMES)
        unknown = sorted(set(names) - set(HAZARDS))
        if unknown:
            raise bad_request(f"no hazard {', '.join(unknown)}; there are {', '.join(HAZARDS)}")
        self._host.vm.strict = hazards_of(names)
        return answer(204)

    async def _knobs(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await decoded(request, _KNOBS)
        knobs = self._host.server.knobs
        if body.vcr_result is not msgspec.UNSET:
            if body.vcr_result is not None and body.vcr_result not in _VCR_RESULTS:
                raise bad_request(f"vcr_result is none of {', '.join(_VCR_RESULTS)}")
            knobs.vcr_result = body.vcr_result
        if body.failing_disks is not msgspec.UNSET:
            knobs.failing_disks = {spec_key(key): text for key, text in body.failing_disks.items()}
        if body.protocols is not msgspec.UNSET:
            knobs.protocols = PROTOCOLS if body.protocols is None else tuple(body.protocols)
        return answer(204)
