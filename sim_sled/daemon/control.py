"""The control API of a daemon: what is going on, and faults on demand. Its own listener, never Nexus's.

Loopback by default; beyond it a token is required. `OPERATIONS`, at the end, is all of it; who may use it, and how
errors look, says nexus_client/dropshot/control.py.

Over 500 lines: one function for each operation, and its row.

Read before: daemon/companion_faults.py, daemon/control_answers.py, daemon/daemon.py, daemon/looking.py,
daemon/metrics.py, daemon/page.py, daemon/page_api.py, daemon/sled_facts.py, daemon/snapshot.py,
nexus_client/dropshot/control_api.py.
Read next: daemon/front.py, daemon/worker.py.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec

from nexus_client.dropshot import web
from nexus_client.dropshot.answers import Refused, bad_request
from nexus_client.dropshot.bearer import require_token
from nexus_client.dropshot.control import Guard
from nexus_client.dropshot.control_api import ControlApi
from nexus_client.dropshot.listen import Listener, Server, listen, streams
from nexus_client.dropshot.observing import exposition, observed, probed
from nexus_client.dropshot.operations import (
    About,
    Answered,
    Call,
    OneOf,
    Operation,
    Text,
    flag,
    number,
    one_of,
    resume,
    text_in_path,
    uuid_in_path,
)
from nexus_client.dropshot.text import SocketAddress
from nexus_client.types import stamp
from sim_sled.core import contract
from sim_sled.core.errors import NoSuchVmm, SledError
from sim_sled.core.sled import Sled
from sim_sled.daemon import page_api
from sim_sled.daemon.control_answers import (
    SNAPSHOT_TEXT_MAX,
    BadScenario,
    CompanionsShown,
    DoFault,
    Expected,
    FactsWanted,
    Fired,
    ForgetFault,
    GuestFault,
    Injected,
    KillFault,
    KillPropolis,
    LogLine,
    Moved,
    Networking,
    Played,
    Readiness,
    Released,
    Restored,
    RuleRow,
    Rules,
    ScenarioText,
    SledRow,
    Sleds,
    SledsWanted,
    SnapshotText,
    StateFault,
    StepsWanted,
    Story,
    Time,
    UntilWanted,
    Version,
    VmmFault,
    VmmRow,
    Why,
)
from sim_sled.daemon.daemon import Daemon, Futile
from sim_sled.daemon.history import text_of
from sim_sled.daemon.looking import NobodyMeant, Unmet
from sim_sled.daemon.metrics import Counters, families
from sim_sled.daemon.page import PAGES_MAX, Feed
from sim_sled.daemon.pausing import Moved as HasMoved
from sim_sled.daemon.pausing import Moving
from sim_sled.daemon.sightings import Sighting
from sim_sled.language.words import STATES, hint

if TYPE_CHECKING:
    from sim_sled.daemon.companion_faults import CompanionFault


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
        self.feed = Feed(daemon)
        self.counters = Counters()
        daemon.watchers.append(self.counters.add)
        self.api: ControlApi[Control] = ControlApi(
            self, OPERATIONS, Guard(token, hosts), ABOUT, refusal_of=_refusal_of
        )

    async def readyz(self, call: Call[None]) -> Answered:
        """As `ready`, for probes: without the sleds' ids."""
        return probed(ready=(await self.ready(call)).status == 200)

    async def ready(self, _: Call[None]) -> Answered:
        """200 once every sled is registered with Nexus and the rack is handed over, if it is to be; 503 before."""
        waiting = [str(sled_id) for sled_id, event in self.daemon.reporting.registered.items() if not event.is_set()]
        handed_over = self.daemon.handed_over is None or self.daemon.handed_over.is_set()
        ready = handed_over and not waiting
        answer = Readiness(ready=ready, not_registered=waiting, handed_over=handed_over)
        if waiting:
            answer["message"] = f"not registered with Nexus yet: {', '.join(waiting)}"
        elif not handed_over:
            answer["message"] = "the rack is not handed over yet"
        return Answered(answer, 200 if ready else 503)

    async def version(self, _: Call[None]) -> Version:
        from importlib import metadata  # noqa: PLC0415 -- reads mail headers, for which it imports a lot

        return Version(name="sim-sled", version=metadata.version("sim-sled"))

    async def metrics(self, _: Call[None]) -> Answered:
        return exposition("sim-sled", families(self.daemon, self.counters))

    async def sleds(self, _: Call[None]) -> list[SledRow]:
        return [
            SledRow(
                sled_id=str(sled_id),
                address=self.daemon.addresses.get(sled_id),
                mode=sled.config.mode.value,
                vmms=len(sled.vmms),
                unacknowledged=len(sled.outbox),
                threads_used=sled.threads_used,
                memory_mib_used=sled.memory_mib_used,
                registration=sled.registration.phase.value if sled.registration else None,
            )
            for sled_id, sled in sorted(self.daemon.rack.sleds.items())
        ]

    async def networking(self, call: Call[None]) -> dict[str, object]:
        sled = self.daemon.rack.sleds.get(call.uuid("sled_id"))
        if sled is None:
            raise Refused(404, "no such sled")
        return sled.networking.snapshot()

    async def vmms(self, _: Call[None]) -> list[dict[str, Any]]:
        return self.daemon.look.rows()

    async def why(self, call: Call[None]) -> dict[str, Any]:
        return self.daemon.look.why(self._seen(call))

    async def expect(self, call: Call[None]) -> Expected:
        try:
            seen = await self.daemon.look.expect(
                call.text("who"),
                call.text("state"),
                within_s=call.number("within_ms") / 1000,
                since_us=self._since_us(call),
            )
        except Unmet as unmet:
            return Expected(met=False, says=str(unmet).splitlines())
        return Expected(met=True, propolis_id=str(seen.propolis_id), hostname=seen.hostname)

    def _since_us(self, call: Call[None]) -> int | None:
        """By this daemon's clock, which may be another than that of whoever asks."""
        ago_ms, since_us = call.number("since_ms"), call.number("since_us")
        if ago_ms >= 0:
            return max(0, self.daemon.clock.now_us() - ago_ms * 1000)
        return None if since_us < 0 else since_us

    async def events(self, call: Call[None]) -> web.StreamResponse:
        """A JSON line each with its number, or (`accept: text/event-stream`) server-sent events, whose id it is."""
        request = call.request
        sse = "text/event-stream" in request.headers.get("accept", "")
        resumed = call.number("last-event-id")
        last = resumed if resumed >= 0 else call.number("after")
        streams(request)
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
            if not call.flag("follow") or self.daemon.stopping:
                break
            await look.change(KEEP_ALIVE_S)
            if sse and last == look.number:
                await response.write(b": still here\n\n")
        await response.write_eof()
        return response

    async def page_feed(self, call: Call[None]) -> web.StreamResponse:
        page_api.one_more(self.feed.pages, PAGES_MAX)
        self.feed.pages += 1
        try:
            return await page_api.stream(call, self.feed.messages(call.text("last-event-id"), once=call.flag("once")))
        finally:
            self.feed.pages -= 1

    async def story(self, call: Call[None]) -> Story:
        return self.feed.story(self._seen(call))

    async def log(self, call: Call[None]) -> list[LogLine]:
        lines = self.daemon.history.of(self._seen(call).propolis_id)
        return [
            LogLine(at=stamp(each.at_us), sled_id=str(each.sled_id), kind=each.kind.value, text=text_of(each))
            for each in lines
        ]

    async def inject(self, call: Call[VmmFault]) -> Injected:
        propolis_id = self._seen(call).propolis_id
        if isinstance(call.body, DoFault):
            self._played()
            try:
                return Injected(injected=call.body, rule=self.daemon.do_once(propolis_id, call.body.do))
            except ValueError as error:
                raise bad_request(str(error)) from error
            except Futile as error:
                raise Refused(409, str(error)) from error
        sled_id = self._sled_of(propolis_id).config.sled_id
        ticket = self.daemon.ticket()
        item: contract.Input
        match call.body:
            case StateFault(state=state, illegal=illegal):
                item = contract.InjectState(ticket, sled_id, propolis_id, state, illegal=illegal)
            case KillFault(kill_propolis=KillPropolis(restart=restart)):
                item = contract.KillPropolis(ticket, sled_id, propolis_id, restart)
            case ForgetFault(forget_vmm=True):
                item = contract.ForgetVmm(ticket, sled_id, propolis_id)
            case GuestFault(guest=event):
                item = contract.InjectGuest(ticket, sled_id, propolis_id, event)
            case _:
                raise bad_request("forget_vmm is true, or not said at all")
        await self.daemon.submit(item)
        return Injected(injected=call.body)

    async def rules(self, _: Call[None]) -> list[RuleRow]:
        self._played()
        engine = self.daemon.engine
        return [
            RuleRow(
                name=rule.name,
                at=str(rule.mark()),
                enabled=rule.enabled,
                matched=counter.matched,
                fired=counter.fired,
            )
            for rule in engine.scenario.rules
            if (counter := engine.counters[rule.name]) is not None
        ]

    async def played(self, _: Call[None]) -> Played:
        self._played()
        about = self.daemon.played
        return Played(
            name=self.daemon.engine.scenario.name,
            revision=about.revision,
            file=about.file,
            last_error=about.last_error,
        )

    async def load(self, call: Call[ScenarioText]) -> Rules | Answered:
        """A bad one changes nothing and has every problem in its answer."""
        from sim_sled.language.check import parse_scenario  # noqa: PLC0415 -- most daemons are given none
        from sim_sled.play.fleet import NotInFleet  # noqa: PLC0415 -- same

        scenario, problems = parse_scenario(call.body.scenario, "scenario")
        if scenario is None:
            self.daemon.played.last_error = problems.text()
            return Answered(BadScenario(message="the scenario is bad", problems=problems.text()), 400)
        try:
            self.daemon.load(scenario)
        except NotInFleet as error:
            raise Refused(409, str(error)) from error
        return Rules(rules=len(scenario.rules))

    async def scale(self, call: Call[SledsWanted]) -> Sleds:
        if self._scale is None:
            raise Refused(404, "this daemon is no rack that can grow; start one with sim-sled up")
        try:
            await self._scale(call.body.sleds)
        except ValueError as error:
            raise bad_request(str(error)) from error
        except OSError as error:
            raise Refused(409, f"cannot bind: {error.strerror or error}") from error
        return Sleds(sleds=len(self.daemon.rack.sleds))

    async def time(self, _: Call[None]) -> Time:
        return self._time()

    def _time(self) -> Time:
        now_us = self.daemon.clock.now_us()
        due_us = self.daemon.pausing.next_deadline_us()
        return Time(
            now=stamp(now_us),
            now_us=now_us,
            paused=self.daemon.clock.stands,
            next_in_ms=None if due_us is None else max(0, due_us - now_us) / 1000,
        )

    async def pause(self, _: Call[None]) -> Time:
        self.daemon.pausing.pause()
        return self._time()

    async def resume(self, _: Call[None]) -> Time:
        self.daemon.pausing.resume()
        return self._time()

    async def step(self, call: Call[StepsWanted]) -> Moved:
        if not 1 <= call.body.steps <= STEPS_AT_ONCE_MAX:
            raise bad_request(f"steps is a number from 1 to {STEPS_AT_ONCE_MAX}, not {call.body.steps}")
        try:
            moved = await self.daemon.pausing.step(call.body.steps)
        except Moving as error:
            raise Refused(409, str(error)) from error
        return self._moved(moved, [])

    async def until(self, call: Call[UntilWanted]) -> Moved:
        wanted = call.body
        if not 0 <= wanted.within_ms <= TIME_MAX_MS:
            raise bad_request(f"within_ms is a number from 0 to {TIME_MAX_MS}, not {wanted.within_ms}")
        if bool(wanted.who) != bool(wanted.state):
            raise bad_request("who and state go together")
        if wanted.state and wanted.state not in STATES:
            raise bad_request(f"state is one of {', '.join(STATES)}, not {wanted.state[:40]!r}")
        look, pausing = self.daemon.look, self.daemon.pausing
        met = (lambda: look.is_in(wanted.who, wanted.state)) if wanted.who else None
        try:
            moved = await pausing.until(wanted.within_ms * 1000, met)
        except Moving as error:
            raise Refused(409, str(error)) from error
        unmet = [] if moved.met or not wanted.who else look.not_in(wanted.who, wanted.state, wanted.within_ms / 1000)
        return self._moved(moved, unmet)

    def _moved(self, moved: HasMoved, says: list[str]) -> Moved:
        more = [moved.why_not] if moved.why_not else []
        return Moved(**self._time(), steps=moved.steps, met=moved.met, says=says + more)

    async def snapshot(self, _: Call[None]) -> dict[str, Any]:
        from sim_sled.daemon import snapshot  # noqa: PLC0415 -- few daemons are asked for one

        try:
            file: dict[str, Any] = msgspec.to_builtins(await snapshot.Snapshots(self.daemon).take())
        except (snapshot.Refused, Moving) as error:
            raise Refused(409, str(error)) from error
        return file

    async def restore(self, call: Call[SnapshotText]) -> Restored:
        from sim_sled.daemon import snapshot  # noqa: PLC0415 -- same

        try:
            file = await snapshot.Snapshots(self.daemon).restore(call.body.snapshot.encode())
        except (snapshot.Refused, Moving) as error:
            raise Refused(409, str(error)) from error
        return Restored(taken=file.taken, sleds=len(file.sleds), vmms=file.vmms, model=file.model)

    async def fire(self, call: Call[None]) -> Fired:
        name = call.text("name")
        self._played()
        if not self.daemon.fire(name):
            from sim_sled.daemon.doing import no_trigger  # noqa: PLC0415 -- with the language

            raise Refused(404, no_trigger(self.daemon.engine, name))
        return Fired(fired=name)

    async def release(self, call: Call[None]) -> Released:
        name = call.text("name")
        self._played()
        if not self.daemon.release(name):
            from sim_sled.daemon.doing import nothing_held  # noqa: PLC0415 -- same

            raise Refused(404, nothing_held(self.daemon.engine, name, self.daemon.clock.now_us()))
        return Released(released=name)

    async def companions(self, call: Call[None]) -> dict[str, Any]:
        from sim_sled.daemon import companion_faults  # noqa: PLC0415 -- with all that stands beside a sled

        return await companion_faults.show(self.daemon, call.uuid("sled_id"))

    async def suffer(self, call: Call[CompanionFault]) -> Injected:
        from sim_sled.daemon import companion_faults  # noqa: PLC0415 -- same

        await companion_faults.suffer(self.daemon, call.uuid("sled_id"), call.body)
        return Injected(injected=call.body)

    async def set_facts(self, call: Call[FactsWanted]) -> Injected:
        from sim_sled.daemon import sled_facts  # noqa: PLC0415 -- with the language and all areas of a sled

        await sled_facts.set_facts(self.daemon, call.uuid("sled_id"), call.body.set)
        return Injected(injected=call.body)

    def _played(self) -> None:
        if not self.daemon.passage.has_rules:
            raise Refused(404, "this daemon plays no scenario")

    def _seen(self, call: Call[Any]) -> Sighting:
        """By UUID, the beginning of one, host name or ordinal."""
        try:
            return self.daemon.look.meant(call.text("who"))
        except NobodyMeant as error:
            names = () if error.several else [seen.hostname for seen in self.daemon.look.sightings.all()]
            meant = hint(call.text("who"), names)
            raise Refused(409 if error.several else 404, f"{error}{meant}") from error

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
STEPS_AT_ONCE_MAX: Final = 10_000
"""Some seconds of work; whoever wants more asks again, or says until when."""
TIME_MAX_MS: Final = 366 * 24 * 3_600_000
"""A year: the longest of Nexus's own timers have days."""
KEEP_ALIVE_S: Final = 15.0
"""A quiet stream of events says so this often: proxies end what is silent for a minute."""

ABOUT: Final = About(
    "Control API of sim-sled", "What goes on in a daemon of simulated sleds, and faults on demand. No API of Oxide's."
)
_WHO: Final = text_in_path("who", "a VMM by UUID, the beginning of one, host name or ordinal (v17)")
_SLED: Final = uuid_in_path("sled_id", "a sled")
_RULE: Final = text_in_path("name", "a rule or manual trigger of the scenario")
_EXPECT: Final = (
    _WHO,
    one_of("state", "what it is to be, in words of the scenario language", STATES),
    number("within_ms", "how long to wait", most=WAIT_MAX_MS),
    number("since_us", "a state passed since then counts, too; microseconds since 1970", default=-1, least=-1),
    number("since_ms", "the same, by how long ago", default=-1, least=-1),
)
_EVENTS: Final = (
    number("after", "number of the last event that is known"),
    flag("follow", "1: and go on"),
    resume("last-event-id", "the same as `after`, as browsers say it"),
)
_FAULT: Final[OneOf[VmmFault]] = OneOf(
    "VmmFault",
    lambda: {
        "state": StateFault,
        "kill_propolis": KillFault,
        "forget_vmm": ForgetFault,
        "guest": GuestFault,
        "do": DoFault,
    },
)


def _companion_faults() -> Mapping[str, type[CompanionFault]]:
    from sim_sled.daemon.companion_faults import KINDS  # noqa: PLC0415 -- with all that stands beside a sled

    return KINDS


_COMPANION_FAULT: Final[OneOf[CompanionFault]] = OneOf("CompanionFault", _companion_faults)
_BESIDE: Final = "/sleds/{sled_id}/companions"

OPERATIONS: Final[tuple[Operation[Control, Any], ...]] = (
    *page_api.FILE_OPERATIONS,
    Operation("GET", "/page/feed", Control.page_feed, "What the page is told, as server-sent events",
              Text("text/event-stream"), parameters=page_api.FEED_PARAMETERS),
    Operation("GET", "/ready", Control.ready, "200 once Nexus knows every sled and has the rack", Readiness,
              others={503: Readiness}),
    Operation("GET", "/version", Control.version, "Which version this is", Version),
    *observed(ready=Control.readyz, metrics=Control.metrics),
    Operation("GET", "/sleds", Control.sleds, "The sleds", list[SledRow]),
    Operation("GET", "/sleds/{sled_id}/networking", Control.networking, "Virtual networks in effect on a sled",
              Networking, parameters=(_SLED,)),
    Operation("GET", _BESIDE, Control.companions, "Servers beside a sled: addresses, knobs, what waits to be refused",
              CompanionsShown, parameters=(_SLED,)),
    Operation("POST", _BESIDE, Control.suffer, "One fault of the servers beside a sled", Injected,
              parameters=(_SLED,), body=_COMPANION_FAULT),
    Operation("POST", "/sleds/{sled_id}/facts", Control.set_facts, "Facts of a sled, as a rule sets them", Injected,
              parameters=(_SLED,), body=FactsWanted),
    Operation("GET", "/vmms", Control.vmms, "The VMMs, a row each", list[VmmRow]),
    Operation("GET", "/vmms/{who}", Control.why, "Everything about a VMM, also of one that is gone", Why,
              parameters=(_WHO,)),
    Operation("GET", "/vmms/{who}/log", Control.log, "What happened to a VMM", list[LogLine], parameters=(_WHO,)),
    Operation("GET", "/vmms/{who}/story", Control.story, "A VMM's life and its why, both sides of a migration",
              Story, parameters=(_WHO,)),
    Operation("GET", "/vmms/{who}/expect", Control.expect, "Waits until a VMM is in a state", Expected,
              parameters=_EXPECT),
    Operation("POST", "/vmms/{who}/inject", Control.inject, "One fault of a VMM", Injected,
              parameters=(_WHO,), body=_FAULT),
    Operation("GET", "/events", Control.events, "What happened, a JSON line or server-sent event each",
              Text("application/jsonl", "text/event-stream"), parameters=_EVENTS),
    Operation("GET", "/rules", Control.rules, "The rules, how often each matched and fired", list[RuleRow]),
    Operation("GET", "/scenario", Control.played, "The scenario in effect: revision, file, last error", Played),
    Operation("PUT", "/rules", Control.load, "Other rules; a bad file changes nothing", Rules,
              others={400: BadScenario}, body=ScenarioText),
    Operation("POST", "/fire/{name}", Control.fire, "Fires a manual trigger", Fired, parameters=(_RULE,)),
    Operation("POST", "/release/{name}", Control.release, "Lets go what a rule holds", Released, parameters=(_RULE,)),
    Operation("GET", "/time", Control.time, "What time it is on the one clock of this daemon", Time),
    Operation("POST", "/pause", Control.pause, "Time stands; requests are answered all the same", Time),
    Operation("POST", "/resume", Control.resume, "Time goes on from where it stands", Time),
    Operation("POST", "/step", Control.step, "Time goes to what is due next, which happens; then it stands", Moved,
              body=StepsWanted, optional=True),
    Operation("POST", "/until", Control.until, "Time flies until a VMM is in a state, or for so long; then it stands",
              Moved, body=UntilWanted),
    Operation("GET", "/snapshot", Control.snapshot, "The whole rack as a file", dict[str, Any]),
    Operation("POST", "/restore", Control.restore, "Takes up what a file of /snapshot holds", Restored,
              body=SnapshotText, body_max=SNAPSHOT_TEXT_MAX),
    Operation("POST", "/scale", Control.scale, "Sleds join or leave a rack (sim-sled up)", Sleds, body=SledsWanted),
)  # fmt: skip
"""Everything this API has: routes, page and document come from here (docs/how-to-add.md)."""


async def serve_control(control: Control, address: SocketAddress) -> Listener:
    """Serve at `address`. Raises `BadToken` beyond loopback without a token, `OSError`."""
    require_token(address, control.token)
    return await listen(Server(control.api.handle), address)
