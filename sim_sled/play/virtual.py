"""The closed world: sleds, network, the Nexus model, users and rules on one virtual clock. No sockets, no clock.

    users ----> Nexus model ----requests, delayed by rules and network----> Rack
                     ^                                                        |
                     +-----reports, held, dropped, doubled, cut off-----------+

One heap holds what is on its way; the rack, the model, the rules and the users say when they are due. Time only
jumps, and only forward. With equal scenario and seed every step is the same in any process.

Read before: core/rack.py, engine/engine.py, play/users.py. Read next: play/explain.py, play/run.py,
play/translate.py, play/virtual_calls.py.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID, uuid5

import attrs

from nexus_client.backoff import Policy
from nexus_client.outbox import Delivered, Outbox, Permanent, Transient
from nexus_client.registration import Found, GetReplied, GetSledAgent, NotFound, PostReplied
from nexus_client.stub import contract as nx
from nexus_client.stub.config import Config, SagaMode
from nexus_client.stub.nexus import Nexus
from nexus_client.types import SledAgentInfo, SledCpuFamily, SledRole
from sim_sled.core import contract
from sim_sled.core.config import Hardware, SledConfig
from sim_sled.core.errors import SledError
from sim_sled.core.happenings import Happening, Kind
from sim_sled.core.rack import Rack
from sim_sled.engine.cast import Subject
from sim_sled.engine.engine import Engine
from sim_sled.engine.plans import (
    Answer,
    Deliver,
    EngineEffect,
    Force,
    Forget,
    Freeze,
    Kill,
    Power,
    Publication,
    RestartNexus,
    TakeSnapshot,
    vmm_state,
)
from sim_sled.engine.reports import outcome_of
from sim_sled.language.check import sleds_of
from sim_sled.language.distribution import Fixed
from sim_sled.language.draw import draw
from sim_sled.language.schema import Scenario, Shape
from sim_sled.language.source import Mark
from sim_sled.play.judge.expect import Judge
from sim_sled.play.trace import LINES_MAX, Line
from sim_sled.play.translate import body_of, told
from sim_sled.play.users import Users
from sim_sled.play.virtual_calls import Calls

EPOCH_US: Final = 1_767_225_600_000_000
"""When every run begins: 2026-01-01T00:00:00Z."""
REGISTRATION_STEPS_MAX: Final = 100_000
NAMESPACE: Final = UUID("5d1f3c1e-9f0a-5b7c-8a63-2f1d8f6d3a10")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class TooMuch(Exception):
    """A bound of the run was reached; the text says which and how far the run came."""


@attrs.frozen
class Bounds:
    """No run goes beyond these. `until_us` and `steps_max` are those of one run, heap and lines of memory."""

    steps_max: int = 20_000_000
    until_us: int = 30 * 86_400_000_000
    heap_max: int = 2_000_000
    lines_max: int = LINES_MAX


def hardware_of(shape: Shape) -> Hardware:
    """What a sled of this shape says it is made of."""
    return Hardware(
        hardware_threads=shape.cpus,
        physical_ram=shape.ram,
        reservoir_size=shape.reservoir,
        zpools=shape.zpools,
        cpu_family=SledCpuFamily(shape.cpu_family),
        role=SledRole(shape.role),
        baseboard_model=shape.model,
    )


@attrs.define(eq=False)
class World:
    """One run. `keep`: whether lines of the trace are kept; `on_line` is told each as it happens."""

    scenario: Scenario
    seed: int
    variant: str | None = None
    bounds: Bounds = Bounds()
    keep: bool = True
    on_line: Callable[[Line], None] | None = None
    nexus_config: Config | None = None
    now_us: int = EPOCH_US
    steps: int = 0
    active_us: int = EPOCH_US
    """When something last happened that is not a mere round of Nexus's background tasks."""
    lines: list[Line] = attrs.field(factory=list)
    rack: Rack = attrs.field(init=False)
    nexus: Nexus = attrs.field(init=False)
    engine: Engine = attrs.field(init=False)
    judge: Judge = attrs.field(init=False)
    users: Users = attrs.field(init=False)
    calls: Calls = attrs.field(init=False)
    nexus_5xx: list[str] = attrs.field(factory=list)
    injected_5xx: set[str] = attrs.field(factory=set)
    _heap: list[tuple[int, int, Callable[[], None]]] = attrs.field(factory=list)
    _count: int = 0
    _ticket: int = 0
    _waiting: dict[int, Callable[[nx.Reply | nx.Dropped], None]] = attrs.field(factory=dict)
    ids: dict[str, str] = attrs.field(factory=dict)
    _nexus_down_us: int = 0

    def __attrs_post_init__(self) -> None:
        sleds = sleds_of(self.scenario.fleet)
        ids = {sled.name: uuid5(NAMESPACE, f"sled/{sled.name}") for sled in sleds}
        self.engine = Engine(self.scenario, self.seed, ids, tell=self._tell)
        self.rack = Rack(pacer=self.engine, seed=self.seed, watch=self._watch)
        # queued: what lies between two nodes of a saga shows, and reports and users can come between
        model = Config(variant=self.variant, saga_mode=SagaMode.QUEUED, saga_node_us=5_000)
        self.nexus = Nexus(self.nexus_config or model, seed=self.seed)
        self.judge = Judge(self.scenario, self)
        self.engine.listener = self.judge
        self.users = Users(self)
        self.calls = Calls(self)
        for i, sled in enumerate(sleds):
            hardware = hardware_of(sled.shape)
            grace_us = self.scenario.agent.stop_grace
            config = SledConfig(
                ids[sled.name], f"[fd00:1122:3344:{0x101 + i:x}::1]:12345", hardware=hardware, stop_grace_us=grace_us
            )
            made = self.rack.add_sled(config)
            made.outbox = Outbox(policy=self._policy(), seed=self.seed)
            self.ids[str(ids[sled.name])] = sled.name

    def _policy(self) -> Policy:
        retry = self.scenario.agent.retry
        first = max(1, retry.first)
        return Policy(first, max(101, round(retry.factor * 100)), max(first, retry.max))

    # ---- life

    def begin(self) -> None:
        """Register the fleet in no time, then start the scenario's time."""
        for sled in self.rack.sleds.values():
            info = sled.info(sled.config.address, 12348)
            self.perform(self.rack.handle(contract.Announce(sled.config.sled_id, info), self.now_us))
        for _ in range(REGISTRATION_STEPS_MAX):
            if not self._heap or self._heap[0][0] > self.now_us:
                break
            heapq.heappop(self._heap)[2]()
        self.engine.begin(self.now_us)
        self.users.begin()
        self.line("world", f"{len(self.rack.sleds)} sleds registered")
        self._drain()

    @property
    def elapsed_us(self) -> int:
        return self.now_us - EPOCH_US

    def next_us(self) -> int | None:
        """When the next step is due."""
        return self._next()[0]

    def _next(self) -> tuple[int | None, str]:
        """When, and whose turn it is. At equal times: what is on its way, rules, sleds, Nexus, users, judges."""
        # written out: this is asked before every step
        due = self._heap[0][0] if self._heap else None
        whose = "message"
        other = self.engine.next_deadline_us()
        if other is not None and (due is None or other < due):
            due, whose = other, "rules"
        other = self.rack.next_deadline_us()
        if other is not None and (due is None or other < due):
            due, whose = other, "sleds"
        other = self.nexus.next_deadline_us()
        if other is not None and (due is None or other < due):
            due, whose = other, "nexus"
        other = self.users.next_deadline_us()
        if other is not None and (due is None or other < due):
            due, whose = other, "users"
        other = self.judge.next_deadline_us()
        if other is not None and (due is None or other < due):
            due, whose = other, "judges"
        return due, whose

    def step(self) -> bool:
        """One thing happens; False: nothing ever will. Raises `TooMuch`."""
        due, whose = self._next()
        if due is None:
            return False
        self.steps += 1
        self._bound(due)
        now_us = self.now_us = max(self.now_us, due)
        match whose:
            case "message":
                heapq.heappop(self._heap)[2]()
            case "rules":
                self.engine.tick(now_us)
            case "sleds":
                self.engine.now_us = now_us
                self.perform(self.rack.handle(contract.Tick(), now_us))
            case "nexus":
                self.tell_nexus(nx.Tick())
            case "users":
                self.users.act(now_us)
        if self.engine.effects:
            self._drain()
        self.judge.settle(now_us)
        return True

    def _bound(self, due: int) -> None:
        bounds = self.bounds
        if self.steps > bounds.steps_max:
            raise TooMuch(f"more than {bounds.steps_max} steps; stopped at {self.elapsed_us / 1e6:.3f} s")
        if due - EPOCH_US > bounds.until_us:
            raise TooMuch(f"longer than {bounds.until_us / 1e6:.0f} s of virtual time")
        if len(self._heap) > bounds.heap_max or len(self.lines) > bounds.lines_max:
            raise TooMuch(f"too much at once; stopped at {self.elapsed_us / 1e6:.3f} s after {self.steps} steps")

    def later(self, after_us: int, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now_us + after_us, self._count, act))

    # ---- the trace

    def line(self, kind: str, text: str, who: Subject | None = None, sled: str = "-") -> None:
        self.active_us = self.now_us
        if not self.keep and self.on_line is None:
            return
        vmm, hostname = ("-", "-") if who is None else (who.short, who.hostname)
        if who is not None and sled == "-":
            sled = who.sled.name
        one = Line(self.elapsed_us, kind, sled, vmm, hostname, text)
        if self.keep:
            self.lines.append(one)
        if self.on_line is not None:
            self.on_line(one)

    def _tell(self, kind: str, who: object, sled: str, text: str, _mark: Mark | None, /) -> None:
        assert who is None or isinstance(who, Subject)
        self.line(kind, text, who, sled)

    def _watch(self, happening: Happening) -> None:
        """The rack's happenings: told, then given to the rules."""
        who = self.engine.subjects.get(happening.propolis_id) if happening.propolis_id is not None else None
        if happening.kind is Kind.SENT:
            assert isinstance(happening.data, tuple)
            self.judge.invariants.sent(who, happening.data[0])
        text = told(happening)
        if text and happening.propolis_id is not None and who is not None:
            self.line(happening.kind.value.replace(" ", "-"), text, who)
        self.engine.watch(happening)
        if who is not None:
            self.judge.touch(who)

    def readable(self, text: str) -> str:
        """Ids replaced by names, so that traces of different seeds can be compared by eye."""
        return _UUID.sub(lambda m: self._name(m[0]), text) if "-" in text else text

    def for_line(self, text: str) -> str:
        """As `readable`, if anybody will read the line."""
        return text if not self.keep and self.on_line is None else self.readable(text)

    def _name(self, key: str) -> str:
        found = self.ids.get(key)
        if found is None:
            who = self.engine.subjects.get(UUID(key))
            if who is not None:
                return who.short
            row = self.nexus.records.instances.get(UUID(key))
            found = row.hostname if row is not None else key[:8]
        return found

    # ---- Nexus

    def ask(self, make: Callable[[int], Any], answered: Callable[[nx.Reply | nx.Dropped], None]) -> None:
        """An input of the model that has a ticket; its answer comes back by `answered`, now or later."""
        self._ticket += 1
        self._waiting[self._ticket] = answered
        self.tell_nexus(make(self._ticket))

    def tell_nexus(self, item: Any) -> None:
        for effect in self.nexus.handle(item, self.now_us):
            match effect:
                case nx.Reply() | nx.Dropped():
                    answered = self._waiting.pop(effect.ticket, None)
                    if answered is not None:
                        answered(effect)
                case nx.CallSled():
                    self.calls.call(effect)
                case nx.Happened():
                    self._happened(effect)
                case nx.Crashed():
                    self.line("nexus", "down")
                    self.later(max(1, self._nexus_down_us), self._boot_nexus)
        if self.nexus.broken:
            raise self.nexus.broken[0]
        self.judge.nexus_moved()

    def _happened(self, line: nx.Happened) -> None:
        if line.what in ("called", "returned", "reported"):
            return  # nothing of a record has changed by these; they are most of all lines
        if line.what == "public":
            row = self.nexus.records.instances.get(line.instance_id) if line.instance_id is not None else None
            hostname = row.hostname if row is not None else "-"
            known = line.propolis_id in self.engine.subjects
            self._nexus_line("public", line, line.text if known else f"{hostname} {line.text}")
            lives = row is not None and row.time_deleted is None and self.nexus.up
            if row is not None and lives and self.nexus.public_state(row.id).value == line.text:
                self.judge.invariants.public(row.id, line.text)
        elif line.what in ("task", "crash", "saga") and "inconclusive" not in line.text:
            row = self.nexus.records.instances.get(line.instance_id) if line.instance_id is not None else None
            about = f"{row.hostname}: " if row is not None else ""
            if line.what != "saga" or "unwind" in line.text or "stuck" in line.text:
                self._nexus_line(line.what, line, about + self.for_line(line.text))
        elif line.what == "commit" and line.instance_id is not None:
            self.judge.invariants.commit(line.instance_id, line.text)
        if line.instance_id is not None:
            self.judge.touch_instance(line.instance_id)
            self.judge.invariants.changed[line.instance_id] = None

    def _nexus_line(self, kind: str, line: nx.Happened, text: str) -> None:
        who = self.engine.subjects.get(line.propolis_id) if line.propolis_id is not None else None
        self.line(kind, text, who, "nexus")

    def next_ticket(self) -> int:
        self._ticket += 1
        return self._ticket

    def network(self, what: str, nth: int) -> int:
        latency = self.engine.takes("network", "network")
        if latency is None or isinstance(latency, Fixed):
            return 0 if latency is None else latency.us
        return latency.at(draw(self.seed, f"network/{what}", "", nth))

    # ---- effects

    def perform(self, effects: list[contract.Effect]) -> None:
        for effect in effects:
            if type(effect) is contract.PutToNexus:
                self.engine.now_us = self.now_us
                self.engine.post.publish(
                    Publication(effect.sled_id, effect.propolis_id, effect.body, effect.attempt, effect.serial)
                )
            elif isinstance(effect, contract.AskNexus):
                self._register(effect)

    def _register(self, effect: contract.AskNexus) -> None:
        def got(reply: nx.Reply | nx.Dropped) -> None:
            if isinstance(reply, nx.Dropped) or reply.status >= 500:
                answer: GetReplied | PostReplied = GetReplied(Transient("Nexus is down"))
            elif reply.status == 404:
                answer = GetReplied(NotFound())
            else:
                answer = GetReplied(Found(reply.body))
            self._registered(effect.sled_id, answer)

        def posted(reply: nx.Reply | nx.Dropped) -> None:
            bad = isinstance(reply, nx.Dropped) or reply.status >= 500
            self._registered(effect.sled_id, PostReplied(Transient("Nexus is down") if bad else Delivered()))

        if isinstance(effect.call, GetSledAgent):
            self.ask(lambda ticket: nx.SledGot(ticket, effect.sled_id), got)
        else:
            info: SledAgentInfo = effect.call.info
            self.ask(lambda ticket: nx.SledPosted(ticket, effect.sled_id, info), posted)

    def _registered(self, sled_id: UUID, answer: GetReplied | PostReplied) -> None:
        self.later(
            0, lambda: self.perform(self.rack.handle(contract.RegistrationReplied(sled_id, answer), self.now_us))
        )

    def _drain(self) -> None:
        """Whatever the rules want done is done; it may make them want more."""
        while effects := self.engine.take():
            for effect in effects:
                self._wanted(effect)

    def _wanted(self, effect: EngineEffect) -> None:
        match effect:
            case Deliver():
                after_us = effect.after_us + self.network("report", effect.publication.serial)
                self.later(after_us, lambda: self._reports(effect))
            case Answer():
                self.later(effect.after_us, lambda: self._replied(effect.publication, effect.outcome))
            case Power():
                power = "a0" if effect.on else "off"
                self.ask(lambda ticket: nx.SetSled(ticket, effect.sled_id, power=power), lambda _: None)
            case RestartNexus():
                self._restart_nexus(effect)
            case TakeSnapshot():
                self.line("snapshot", f"{effect.name}: {self._snapshot()}")
            case Force() | Kill() | Forget() | Freeze():
                self._inject(effect)

    def _reports(self, deliver: Deliver) -> None:
        publication = deliver.publication

        def answered(reply: nx.Reply | nx.Dropped) -> None:
            if not deliver.answered:
                return
            outcome: Delivered | Transient | Permanent
            if isinstance(reply, nx.Dropped):
                outcome = Transient("connection closed")
            else:
                outcome = outcome_of(reply.status)
                if reply.status >= 500:
                    self.nexus_5xx.append(f"report answered {reply.status}: {reply.body}")
            if deliver.answer_lost:
                self.later(15_000_000, lambda: self._replied(publication, Transient("timed out")))
                return
            back_us = self.network("report/back", publication.serial)
            self.later(back_us, lambda: self._replied(publication, outcome))

        self.judge.invariants.before_report(publication.propolis_id, deliver.body)
        self.ask(lambda ticket: nx.VmmReported(ticket, publication.propolis_id, deliver.body), answered)
        self.judge.invariants.after_report(publication.propolis_id)

    def _replied(self, publication: Publication, outcome: Any) -> None:
        item = contract.NexusReplied(publication.sled_id, publication.propolis_id, publication.serial, outcome)
        self.engine.now_us = self.now_us
        self.perform(self.rack.handle(item, self.now_us))

    def _restart_nexus(self, effect: RestartNexus) -> None:
        self._nexus_down_us = effect.down_us
        if effect.point == "now":
            self.tell_nexus(nx.Crash())
        else:
            point = nx.CrashPoint(effect.point)
            self.ask(lambda ticket: nx.ArmCrash(ticket, point), lambda _: None)

    def _boot_nexus(self) -> None:
        self.line("nexus", "up")
        self.tell_nexus(nx.Boot())

    def _inject(self, effect: Force | Kill | Forget | Freeze) -> None:
        ticket = self.next_ticket()
        sled_id, propolis_id = effect.sled_id, effect.propolis_id
        item: contract.Input
        match effect:
            case Force(_, _, state, illegal):
                item = contract.InjectState(ticket, sled_id, propolis_id, vmm_state(state), illegal)
            case Kill(_, _, restart):
                item = contract.KillPropolis(ticket, sled_id, propolis_id, restart)
            case Forget():
                item = contract.ForgetVmm(ticket, sled_id, propolis_id)
            case Freeze(_, _, frozen):
                item = contract.PropolisInput(ticket, sled_id, propolis_id, body_of(frozen=frozen))
        self.engine.now_us = self.now_us
        who = self.engine.subjects.get(propolis_id)
        try:
            self.perform(self.rack.handle(item, self.now_us))
        except SledError as error:
            if not isinstance(effect, Freeze):
                self.line("rule", f"cannot {type(effect).__name__.lower()}: {self.readable(error.message)}", who)
            return
        if isinstance(effect, Forget) and who is not None:
            self.line("lost", "the agent has forgotten it", who)
            self.engine.lost(who)
            self.judge.touch(who)

    def _snapshot(self) -> str:
        vmms = [
            f"{who.short}={who.truth}" for who in sorted(self.engine.subjects.values(), key=lambda w: w.ordinal)
            if not who.gone
        ]  # fmt: skip
        return f"{len(vmms)} VMMs, {len(self.engine.post.held)} reports held; {' '.join(vmms[:200])}"

    def fire(self, name: str) -> bool:
        """A person fires a manual trigger."""
        self.engine.now_us = self.now_us
        fired = self.engine.fire(name)
        self._drain()
        return fired
