"""The control API of a daemon: what is going on, and faults on demand. Its own listener, never Nexus's.

Loopback by default; beyond it a token is required (product.md 4). Who may use it, and how errors look, says
nexus_client/dropshot/control.py. JSON everywhere; errors are 400, 401, 403, 404, 409 or 415.

Read before: daemon/control_companions.py, daemon/daemon.py, daemon/looking.py, daemon/page.py.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any, Final
from uuid import UUID

from aiohttp import web

from nexus_client.dropshot.answers import Refused, bad_request
from nexus_client.dropshot.bearer import require_token
from nexus_client.dropshot.control import Guard, guarded, malformed, read_control_json
from nexus_client.dropshot.json import Json
from nexus_client.dropshot.listen import Runner
from nexus_client.dropshot.text import SocketAddress
from nexus_client.types import VmmState
from propolis_stub.guest_events import GuestEvent
from sim_sled.core import contract
from sim_sled.core.errors import NoSuchVmm, SledError
from sim_sled.core.happenings import Kind
from sim_sled.core.sled import Sled
from sim_sled.core.why import stamp
from sim_sled.daemon.control_companions import CompanionFaults
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.history import text_of
from sim_sled.daemon.looking import NobodyMeant, Unmet
from sim_sled.daemon.sightings import Sighting
from sim_sled.language.check import parse_scenario
from sim_sled.language.words import STATES
from sim_sled.play.fleet import NotInFleet

BODY_MAX: Final = 64 * 1024
"""Control requests are a few words."""


class Counters:
    """Plain integers, counted by watching; text only when scraped."""

    def __init__(self) -> None:
        self.of: dict[Kind, int] = dict.fromkeys(Kind, 0)

    def add(self, happening: Any) -> None:
        self.of[happening.kind] += 1


class Control:
    """Handlers of the control API of one daemon."""

    def __init__(
        self,
        daemon: Daemon,
        token: str | None = None,
        hosts: tuple[str, ...] = (),
        scale: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self.daemon = daemon
        self._scale = scale
        self.token = token
        self._guard = Guard(token, hosts)
        self.counters = Counters()
        daemon.watchers.append(self.counters.add)

    def app(self) -> web.Application:
        """The application, to be served by an `AppRunner`."""
        app = web.Application(client_max_size=BODY_MAX, middlewares=[guarded(self._guard, _refusal_of)])
        app.add_routes(
            [
                web.get("/", self.index),
                web.get("/ready", self.ready),
                web.get("/version", self.version),
                web.get("/metrics", self.metrics),
                web.get("/sleds", self.sleds),
                web.get("/sleds/{sled_id}/networking", self.networking),
                web.get("/vmms", self.vmms),
                web.get("/vmms/{who}", self.why),
                web.get("/vmms/{who}/log", self.log),
                web.get("/vmms/{who}/expect", self.expect),
                web.get("/events", self.events),
                web.post("/vmms/{who}/inject", self.inject),
                web.get("/rules", self.rules),
                web.post("/fire/{name}", self.fire),
                web.post("/release/{name}", self.release),
                web.put("/rules", self.load),
                web.post("/scale", self.scale),
                *CompanionFaults(self.daemon).routes(),
            ]
        )
        return app

    async def index(self, request: web.Request) -> web.Response:
        """What there is."""
        routes = sorted(
            f"{route.method} {route.resource.canonical}"
            for route in request.app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        )
        return web.json_response({"name": "sim-sled control API", "routes": routes})

    async def ready(self, _: web.Request) -> web.Response:
        """200 once every sled is registered with Nexus and the rack is handed over, if it is to be; 503 before."""
        waiting = [str(sled_id) for sled_id, event in self.daemon.registered.items() if not event.is_set()]
        handed_over = self.daemon.handed_over is None or self.daemon.handed_over.is_set()
        ready = handed_over and not waiting
        answer = {"ready": ready, "not_registered": waiting, "handed_over": handed_over}
        if waiting:
            answer["message"] = f"not registered with Nexus yet: {', '.join(waiting)}"
        elif not handed_over:
            answer["message"] = "the rack is not handed over yet"
        return web.json_response(answer, status=200 if ready else 503)

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"name": "sim-sled", "version": version("sim-sled")})

    async def metrics(self, _: web.Request) -> web.Response:
        """Prometheus text. No label per sled: thousands of series would make the scrape slow."""
        lines = ["# TYPE sim_sled_happenings_total counter"]
        lines += [
            f'sim_sled_happenings_total{{kind="{kind.value.replace(" ", "_")}"}} {count}'
            for kind, count in self.counters.of.items()
        ]
        sleds = self.daemon.rack.sleds.values()
        lines += [
            "# TYPE sim_sled_vmms gauge",
            f"sim_sled_vmms {sum(len(sled.vmms) for sled in sleds)}",
            "# TYPE sim_sled_unacknowledged gauge",
            f"sim_sled_unacknowledged {sum(len(sled.outbox) for sled in sleds)}",
        ]
        return web.Response(text="\n".join(lines) + "\n")

    async def sleds(self, _: web.Request) -> web.Response:
        return web.json_response(
            [
                {
                    "sled_id": str(sled_id),
                    "address": self.daemon.addresses.get(sled_id),
                    "mode": sled.config.mode.value,
                    "vmms": len(sled.vmms),
                    "unacknowledged": len(sled.outbox),
                    "threads_used": sled.threads_used,
                    "memory_mib_used": sled.memory_mib_used,
                    "registration": sled.registration.phase.value if sled.registration else None,
                }
                for sled_id, sled in sorted(self.daemon.rack.sleds.items())
            ]
        )

    async def networking(self, request: web.Request) -> web.Response:
        """What is in effect of the sled's virtual networks (SA 6 #26)."""
        sled = self.daemon.rack.sleds.get(_uuid(request, "sled_id"))
        if sled is None:
            raise Refused(404, "no such sled")
        return web.json_response(sled.networking.snapshot(), dumps=_dumps)

    async def vmms(self, _: web.Request) -> web.Response:
        return web.json_response(self.daemon.look.rows())

    async def why(self, request: web.Request) -> web.Response:
        """Everything about a VMM, also of one that is gone."""
        return web.json_response(self.daemon.look.why(self._seen(request)))

    async def expect(self, request: web.Request) -> web.Response:
        """`?state=running&within_ms=30000[&since_us=N]`: waits; `met`: whether it was so in time, `says` why not."""
        who, state = request.match_info["who"], request.query.get("state", "")
        if state not in STATES:
            raise bad_request(f"state is one of {', '.join(STATES)}, not {state!r}")
        within_s = _number(request, "within_ms", 0, WAIT_MAX_MS) / 1000
        since = _number(request, "since_us", -1, 2**63 - 1)
        try:
            seen = await self.daemon.look.expect(who, state, within_s=within_s, since_us=None if since < 0 else since)
        except Unmet as unmet:
            return web.json_response({"met": False, "says": str(unmet).splitlines()})
        return web.json_response({"met": True, "propolis_id": str(seen.propolis_id), "hostname": seen.hostname})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """`?after=N`: what happened since, a JSON line each with its number; `follow=1`: and goes on. With
        `accept: text/event-stream` as server-sent events, whose id is the number (`last-event-id` resumes).
        """
        follow = request.query.get("follow", "0") not in ("", "0", "false")
        sse = "text/event-stream" in request.headers.get("accept", "")
        resumed = request.headers.get("last-event-id", "")
        last = int(resumed) if resumed.isascii() and resumed.isdigit() else _number(request, "after", 0, 2**63 - 1)
        response = web.StreamResponse(headers={"cache-control": "no-store"})
        response.content_type = "text/event-stream" if sse else "application/jsonl"
        await response.prepare(request)
        look = self.daemon.look
        while True:
            found = look.after(last)
            for last, event in found:
                text = json.dumps({"number": last} | event.plain())
                await response.write(f"id: {last}\ndata: {text}\n\n".encode() if sse else f"{text}\n".encode())
            if found:
                continue
            if not follow or self.daemon.stopping:
                break
            await look.change(KEEP_ALIVE_S)
            if sse and last == look.number:
                await response.write(b": still here\n\n")
        await response.write_eof()
        return response

    async def log(self, request: web.Request) -> web.Response:
        """What happened to a VMM, also to one that is gone."""
        lines = self.daemon.history.of(self._seen(request).propolis_id)
        return web.json_response(
            [
                {
                    "at": stamp(each.at_us),
                    "sled_id": str(each.sled_id),
                    "kind": each.kind.value,
                    "text": text_of(each),
                }
                for each in lines
            ]
        )

    async def inject(self, request: web.Request) -> web.Response:
        """One fault: `{"state": "failed"}`, `{"state": "running", "illegal": true}`, `{"kill_propolis": {"restart":
        true}}`, `{"forget_vmm": true}` or `{"guest": "halt"}`.
        """
        propolis_id = self._seen(request).propolis_id
        sled_id = self._sled_of(propolis_id).config.sled_id
        fault = await read_control_json(request, _FAULT, BODY_MAX)
        item = _fault(fault, self.daemon.ticket(), sled_id, propolis_id)
        await self.daemon.submit(item)
        return web.json_response({"injected": fault})

    async def rules(self, _: web.Request) -> web.Response:
        """The scenario's rules and how often each matched and fired."""
        self._played()
        engine = self.daemon.engine
        return web.json_response(
            [
                {"name": rule.name, "at": str(rule.mark()), "enabled": rule.enabled}
                | {"matched": counter.matched, "fired": counter.fired}
                for rule in engine.scenario.rules
                if (counter := engine.counters[rule.name]) is not None
            ]
        )

    async def load(self, request: web.Request) -> web.Response:
        """Other rules: `{"scenario": TEXT}`. A bad one changes nothing and has every problem in its answer."""
        body = await _json(request)
        text = body.get("scenario") if isinstance(body, dict) else None
        if not isinstance(text, str):
            raise web.HTTPBadRequest(reason='give {"scenario": TEXT}')
        scenario, problems = parse_scenario(text, "scenario")
        if scenario is None:
            return web.json_response({"message": "the scenario is bad", "problems": problems.text()}, status=400)
        try:
            self.daemon.load(scenario)
        except NotInFleet as error:
            raise web.HTTPConflict(reason=str(error)) from error
        return web.json_response({"rules": len(scenario.rules)})

    async def scale(self, request: web.Request) -> web.Response:
        """Sleds join or leave: `{"sleds": N}`; only of a rack (`sim-sled up`)."""
        if self._scale is None:
            raise web.HTTPNotFound(reason="this daemon is no rack that can grow; start one with sim-sled up")
        body = await _json(request)
        wanted = body.get("sleds") if isinstance(body, dict) else None
        if not isinstance(wanted, int) or isinstance(wanted, bool):
            raise web.HTTPBadRequest(reason='give {"sleds": NUMBER}')
        try:
            await self._scale(wanted)
        except ValueError as error:
            raise web.HTTPBadRequest(reason=str(error)) from error
        except OSError as error:
            raise web.HTTPConflict(reason=f"cannot bind: {error.strerror or error}") from error
        return web.json_response({"sleds": len(self.daemon.rack.sleds)})

    async def fire(self, request: web.Request) -> web.Response:
        """Fire a manual trigger."""
        name = request.match_info["name"]
        self._played()
        if not self.daemon.fire(name):
            raise Refused(404, f"no rule waits for {name}")
        return web.json_response({"fired": name})

    async def release(self, request: web.Request) -> web.Response:
        """Let go what a rule holds."""
        name = request.match_info["name"]
        self._played()
        if not self.daemon.release(name):
            raise Refused(404, f"rule {name} holds nothing")
        return web.json_response({"released": name})

    def _played(self) -> None:
        if not self.daemon.conductor.has_rules:
            raise Refused(404, "this daemon plays no scenario")

    def _seen(self, request: web.Request) -> Sighting:
        """By UUID, the beginning of one, host name or ordinal."""
        try:
            return self.daemon.look.meant(request.match_info["who"])
        except NobodyMeant as error:
            raise Refused(409 if error.several else 404, str(error)) from error

    def _sled_of(self, propolis_id: UUID) -> Sled:
        for sled in self.daemon.rack.sleds.values():
            if propolis_id in sled.vmms:
                return sled
        raise NoSuchVmm(propolis_id)


def _refusal_of(error: Exception) -> Refused | None:
    match error:
        case NoSuchVmm():
            return Refused(404, error.message)
        case SledError():
            return Refused(409, error.message)
        case _:
            return None


WAIT_MAX_MS: Final = 3_600_000
"""An hour: whoever waits longer asks again."""
KEEP_ALIVE_S: Final = 15.0
"""A quiet stream of events says so this often: proxies end what is silent for a minute."""
_FAULT: Final[Json[Any]] = Json(Any)
_STATES: Final = frozenset(each.value for each in VmmState)
_GUEST_EVENTS: Final = frozenset(each.value for each in GuestEvent)


def _fault(fault: Any, ticket: int, sled_id: UUID, propolis_id: UUID) -> contract.Input:
    match fault:
        case {"state": str(state), **rest} if state in _STATES and rest in (
            {},
            {"illegal": False},
            {"illegal": True},
        ):
            return contract.InjectState(
                ticket, sled_id, propolis_id, VmmState(state), illegal=bool(rest.get("illegal"))
            )
        case {"kill_propolis": {"restart": bool(restart), **more}, **rest} if not (more or rest):
            return contract.KillPropolis(ticket, sled_id, propolis_id, restart)
        case {"forget_vmm": True, **rest} if not rest:
            return contract.ForgetVmm(ticket, sled_id, propolis_id)
        case {"guest": str(event), **rest} if event in _GUEST_EVENTS and not rest:
            return contract.InjectGuest(ticket, sled_id, propolis_id, GuestEvent(event))
    raise bad_request(
        'a fault is one of {"state": STATE}, {"state": STATE, "illegal": true}, {"forget_vmm": true}, '
        f'{{"kill_propolis": {{"restart": BOOL}}}}, {{"guest": {" or ".join(sorted(_GUEST_EVENTS))}}}'
    )


def _uuid(request: web.Request, name: str) -> UUID:
    try:
        return UUID(request.match_info[name])
    except ValueError as error:
        raise bad_request(f"{name} is not a UUID") from error


async def _json(request: web.Request) -> Any:
    try:
        return await request.json()
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest(reason="not JSON") from error


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.lstrip("-").isdigit() and len(text) <= 19 and -1 <= int(text) <= most):
        raise bad_request(f"{name} is a number up to {most}, not {text[:40]!r}")
    return int(text)


def _dumps(value: Any) -> str:
    return json.dumps(value, default=str)


async def serve_control(control: Control, address: SocketAddress) -> tuple[web.AppRunner, str]:
    """Serve at `address`; returns the runner and the bound address. Raises `BadToken` beyond loopback without one."""
    require_token(address, control.token)
    runner = Runner(control.app(), malformed)
    await runner.setup()
    site = web.TCPSite(runner, address.host, address.port)
    try:
        await site.start()
    except BaseException:
        await runner.cleanup()
        raise
    name = runner.addresses[0]
    return runner, str(SocketAddress(name[0], name[1]))
