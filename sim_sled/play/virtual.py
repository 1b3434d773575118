"""The closed world: sleds, network, the Nexus model, users and rules on one virtual clock. No sockets, no clock.

    users ----> Nexus model ----requests, delayed by rules and network----> Rack
                     ^                                                        |
                     +-----reports, held, dropped, doubled, cut off-----------+

One heap holds what is on its way; the rack, the model, the rules and the users say when they are due. Time only
jumps, and only forward. With equal scenario and seed every step is the same in any process.

Over 500 lines: the ways between users, model, rules and rack are few lines each, and share one heap and one clock.

Read before: core/rack.py, engine/engine.py, play/conductor.py, play/users.py.
Read next: campaign/coverage.py, play/events.py, play/explain.py, play/run.py, play/translate.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import attrs
from msgspec.structs import replace

from nexus_client.dropshot.text import shown
from nexus_client.outbox import Delivered, Outcome, Transient
from nexus_client.registration import Found, GetReplied, GetSledAgent, NotFound, PostReplied
from nexus_client.stub import contract as nx
from nexus_client.stub.config import Config
from nexus_client.stub.hazards import PANICS
from nexus_client.stub.nexus import Nexus
from nexus_client.types import SledAgentInfo, SledVmmState, UpdatedRuntime
from sim_sled.core import contract
from sim_sled.core.crucible.agents import equip
from sim_sled.core.errors import PropolisSilent
from sim_sled.core.estate import ESTATE
from sim_sled.core.event import Event
from sim_sled.core.happenings import Happening
from sim_sled.core.rack import Rack
from sim_sled.core.spoil import How as Spoiling
from sim_sled.engine.cast import Subject
from sim_sled.engine.engine import Engine
from sim_sled.engine.plans import Expunge, Power, RestartNexus
from sim_sled.engine.reports import outcome_of
from sim_sled.http.answers import refusal
from sim_sled.language.distribution import drawn
from sim_sled.language.pacer import PresetPacer
from sim_sled.language.schema import Scenario
from sim_sled.play.asks import GONE, Answer, Ask
from sim_sled.play.calls import (
    STEP,
    Answered,
    Begin,
    Call,
    Carried,
    Due,
    Effect,
    Ended,
    Failed,
    Fire,
    Lost,
    Refused,
    Send,
    Spoilt,
)
from sim_sled.play.conductor import Conductor, Turn
from sim_sled.play.events import event_in_run, told_event
from sim_sled.play.fleet import configs_of, ids_of, model_of, needs_servers, outbox_of
from sim_sled.play.judge.expect import Judge
from sim_sled.play.stage import TasksSeen
from sim_sled.play.trace import LINES_MAX, Line
from sim_sled.play.translate import UNTOLD, asked, told, translate
from sim_sled.play.users import Users
from sim_sled.play.wrong_sleds import wrong_sled

EPOCH_US: Final = 1_767_225_600_000_000
"""When every run begins: 2026-01-01T00:00:00Z."""
REGISTRATION_STEPS_MAX: Final = 100_000
CONNECT_LOST_US: Final = 60_000_000
"""Nexus's time-out for a call to a sled (NX 3.1)."""
CONNECT_SILENT_US: Final = 15_000_000
"""... and for a connection that nobody answers: a peer without power is given up sooner, as its address is gone."""
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


@attrs.define(eq=False)
class World:
    """One run. `keep`: whether lines of the trace are kept; `on_line` is told each as it happens."""

    scenario: Scenario
    seed: int
    variant: str | None = None
    sled_variant: str | None = None
    bounds: Bounds = Bounds()
    keep: bool = True
    on_line: Callable[[Line], None] | None = None
    nexus_config: Config | None = None
    now_us: int = EPOCH_US
    steps: int = 0
    active_us: int = EPOCH_US
    """When something last happened that is not a mere round of Nexus's background tasks."""
    lines: list[Line] = attrs.field(factory=list)
    events: list[Event] | None = None
    """What happened, for programs; None: nobody wants it."""
    nexus: Nexus = attrs.field(init=False)
    conductor: Conductor = attrs.field(init=False)
    judge: Judge = attrs.field(init=False)
    users: Users = attrs.field(init=False)
    nexus_5xx: list[str] = attrs.field(factory=list)
    injected_5xx: set[str] = attrs.field(factory=set)
    _ticket: int = 0
    _waiting: dict[int, Callable[[nx.Reply | nx.Dropped], None]] = attrs.field(factory=dict)
    ids: dict[str, str] = attrs.field(factory=dict)
    _nexus_down_us: int = 0
    _asked: dict[int, tuple[Ask, Callable[[Answer], None]]] = attrs.field(factory=dict)
    """Requests of Nexus's own tasks on their way, by the key of their call."""
    _does: dict[type, Callable[[Any], None]] = attrs.field(init=False)
    """What is done about each effect of the conductor; of others nothing."""
    _model_does: dict[type, Callable[[Any], None]] = attrs.field(init=False)
    """... and about each of the model."""
    _nexus_turn: Turn = attrs.field(init=False)
    _users_turn: Turn = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        ids = ids_of(self.scenario)
        self.ids = {str(sled_id): name for name, sled_id in ids.items()}
        self.conductor = Conductor(
            Engine(self.scenario, self.seed, ids),
            self.seed,
            self,
            PresetPacer("instant", self.seed),
            network=self.network,
            patience_us=CONNECT_LOST_US,
            silence_us=CONNECT_SILENT_US,
            now_us=self.now_us,
            wrong=wrong_sled(self.sled_variant),
        )
        self.nexus = Nexus(self.nexus_config or model_of(self.scenario, self.variant), seed=self.seed)
        self.judge = Judge(self.scenario, self)
        self.engine.listener = self.judge
        self.users = Users(self)
        self._nexus_turn, self._users_turn = self._tick_nexus, self._act
        self._does = {
            Ended: self._ended,
            Send: self._send,
            contract.AskNexus: self._register,
            Power: self._set_power,
            Expunge: self._expunge,
            RestartNexus: self._restart_nexus,
            Due: self._boot_nexus,
            contract.TellNexus: self._told_nexus,
        }
        self._model_does = {
            nx.Reply: self._replied,
            nx.Dropped: self._replied,
            nx.CallSled: self._call,
            nx.Happened: self._happened,
            nx.Crashed: self._crashed,
        }
        for config in configs_of(self.scenario):
            self.rack.add_sled(config).outbox = outbox_of(self.scenario, self.seed)
        if needs_servers(self.scenario):
            equip(self.rack.sleds.values())

    @property
    def tasks(self) -> TasksSeen:
        """Of the users; see `Stage`."""
        return self.users.tasks

    @property
    def engine(self) -> Engine:
        return self.conductor.engine

    @property
    def rack(self) -> Rack:
        return self.conductor.rack

    # ---- life

    def begin(self) -> None:
        """Register the fleet in no time, then start the scenario's time."""
        for sled in self.rack.sleds.values():
            info = sled.info(sled.config.address, 12348)
            self._conduct(contract.Announce(sled.config.sled_id, info))
        for _ in range(REGISTRATION_STEPS_MAX):
            due_us = self.conductor.next_deadline_us()
            if due_us is None or due_us > self.now_us:
                break
            self._conduct(STEP)
        self._conduct(Begin())
        self.users.begin()
        self.line("world", f"{len(self.rack.sleds)} sleds registered")

    @property
    def elapsed_us(self) -> int:
        return self.now_us - EPOCH_US

    def next_us(self) -> int | None:
        """When the next step is due."""
        return self._next()[0]

    def _next(self) -> tuple[int | None, Turn]:
        """When, and whose turn it is. At equal times: the conductor (what is on its way, rules, sleds), Nexus, users,
        judges.
        """
        # written out: this is asked before every step
        due, whose = self.conductor.next_turn()
        other = self.nexus.next_deadline_us()
        if other is not None and (due is None or other < due):
            due, whose = other, self._nexus_turn
        other = self.users.next_deadline_us()
        if other is not None and (due is None or other < due):
            due, whose = other, self._users_turn
        other = self.judge.next_deadline_us()
        if other is not None and (due is None or other < due):
            due, whose = other, _judges_turn
        return due, whose

    def step(self) -> bool:
        """One thing happens; False: nothing ever will. Raises `TooMuch`."""
        due, whose = self._next()
        if due is None:
            return False
        self.steps += 1
        bounds, events = self.bounds, self.events
        if (
            self.steps > bounds.steps_max
            or due - EPOCH_US > bounds.until_us
            or self.conductor.on_the_way > bounds.heap_max
            or len(self.lines) > bounds.lines_max
            or (events is not None and len(events) > bounds.lines_max)
        ):
            raise self._too_much(due)
        now_us = max(self.now_us, due)
        self.now_us = self.conductor.now_us = now_us
        whose()
        out = self.conductor.take()
        if out:
            self._perform(out)
        self.judge.settle(now_us)
        return True

    def _tick_nexus(self) -> None:
        self.tell_nexus(_TICK)

    def _act(self) -> None:
        self.users.act(self.now_us)

    def _too_much(self, due: int) -> TooMuch:
        """Which bound of the run was reached."""
        bounds = self.bounds
        if self.steps > bounds.steps_max:
            return TooMuch(f"more than {bounds.steps_max} steps; stopped at {self.elapsed_us / 1e6:.3f} s")
        if due - EPOCH_US > bounds.until_us:
            return TooMuch(f"longer than {bounds.until_us / 1e6:.0f} s of virtual time")
        return TooMuch(f"too much at once; stopped at {self.elapsed_us / 1e6:.3f} s after {self.steps} steps")

    # ---- the trace

    def line(
        self,
        kind: str,
        text: str,
        who: Subject | None = None,
        sled: str = "-",
        *,
        status: int = 0,
        happening: Happening | None = None,
    ) -> None:
        """`happening`: it has an event of its own."""
        self.active_us = self.now_us
        if not self.keep and self.on_line is None:
            return
        vmm, hostname = ("-", "-") if who is None else (who.short, who.hostname)
        if who is not None and sled == "-":
            sled = who.sled.name
        one = Line(self.elapsed_us, kind, sled, vmm, hostname, shown(text))
        if self.keep:
            self.lines.append(one)
        if self.on_line is not None:
            self.on_line(one)
        if self.events is not None and happening is None:
            place = self.engine.cast.sleds.get(sled)
            at = None if place is None else place.id
            where = "" if sled == "-" else sled
            self.events.append(told_event(one.at_us, kind, who, one.text, sled=where, sled_id=at, status=status))

    # ---- what the conductor tells (`Watcher`)

    def tell(self, kind: str, who: Subject | None, sled: str, text: str, /) -> None:
        self.line(kind, self.readable(text) if text.startswith("cannot ") else text, who, sled)

    def happened(self, happening: Happening, who: Subject | None, /) -> None:
        self.judge.happened(happening, who)
        if who is None:
            return
        if self.events is not None:
            self.events.append(event_in_run(self.elapsed_us, happening, who, told(happening)))
        if happening.kind in UNTOLD:
            return
        if not self.keep and self.on_line is None:
            self.active_us = self.now_us  # no line is made up that nobody reads
            return
        text = told(happening)
        if text:
            self.line(happening.kind.value.replace(" ", "-"), text, who, happening=happening)

    def carried(self, call: Call, ending: Carried | Refused, who: Subject | None, /) -> None:
        sled = self.engine.cast.by_id[call.item.sled_id]
        if isinstance(ending, Refused):
            answer = refusal(ending.error)
            # a Propolis that is silent was silenced by a rule, which explains the answer
            if answer.status >= 500 and not isinstance(ending.error, PropolisSilent):
                self.nexus_5xx.append(f"{call.op} answered {answer.status}: {ending.error.message}")
            return
        if call.key in self._asked:
            return  # its task tells what it comes to
        if call.op == "vmm_register":
            self.judge.invariants.registered(sled.id)
        if call.op != "vmm_get_state":
            self.line("request", self.for_line(f"{call.op}{asked(call.item)}: 200"), who, sled.name, status=200)

    def lost(self, who: Subject, /) -> None:
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
            who = self.engine.cast.subjects.get(UUID(key))
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
        nexus, does = self.nexus, self._model_does
        for effect in nexus.handle(item, self.now_us):
            does[type(effect)](effect)
        if nexus.broken:
            raise nexus.broken[0]
        self.judge.nexus_moved()

    def _replied(self, effect: nx.Reply | nx.Dropped) -> None:
        answered = self._waiting.pop(effect.ticket, None)
        if answered is not None:
            answered(effect)

    def _crashed(self, _effect: nx.Crashed) -> None:
        self.line("nexus", "down")
        self.conductor.put(self._nexus_down_us or RESTARTED_US, Due(_BOOT))

    def _happened(self, line: nx.Happened) -> None:
        if line.what in _CHANGE_NOTHING:
            return  # most of all lines
        if line.what == "public":
            row = self.nexus.records.instances.get(line.instance_id) if line.instance_id is not None else None
            hostname = row.hostname if row is not None else "-"
            known = line.propolis_id in self.engine.cast.subjects
            self._nexus_line("public", line, line.text if known else f"{hostname} {line.text}")
            lives = row is not None and row.time_deleted is None and self.nexus.up
            if row is not None and lives and self.nexus.public_state(row.id).value == line.text:
                self.judge.invariants.public(row.id, line.text)
        elif line.what in ("task", "crash", "saga") and "inconclusive" not in line.text:
            row = self.nexus.records.instances.get(line.instance_id) if line.instance_id is not None else None
            about = f"{row.hostname}: " if row is not None else ""
            if line.what != "saga" or "unwind" in line.text or "stuck" in line.text:
                self._nexus_line(line.what, line, about + self.for_line(line.text))
            if line.what == "crash" and line.text.startswith(PANICS):
                self.judge.invariants.panicked(line.text)
        elif line.what == "commit" and line.instance_id is not None:
            self.judge.invariants.commit(line.instance_id, line.text)
        if line.instance_id is not None:
            self.judge.touch_instance(line.instance_id)
            self.judge.invariants.changed[line.instance_id] = None

    def _nexus_line(self, kind: str, line: nx.Happened, text: str) -> None:
        who = self.engine.cast.subjects.get(line.propolis_id) if line.propolis_id is not None else None
        self.line(kind, text, who, "nexus")

    def _call(self, call: nx.CallSled) -> None:
        """Nexus asks a sled: over the network, past the rules, into the rack, and back."""
        self._ticket += 1
        op, item = translate(call, self._ticket)
        if isinstance(call.op, nx.GetVmmState):
            self.judge.invariants.checked(call.op.propolis_id)
        self.conductor.put(self.network(op, call.call_id), Call(call.call_id, op, item))

    def request(self, wish: Ask, answered: Callable[[Answer], None]) -> None:
        """See `Stage`; over the network and past the rules, as a call of the model."""
        self._ticket += 1
        key = -self._ticket  # the model counts its own from 1
        self._asked[key] = (wish, answered)
        item = contract.CallArea(self._ticket, wish.sled_id, ESTATE, wish.call, wish.op)
        self.conductor.put(self.network(wish.op, self._ticket), Call(key, wish.op, item))

    def network(self, what: str, nth: int) -> int:
        latency = self.engine.takes("network", "network")
        return 0 if latency is None else drawn(latency, self.seed, f"network/{what}", "", nth)

    # ---- effects

    def _conduct(self, item: Any) -> None:
        """One input of the conductor, and what it wants done."""
        self._perform(self.conductor.handle(item, self.now_us))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            do = self._does.get(type(effect))
            if do is not None:
                do(effect)

    def _set_power(self, wish: Power) -> None:
        power = "a0" if wish.on else "off"
        self.ask(lambda ticket: nx.SetSled(ticket, wish.sled_id, power=power), lambda _: None)

    def _expunge(self, wish: Expunge) -> None:
        self.ask(lambda ticket: nx.SetSled(ticket, wish.sled_id, policy="expunged"), lambda _: None)

    def _told_nexus(self, effect: contract.TellNexus) -> None:
        self.line("upstairs", self.readable(effect.path), None, self.engine.cast.by_id[effect.sled_id].name)

    def _ended(self, ended: Ended) -> None:
        call, ending = ended.call, ended.ending
        if isinstance(ending, Spoilt) and ending.spoil.how is Spoiling.DRIBBLE:
            ended = replace(ended, ending=(ending := Carried(ending.value)))  # all of it has come by now
        asked_by = self._asked.pop(call.key, None)
        if asked_by is not None:
            self._answered(ended, *asked_by)
            return
        if call.op in _REGISTRATION and ended.who is not None and not isinstance(ending, Carried):
            self.judge.invariants.unheard(ended.who)
        text, status = "", 0
        outcome: nx.Outcome
        match ending:
            case Carried(value):
                assert value is None or isinstance(value, SledVmmState | UpdatedRuntime), (
                    "what requests of VMMs are answered"
                )
                outcome = nx.Answered(value)
            case Spoilt(spoil, _):
                outcome, text = nx.Malformed(f"the answer {spoil.how.value}"), f"the answer {spoil.how.value}"
            case Refused(error):
                answer = refusal(error)
                outcome = nx.ErrorAnswered(answer.status, answer.error_code, answer.message)
                text, status = f"{answer.status} {answer.error_code or ''}".strip(), answer.status
            case Failed(fail):
                if fail.status >= 500:
                    self.injected_5xx.add(f"{call.op} {fail.status}")
                outcome = nx.ErrorAnswered(fail.status, fail.code, fail.message)
                text, status = f"{fail.status} {fail.code or ''}".strip(), fail.status
            case Lost():
                outcome, text = _LOST[ending], ending.value
        if text:
            name = self.engine.cast.by_id[call.item.sled_id].name
            self.line(
                "request", self.for_line(f"{call.op}{asked(call.item)}: {text}"), ended.who, name, status=status
            )
        self.tell_nexus(nx.SledAnswered(call.key, outcome))

    def _answered(self, ended: Ended, wish: Ask, answered: Callable[[Answer], None]) -> None:
        match ended.ending:
            case Carried(value):
                answer = Answer(200, wish.told(value))
            case Spoilt(spoil, _):
                answer = Answer(GONE, f"the answer {spoil.how.value}")
            case Refused(error):
                said = refusal(error)
                answer = Answer(said.status, said.message)
            case Failed(fail):
                answer = Answer(fail.status, fail.message)
            case Lost():
                answer = Answer(GONE, ended.ending.value)
        if not answer.good:
            name = self.engine.cast.by_id[wish.sled_id].name
            told = f"{answer.status}" if answer.status else str(answer.body)
            self.line("request", f"{wish.op}: {told}", None, name, status=answer.status)
        answered(answer)

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
        self.conductor.put(0, contract.RegistrationReplied(sled_id, answer))

    def _send(self, send: Send) -> None:
        def answered(reply: nx.Reply | nx.Dropped) -> None:
            outcome: Outcome
            if isinstance(reply, nx.Dropped):
                outcome = Transient("connection closed")
            else:
                outcome = outcome_of(reply.status)
                if reply.status >= 500 and send.answered:
                    said = reply.body
                    assert isinstance(said, nx.ErrorBody), "what an error says"
                    self.nexus_5xx.append(f"report answered {reply.status}: {said.detail or said.message}")
            self._conduct(Answered(send, outcome))

        self.judge.invariants.before_report(send.propolis_id, send.body)
        self.ask(lambda ticket: nx.VmmReported(ticket, send.propolis_id, send.body), answered)
        self.judge.invariants.after_report(send.propolis_id)

    def _restart_nexus(self, effect: RestartNexus) -> None:
        self._nexus_down_us = effect.down_us
        if effect.point == "now":
            self.tell_nexus(nx.Crash())
        else:
            point = nx.CrashPoint(effect.point)
            self.ask(lambda ticket: nx.ArmCrash(ticket, point), lambda _: None)

    def _boot_nexus(self, _effect: Due) -> None:
        self.line("nexus", "up")
        self.tell_nexus(nx.Boot())

    def fire(self, name: str) -> None:
        """A person fires a manual trigger."""
        self._conduct(Fire(name))


def _judges_turn() -> None:
    """Nobody acts: the judges look after every step."""


_TICK: Final = nx.Tick()
_CHANGE_NOTHING: Final = frozenset({"called", "returned", "reported"})
"""What the model tells without having changed a record."""
_BOOT: Final = "boot"
RESTARTED_US: Final = 1_000_000
"""A Nexus that dies by itself is started again after so long, as its supervisor would."""
_REGISTRATION: Final = ("vmm_register", "vmm_unregister")
_LOST: Final[dict[Lost, nx.Outcome]] = {
    Lost.NO_ANSWER: nx.TimedOut(),
    Lost.SILENT: nx.NoConnection("connection timed out"),
    Lost.REFUSED: nx.NoConnection(),
    Lost.RESET: nx.NoConnection("connection reset"),
    Lost.CLOSED: nx.NoConnection("connection closed"),
}
"""What a caller sees of each way in which no answer comes."""
