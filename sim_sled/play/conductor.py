"""One conductor for every world: what a scenario means between Nexus and the sleds, as a pure core.

    Nexus --Call--> [rules: delay, fail, hang, reset, a sled that is down] --> rack --> Ended
    rack --report--> [rules: hold, drop, duplicate, reorder, cut off] --> Send --> Nexus --Answered--> rack

`handle(input, now_us) -> effects` takes inputs of its own and those of the rack; `next_deadline_us()` is when `Step`
has something to do. In virtual time the model of Nexus stands around it (virtual.py); in a daemon an event loop does
(daemon/daemon.py). A daemon without a scenario has none: there everything passes straight through (play/passage.py).

What is on its way (a delayed request, a held answer, a report on the network) is an input in the heap, handled then.

Over 500 lines: one function for each input on either of the two ways.

Read before: core/rack.py, engine/engine.py, engine/requests.py, engine/rule_pacer.py, play/calls.py, play/fleet.py,
play/passage.py.
Read next: play/virtual.py, play/wrong_sleds.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import attrs
from msgspec import Struct

from nexus_client.outbox import Outcome, Transient
from propolis_stub.waiting import Edge, Pace, Pacer, Point
from sim_sled.core import contract
from sim_sled.core.errors import ConnectionDropped, SledError
from sim_sled.core.estate import AtOnce, SledPacer
from sim_sled.core.happenings import Happening
from sim_sled.core.rack import Rack
from sim_sled.core.vmm import Vmm
from sim_sled.engine import requests, rule_pacer
from sim_sled.engine.act.firing import NOBODY
from sim_sled.engine.cast import Subject
from sim_sled.engine.engine import Engine
from sim_sled.engine.plans import (
    CLIENT_LOST_US,
    Answer,
    Deliver,
    EngineEffect,
    Inject,
    Overrun,
    Publication,
    RequestPlan,
    TakeSnapshot,
)
from sim_sled.language.figures import FOREVER
from sim_sled.play.calls import (
    SILENCE_US,
    STEP,
    Answered,
    Begin,
    Call,
    Carried,
    Due,
    Effect,
    Ended,
    Ending,
    Failed,
    Fire,
    LetGo,
    Load,
    Lost,
    Plain,
    Refused,
    Send,
    Spoilt,
    Step,
    Watcher,
)
from sim_sled.play.fleet import engine_for, outbox_of
from sim_sled.play.wrong_sleds import WrongSled

Turn = Callable[[], None]
"""What is done when somebody's time has come."""
ON_THE_WAY_MAX: Final = 2_000_000
"""What may be on its way at a time: two for each of a million VMMs; more is a rule that multiplies."""
TOLD_MAX: Final = 200
"""VMMs that a snapshot tells one by one: a line is read by people."""


# ---- the core


@attrs.define(eq=False)
class _Open:
    """A request on its way. `over`: its caller has its answer, or has given it up."""

    call: Call
    plan: RequestPlan
    who: Subject | None
    over: bool = False


class _CarryOut(Struct, frozen=True, eq=False):
    open: _Open


class _Hung(Struct, frozen=True, eq=False):
    open: _Open


class _Fails(Struct, frozen=True, eq=False):
    open: _Open


class _Ends(Struct, frozen=True, eq=False):
    open: _Open
    ending: Ending


class _Reply(Struct, frozen=True):
    """Nexus's answer to a report reaches the sled."""

    publication: Publication
    outcome: Outcome


def _no_network(_what: str, _nth: int) -> int:
    return 0


@attrs.define(eq=False)
class Conductor:
    """`network`: how long a way takes, in microseconds, by name and ordinal. `patience_us`: when the caller of a
    request gives it up, None where a real caller does so; `silence_us`: how long a connection is kept to
    which nothing answers. `base`: the pacer while there are no rules. `first_name`: which sled of a fleet the first
    is. `watched`: whether the watcher is told happenings (a rack without is faster). `rack`: its own, or one that
    was there before, whose pacer and watch ask this conductor.
    """

    engine: Engine
    seed: int
    watcher: Watcher
    base: Pacer
    network: Callable[[str, int], int] = _no_network
    patience_us: int | None = None
    silence_us: int = SILENCE_US
    first_name: str | None = None
    watched: bool = True
    sled_pacer: SledPacer = attrs.field(factory=AtOnce)
    wrong: WrongSled | None = None
    """Sleds that are wrong on purpose, to prove a judge."""
    rack: Rack = attrs.field()
    now_us: int = 0
    begun: bool = False
    _heap: list[tuple[int, int, Any]] = attrs.field(factory=list)
    _count: int = 0
    _out: list[Effect] = attrs.field(factory=list)
    _acts: dict[type, Callable[[Any], None]] = attrs.field(init=False)
    _way_turn: Turn = attrs.field(init=False)
    _rules_turn: Turn = attrs.field(init=False)
    _sleds_turn: Turn = attrs.field(init=False)
    _late: dict[int, _Open] = attrs.field(factory=dict)
    """Requests that the rack answers later, by ticket."""

    @rack.default
    def _own_rack(self) -> Rack:
        watch = self.watch if self.watched or self.has_rules else None
        return Rack(pacer=self, seed=self.seed, watch=watch, sled_pacer=self.sled_pacer)

    def __attrs_post_init__(self) -> None:
        self.engine.tell = self._tell
        self._way_turn, self._rules_turn, self._sleds_turn = self._what_has_come, self._rules, self._sleds
        # what each input of its own does; every other is the rack's
        self._acts = {
            Step: self._step,
            Call: self._arrives,
            _CarryOut: self._carry_out,
            _Ends: self._end,
            _Hung: self._hung,
            _Fails: self._fails,
            Deliver: self._delivers,
            Answered: self._answered,
            _Reply: self._replies,
            Due: self._out_of_here,
            Begin: self._begin,
            Fire: self._fire,
            LetGo: self._let_go,
            Load: self._load,
        }

    @property
    def has_rules(self) -> bool:
        """Whether a scenario is played; without one everything passes straight through."""
        return bool(self.engine.cast.sleds)

    # ---- the doors

    def next_deadline_us(self) -> int | None:
        """When `Step` has something to do."""
        return self.next_turn()[0]

    def next_turn(self) -> tuple[int | None, Turn]:
        """When, and what `Step` will do then. At equal times: what is on its way, rules, sleds.

        Who steps through time (play/virtual.py) sets `now_us`, does it and takes what comes of it; `handle(STEP)`
        would ask all of them again.
        """
        heap, whose = self._heap, self._way_turn
        due = heap[0][0] if heap else None
        other = self.engine.timers.next_us()
        if other is not None and (due is None or other < due):
            due, whose = other, self._rules_turn
        other = self.rack.next_deadline_us()
        if other is not None and (due is None or other < due):
            due, whose = other, self._sleds_turn
        return due, whose

    def handle(self, item: Any, now_us: int) -> list[Effect]:
        """One input; every effect of it, in order. Raises `SledError` for a refusal of a rack input that is no
        `Call`, `Overrun` if more than ON_THE_WAY_MAX things are on their way.
        """
        self.now_us = now_us
        self._input(item)
        return self.take()

    def take(self) -> list[Effect]:
        """What came of a turn, every effect in order; forgotten here."""
        if self.engine.wanted:
            self._drain()
        out, self._out = self._out, []
        return out

    def run(self, item: Any, now_us: int) -> list[Effect]:
        """As `handle`, and whatever is due by then: for an event loop, which does not count steps."""
        out = self.handle(item, now_us)
        while (due_us := self.next_deadline_us()) is not None and due_us <= now_us:
            out += self.handle(STEP, now_us)
        return out

    def put(self, after_us: int, item: Any) -> None:
        """Puts something on its way: an input of this core, or a `Due` for the world around."""
        if len(self._heap) >= ON_THE_WAY_MAX:
            raise Overrun(f"more than {ON_THE_WAY_MAX} things are on their way")
        self._count += 1
        heapq.heappush(self._heap, (self.now_us + after_us, self._count, item))

    @property
    def on_the_way(self) -> int:
        """How many things are."""
        return len(self._heap)

    def _input(self, item: Any) -> None:
        act = self._acts.get(type(item))
        if act is None:
            self._rack(item)
        else:
            act(item)

    def _end(self, item: _Ends) -> None:
        self._ends(item.open, item.ending)

    def _out_of_here(self, item: Due) -> None:
        self._out.append(item)

    def _hung(self, item: _Hung) -> None:
        requests.done(item.open.who)
        self._ends(item.open, Lost.CLOSED)

    def _fails(self, item: _Fails) -> None:
        assert item.open.plan.fail is not None
        requests.done(item.open.who)
        self._ends(item.open, Failed(item.open.plan.fail))

    def _delivers(self, item: Deliver) -> None:
        self._out.append(Send(item.publication, item.body, item.answered, item.answer_lost))

    def _replies(self, reply: _Reply) -> None:
        told = reply.publication
        self._rack(contract.NexusReplied(told.sled_id, told.propolis_id, told.serial, reply.outcome))

    def _begin(self, _item: Begin) -> None:
        self.begun = True
        self.engine.begin(self.now_us)

    def _fire(self, item: Fire) -> None:
        who = None if item.propolis_id is None else self.engine.cast.subjects.get(item.propolis_id)
        self.engine.fire(item.name, self.now_us, who)

    def _let_go(self, item: LetGo) -> None:
        self.engine.release(item.rule, self.now_us)

    def _step(self, _item: Step) -> None:
        due_us, whose = self.next_turn()
        if due_us is not None and due_us <= self.now_us:
            whose()

    def _what_has_come(self) -> None:
        self._input(heapq.heappop(self._heap)[2])

    def _rules(self) -> None:
        self.engine.tick(self.now_us)

    def _sleds(self) -> None:
        self._effects(self._into_rack(_TICK))

    def leave(self, sled_id: UUID) -> None:
        """A sled is not there any more: no rule means it, nor the VMMs that it had, and what is on its way to it
        comes to nothing.
        """
        sled = self.engine.cast.by_id.get(sled_id)
        if sled is not None:
            for who in self.engine.cast.on(sled):
                self.engine.lost(who)
            self.engine.cast.leave(sled_id)

    # ---- requests

    def _arrives(self, call: Call) -> None:
        if not self.has_rules:
            self._carry_out(_CarryOut(_Open(call, _PASSES, None)))
            return
        if call.item.sled_id not in self.engine.cast.by_id:
            self._ends(_Open(call, _PASSES, None), Lost.REFUSED)
            return
        plan, who = requests.on_request(self.engine, call.item, call.op, self.now_us)
        opened = _Open(call, plan, who)
        lasting = plan.delay_us or plan.hang_us is not None or plan.answer_lost or plan.spoil is not None
        if lasting and self.patience_us is not None:
            # only what may last gets a time-out: most calls end at once
            self.put(self.patience_us, _Ends(opened, Lost.NO_ANSWER))
        if not plan.passes:
            requests.given_up(self.engine, call.item, who)
        if plan.silent:
            requests.done(who)
            self.put(self.silence_us, _Ends(opened, Lost.SILENT))
        elif plan.reset:
            requests.done(who)
            self._ends(opened, Lost.REFUSED)
        elif plan.hang_us is not None:
            self._tell("request", who, self.engine.cast.by_id[call.item.sled_id].name, f"{call.op} hangs", None)
            if plan.hang_us < FOREVER:
                self.put(plan.hang_us, _Hung(opened))
            elif self.patience_us is None:
                self.put(self.silence_us, _Hung(opened))
        elif plan.fail is not None:
            self.put(plan.delay_us, _Fails(opened))
        else:
            self.put(plan.delay_us, _CarryOut(opened))

    def _carry_out(self, way: _CarryOut) -> None:
        opened = way.open
        item, who = opened.call.item, opened.who
        if self.has_rules:
            requests.done(who)
            sled = self.engine.cast.by_id.get(item.sled_id)
            if sled is None or sled.down:  # it left, or went down, with the request in its hands
                requests.given_up(self.engine, item, who)
                self._ends(opened, Lost.RESET)
                return
            if isinstance(item, Plain):
                self._ends(opened, Carried(None))
                return
            requests.carried(item, who)
        at = self.rack.sleds.get(item.sled_id)
        there = list(at.vmms) if at is not None and at.config.stop_before_start else []
        try:
            effects = self._into_rack(item)
        except SledError as error:
            self._answers(opened, Refused(error))
            return
        value: object = _LATER
        rest, aborted = [], False
        for effect in effects:
            if type(effect) is contract.Reply and effect.ticket == item.ticket:
                value = effect.value
            elif type(effect) is contract.ReplyError and isinstance(effect.error, ConnectionDropped):
                aborted = True
            else:
                rest.append(effect)
        self._effects(rest)
        if aborted:
            for gone in filter(None, map(self.engine.cast.subjects.get, there)):
                self._lost(gone, "the agent has aborted")
            self._ends(opened, Lost.RESET)
        elif value is _LATER:
            self._late[item.ticket] = opened
        else:
            self._answers(opened, Carried(value))

    def _answers(self, opened: _Open, ending: Carried | Refused) -> None:
        call = opened.call
        if not self.has_rules:
            self._ends(opened, ending)
            return
        later_us = 0
        if isinstance(ending, Carried):
            later_us = requests.on_response(self.engine, call.item, call.op, ending.value, self.now_us)
        self.watcher.carried(call, ending, opened.who)
        told: Ending = ending
        if isinstance(ending, Carried) and (spoil := opened.plan.spoil) is not None:
            told = Spoilt(spoil, ending.value)
            if self.patience_us is not None:  # else whoever sends the bytes takes the time
                later_us += spoil.lasts_us
        if not opened.plan.answer_lost:
            self.put(self.network(f"{call.op}/back", call.key) + later_us, _Ends(opened, told))
        elif self.patience_us is None:
            self.put(self.silence_us, _Ends(opened, Lost.CLOSED))
        # else: the caller's time-out will notice

    def _ends(self, opened: _Open, ending: Ending) -> None:
        if not opened.over:
            opened.over = True
            self._out.append(Ended(opened.call, ending, opened.who))

    # ---- the rack

    def _rack(self, item: Any) -> None:
        self._effects(self._into_rack(item))

    def _into_rack(self, item: Any) -> list[contract.Effect]:
        if self.wrong is not None:
            return self.wrong.handle(self.rack, item, self.now_us)
        return self.rack.handle(item, self.now_us)

    def _effects(self, effects: list[contract.Effect]) -> None:
        rules = self.has_rules
        for effect in effects:
            if isinstance(effect, _REPLIES):
                self._replied(effect)
            elif rules and type(effect) is contract.PutToNexus:
                self.engine.on_publish(
                    Publication(effect.sled_id, effect.propolis_id, effect.body, effect.attempt, effect.serial),
                    self.now_us,
                )
            else:
                self._out.append(effect)

    def _replied(self, effect: contract.Reply | contract.ReplyError) -> None:
        if effect.ticket == NOBODY and self.has_rules:
            return  # of what a rule did: nobody asked
        opened = self._late.pop(effect.ticket, None) if self._late else None
        if opened is None:
            self._out.append(effect)
        elif isinstance(effect, contract.Reply):
            self._answers(opened, Carried(effect.value))
        else:
            self._answers(opened, Refused(effect.error))

    def watch(self, happening: Happening) -> None:
        """The rack's watch."""
        if self.wrong is not None:
            happening = self.wrong.seen(happening)
        who = self.engine.cast.who(happening.propolis_id)
        self.watcher.happened(happening, who)
        if who is not None and self.has_rules:
            self.engine.watch(happening, who)

    def pace(self, vm_id: UUID, point: Point, occurrence: int, edge: Edge, /) -> Pace:
        """The rack's pacer (`propolis_stub.waiting.Pacer`)."""
        if self.has_rules:
            return rule_pacer.pace(self.engine, vm_id, point, occurrence, edge, now_us=self.now_us)
        return self.base.pace(vm_id, point, occurrence, edge)

    # ---- reports

    def _answered(self, answer: Answered) -> None:
        send = answer.send
        if not send.answered:
            return
        if send.answer_lost:
            self.put(CLIENT_LOST_US, _Reply(send.publication, Transient("timed out")))
        else:
            back_us = self.network("report/back", send.publication.serial)
            self.put(back_us, _Reply(send.publication, answer.outcome))

    # ---- what the rules want

    def _drain(self) -> None:
        """Whatever the rules want done is done; it may make them want more."""
        while effects := self.engine.take():
            for effect in effects:
                self._wanted(effect)

    def _wanted(self, effect: EngineEffect) -> None:
        match effect:
            case Deliver():
                self.put(effect.after_us + self.network("report", effect.publication.serial), effect)
            case Answer(publication, outcome, after_us):
                self.put(after_us, _Reply(publication, outcome))
            case Inject():
                self._inject(effect)
            case TakeSnapshot(name):
                self._tell("snapshot", None, "-", f"{name}: {self._everything()}", None)
            case _:
                self._out.append(effect)

    def _everything(self) -> str:
        """The state of everything in a line; of very many VMMs the first."""
        there = sorted(self.engine.cast.living(), key=lambda who: who.ordinal)
        states = " ".join(f"{who.short}={who.truth}" for who in there[:TOLD_MAX])
        return f"{len(there)} VMMs, {len(self.engine.post.held)} reports held; {states}"

    def _inject(self, wanted: Inject) -> None:
        item = wanted.item
        who = (
            None
            if isinstance(item, contract.CallArea | contract.JumpClock)
            else self.engine.cast.subjects.get(item.propolis_id)
        )
        try:
            self._rack(item)
        except SledError as error:
            verb = _VERBS.get(type(item))
            if verb is not None:  # that Propolis's time cannot be frozen where there is none is nothing to tell
                self._tell("rule", who, "-", f"cannot {verb}: {error.message}", None)
            self.engine.had_no_effect(wanted.cause, error.message)
            return
        self.engine.took_effect(wanted.cause)
        if isinstance(item, contract.ForgetVmm) and who is not None:
            self._lost(who, "the agent has forgotten it")

    def _lost(self, who: Subject, why: str) -> None:
        self._tell("lost", who, who.sled.name, why, None)
        self.engine.lost(who)
        self.watcher.lost(who)

    def _tell(self, kind: str, who: object, sled: str, text: str, _mark: object, /) -> None:
        assert who is None or isinstance(who, Subject)
        self.watcher.tell(kind, who, sled, text)

    # ---- other rules

    def _load(self, item: Load) -> None:
        scenario = item.scenario
        if self.has_rules:
            self.engine.reload(scenario, self.now_us)
            return
        sleds = list(self.rack.sleds.values())
        self.engine = engine_for(scenario, self.seed, [sled.config.sled_id for sled in sleds], self.first_name)
        self.engine.tell = self._tell
        there: list[Vmm] = []
        for sled in sleds:
            sled.outbox.policy = outbox_of(scenario, self.seed).policy
            there += sled.vmms.values()
        there.sort(key=lambda vmm: item.ordinals.get(vmm.propolis_id, 0))  # as they came; they are one rack's
        for vmm in there:
            requests.adopt(self.engine, vmm, item.ordinals.get(vmm.propolis_id))
        self.engine.cast.counted = max(self.engine.cast.counted, item.counted)
        if self.begun:
            self.engine.begin(self.now_us)


_VERBS: Final = {
    contract.InjectState: "force",
    contract.KillPropolis: "kill",
    contract.ForgetVmm: "forget",
    contract.CallArea: "set",
    contract.InjectGuest: "do as a guest",
}
_TICK: Final = contract.Tick()
_REPLIES: Final = (contract.Reply, contract.ReplyError)
_LATER: Final = object()
_PASSES: Final = RequestPlan()
