"""A recording played against the model of Nexus: users and hosts as recorded, Nexus's answers from the model.

    recorded: requests to sleds, timers, sleds that join and leave    played when they were
    recorded: answers to reports and registrations                    left out; the model answers, as long after
    the model's own requests to sleds                                 counted, not made: Nexus's own are there; it is
                                                                      told what the sled has

A report that is answered otherwise changes what a sled does next, so the run may leave the record: `Departure`s say
where and how, by what a sled reported, how it answered and what Nexus said. Times of day in answers are not compared.
The model knows nothing of the users behind the recording, and takes VMMs in as they report (`UnknownVmm.ADOPT`); of
migrations, which only users ask for, it is not told. At a checkpoint it begins with the sleds that Nexus knows by
then, and hears what is on its way to it; a restored snapshot is such a beginning, too.

Read before: play/translate.py, recording/replaying.py. Read next: cli/recording.py.
"""

from __future__ import annotations

import heapq
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final
from uuid import UUID

import attrs
from msgspec.structs import replace

from nexus_client.outbox import Delivered, Outcome, Transient
from nexus_client.registration import Found, GetReplied, GetSledAgent, NotFound, PostReplied
from nexus_client.stub import contract as nx
from nexus_client.stub.config import Config, UnknownVmm
from nexus_client.stub.nexus import Nexus
from nexus_client.types import UpdatedRuntime
from sim_sled.core import contract
from sim_sled.core.errors import NoSuchVmm
from sim_sled.engine.plans import Expunge, Power, RestartNexus
from sim_sled.engine.reports import outcome_of
from sim_sled.http.answers import refusal
from sim_sled.play.calls import STEP, Answered, Effect, Send
from sim_sled.play.fleet import model_of
from sim_sled.play.translate import translate
from sim_sled.recording.lines import Did, Header, Line, Turn
from sim_sled.recording.replaying import CannotReplay, Player, Rack, Resume

GRACE_US: Final = 250_000
"""What is due is done when the record did it. What it has not done by then, the run does: it has left the record."""
DEPARTURES_MAX: Final = 1_000
"""Told; what follows is counted."""
_NO_REPLY_US: Final = 1_000
"""How long the model takes for an answer that the record does not have."""
_TICKET: Final = 1 << 40
"""From here on the model's own requests are numbered: far above those of the record."""
_CLOCK: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@attrs.frozen
class Departure:
    """The run is not as recorded: at which line of the recording and when, in which respect, and both sides."""

    where: str
    at_us: int
    what: str
    recorded: str
    here: str


@attrs.frozen
class Opened:
    """What came of it. `ends`: of each VMM what was reported last, as recorded and here."""

    began_us: int
    ended_us: int
    inputs: int
    reports: int
    departures: list[Departure]
    more: int
    """Departures that are not told."""
    ends: dict[UUID, tuple[str, str]]
    wished: dict[str, int]
    """Requests that the model would have made, by operation."""


@attrs.define(eq=False)
class _Seen:
    """What sleds said: of the record, and of the run."""

    reports: dict[UUID, list[str]] = attrs.field(factory=dict)
    replies: dict[int, str] = attrs.field(factory=dict)

    def turn(self, item: Any, out: list[Any]) -> Iterator[tuple[str, Any]]:
        """One turn; yields the VMMs and the tickets that it says something of."""
        for effect in out:
            kind, told = next(iter(effect.items()))
            if kind in ("Send", "PutToNexus"):
                if told["attempt"] == 0:
                    vmm, state = UUID(told["propolis_id"]), told["body"]["vmm_state"]
                    self.reports.setdefault(vmm, []).append(f"{state['state']} (gen {state['gen']})")
                    yield "report", vmm
                continue
            ticket = _ticket_of(item) if kind == "Raised" else told.get("ticket") if isinstance(told, dict) else None
            if ticket is not None:
                self.replies[ticket] = _CLOCK.sub("TIME", json.dumps(effect, sort_keys=True))
                yield "reply", ticket


@attrs.define(eq=False)
class _Answer:
    """Of Nexus, in the record: after how long, and what. Before it has come: when it was asked for, and nothing."""

    after_us: int
    what: str = ""


@attrs.define(eq=False)
class _Record(_Seen):
    """The recording, read once: what sleds said, and how Nexus answered when."""

    answers: dict[tuple[Any, ...], deque[_Answer]] = attrs.field(factory=dict)
    """Of each report (VMM, generation, attempt) and each sled's registration, in their order."""
    drawn: dict[str, int] = attrs.field(factory=dict)
    _sent: dict[Any, _Answer] = attrs.field(factory=dict)
    _numbers: int = 0

    def begins(self, under_way: _UnderWay, at_us: int) -> None:
        """With a checkpoint, in which something is on its way to Nexus."""
        self._numbers = under_way.sent
        for number, send in under_way.sends.items():
            self._asked(("send", number), at_us, _key_of_report(send))
        for put in under_way.puts:
            self._asked(("put", str(put.propolis_id), put.serial), at_us, _key_of_report(put))
        for ask in under_way.asks:
            self._asked(("ask", str(ask.sled_id)), at_us, ("registration", str(ask.sled_id)))

    def line(self, line: Turn) -> None:
        self.drawn.update(line.drawn)
        for _ in self.turn(line.item, line.out):
            pass
        found = _answer_in(line.item)
        if found is not None and found[0] in self._sent:
            answer = self._sent.pop(found[0])
            answer.after_us, answer.what = line.at - answer.after_us, found[1]
        for effect in line.out:
            kind, told = next(iter(effect.items()))
            if kind == "Send":
                if told["answered"]:
                    self._asked(("send", self._numbers), line.at, _key_of(told))
                self._numbers += 1
            elif kind == "PutToNexus":
                self._asked(("put", told["propolis_id"], told["serial"]), line.at, _key_of(told))
            elif kind == "AskNexus":
                self._asked(("ask", told["sled_id"]), line.at, ("registration", told["sled_id"]))

    def _asked(self, who: tuple[Any, ...], at_us: int, key: tuple[Any, ...]) -> None:
        answer = self._sent[who] = _Answer(at_us)
        self.answers.setdefault(key, deque()).append(answer)

    def answer(self, key: tuple[Any, ...]) -> tuple[int, str]:
        """After how long, and what; "" if the record has no answer to it."""
        there = self.answers.get(key)
        found = there.popleft() if there else None
        return (found.after_us, found.what) if found is not None and found.what else (_NO_REPLY_US, "")


def _key_of(told: dict[str, Any]) -> tuple[Any, ...]:
    return told["propolis_id"], told["body"]["vmm_state"]["gen"], told["attempt"]


def _key_of_report(effect: Send | contract.PutToNexus) -> tuple[Any, ...]:
    return str(effect.propolis_id), effect.body.vmm_state.gen, effect.attempt


def _answer_in(item: Any) -> tuple[tuple[Any, ...], str] | None:
    """To what an input is Nexus's answer, and which."""
    name = item.get("~", "") if isinstance(item, dict) else ""
    if name == "Heard":
        return ("put", item["is"][1], item["is"][2]), "Delivered"
    if name == "Answered":
        return ("send", item["send"]), _name_of(item["outcome"])
    if name.endswith(":NexusReplied"):
        return ("put", item["propolis_id"].removeprefix("~uuid "), item["serial"]), _name_of(item["outcome"])
    if name.endswith(":RegistrationReplied"):
        return ("ask", item["sled_id"].removeprefix("~uuid ")), _name_of(item["answer"]["outcome"])
    return None


def _name_of(told: dict[str, Any]) -> str:
    return str(told["~"]).rpartition(":")[2]


def _ticket_of(item: Any) -> int | None:
    """Of an input as a line has it."""
    while isinstance(item, dict):
        if isinstance(item.get("ticket"), int):
            return int(item["ticket"])
        item = item.get("is") or item.get("item")
    return None


@attrs.frozen
class _UnderWay:
    """To Nexus, at a checkpoint. Reports that rules have let pass have numbers, of `sent` so far; `puts` are those of
    a rack without rules: with some, what no sled has an answer to may be held, or late, and is not on its way yet.
    """

    sends: dict[int, Send]
    sent: int
    puts: list[contract.PutToNexus]
    asks: list[contract.AskNexus]


def _under_way(rack: Rack) -> _UnderWay:
    sends = {number: send for number, send in rack.sends.items() if send.answered}
    sleds = rack.passage.rack.sleds.items()
    puts = [
        contract.PutToNexus(sled_id, each.propolis_id, each.body, each.attempt, each.serial)
        for sled_id, sled in sleds
        for each in sled.outbox.in_flight()
        if not rack.passage.has_rules
    ]
    asks = [
        contract.AskNexus(sled_id, call)
        for sled_id, sled in sleds
        if sled.registration is not None and (call := sled.registration.in_flight()) is not None
    ]
    return _UnderWay(sends, rack.sent, puts, asks)


@attrs.define(eq=False)
class _Run:
    """The rack, the model, and what is on its way from one to the other."""

    record: _Record
    rack: Rack
    nexus: Nexus
    began_us: int = 0
    now_us: int = 0
    where: str = ""
    inputs: int = 0
    seen: _Seen = attrs.field(factory=_Seen)
    departures: list[Departure] = attrs.field(factory=list)
    more: int = 0
    wished: Counter[str] = attrs.field(factory=Counter)
    _left: set[Any] = attrs.field(factory=set)
    """VMMs and tickets that have departed: what follows of them follows from that."""
    _coming: list[tuple[int, int, Callable[[], None]]] = attrs.field(factory=list)
    _numbers: int = 0
    _waiting: dict[int, Callable[[nx.Reply | nx.Dropped], None]] = attrs.field(factory=dict)
    _lives: int = 0
    """How often the model has died."""
    _down_us: int = _NO_REPLY_US
    """How long it is away, if it dies."""
    _is_down: bool = False
    _was_away: bool = False
    """Since it died last the record has had a report that nobody heard."""
    _back_us: int = 0
    """When it must be back, at the latest."""

    # ---- time

    def until(self, at_us: int) -> None:
        """Whatever is due before that happens."""
        while True:
            due, act = self._next()
            if due is None or due > at_us:
                break
            self.now_us = max(self.now_us, due)
            act()
        self.now_us = max(self.now_us, at_us)

    def _next(self) -> tuple[int | None, Callable[[], None]]:
        rack = self.rack.passage.next_deadline_us()
        dues: list[tuple[int, Callable[[], None]]] = []
        if self._coming:
            dues.append((self._coming[0][0], self._arrives))
        nexus = self.nexus.next_deadline_us()
        if nexus is not None:
            dues.append((nexus, lambda: self._tell(nx.Tick())))
        if rack is not None:
            dues.append((rack + GRACE_US, lambda: self.play(None, STEP)))
        return min(dues, key=lambda each: each[0], default=(None, self._arrives))

    def _arrives(self) -> None:
        heapq.heappop(self._coming)[2]()

    def _later(self, after_us: int, what: Callable[[], None]) -> None:
        self._numbers += 1
        heapq.heappush(self._coming, (self.now_us + after_us, self._numbers, what))

    # ---- the rack

    def begins(self, under_way: _UnderWay, at_us: int) -> None:
        """With a checkpoint: the model knows the sleds that Nexus knows, and hears what is on its way to it."""
        self.now_us = at_us
        for sled in self.rack.passage.rack.sleds.values():
            info = None if sled.registration is None else sled.registration.stored
            if info is not None:
                self._ask(partial(nx.SledPosted, sled_id=sled.config.sled_id, info=info), lambda _: None)
        for send in under_way.sends.values():
            self._do(send)
        for put in under_way.puts:
            self._do(put)
        for ask in under_way.asks:
            self._do(ask)

    def line(self, where: str, line: Turn | Did, player: Player) -> None:
        """A line of the record: what is due before it, and itself if it does not come from Nexus."""
        self.where = where
        self.began_us = self.began_us or line.at
        self.until(line.at)
        if isinstance(line, Did):
            player.play(where, line)
        elif _answer_in(line.item) is None:
            self.inputs += 1
            try:
                self.rack.desk.answers = list(line.baggage)
                self.play(line.item, self.rack.input(line.item))
            except CannotReplay as error:
                raise CannotReplay(f"{where}: {error}") from error

    def play(self, told: Any, item: Any) -> None:
        """One input; `told`: as its line has it."""
        effects, out = self.rack.run(item, self.now_us)
        self.rack.told.lines.clear()
        for what, who in self.seen.turn(told, out):
            self._compare(what, who)
        for effect in effects:
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case contract.PutToNexus():
                self._report(effect, lambda outcome: _replied(effect, outcome))
            case Send() if effect.answered:
                self._report(effect, lambda outcome: Answered(effect, outcome))
            case Send():
                self._ask(lambda ticket: _reported(ticket, effect), lambda _: None)
            case contract.AskNexus():
                self._register(effect)
            case Power():
                power = "a0" if effect.on else "off"
                self._ask(lambda ticket: nx.SetSled(ticket, effect.sled_id, power=power), lambda _: None)
            case Expunge():
                self._ask(lambda ticket: nx.SetSled(ticket, effect.sled_id, policy="expunged"), lambda _: None)
            case RestartNexus():
                self._down_us = effect.down_us
                if effect.point == "now":
                    self._tell(nx.Crash())
                    self._crashed()
                else:
                    point = nx.CrashPoint(effect.point)
                    self._ask(lambda ticket: nx.ArmCrash(ticket, point), lambda _: None)

    def _crashed(self) -> None:
        self._lives += 1
        self._is_down, self._was_away = True, False
        self._back_us = self.now_us + self._down_us + GRACE_US
        self._later(self._down_us, partial(self._boot, self._lives))

    def _boot(self, life: int) -> None:
        if self._is_down and life == self._lives:
            self._is_down = False
            self._tell(nx.Boot())

    def _is_away(self, recorded: str) -> bool:
        """Whether a Nexus that a rule has restarted hears a report. When it dies and how long a start takes are the
        host's matter: until it must be back it is there if it was.
        """
        if recorded == Delivered.__name__:
            self._boot(self._lives)
        elif recorded == Transient.__name__ and self.now_us <= self._back_us:
            if not self._was_away:
                self._was_away = True
                self._back_us = self.now_us + self._down_us + GRACE_US
            return True
        return self._is_down

    def _compare(self, what: str, who: Any) -> None:
        if what == "report":
            here, recorded = self.seen.reports[who], self.record.reports.get(who, [])
            nth = len(here) - 1
            self._depart(
                who, f"VMM {who} reports", recorded[nth] if nth < len(recorded) else "nothing more", here[nth]
            )
        elif who < _TICKET:
            self._depart(
                who, f"request {who} is answered", self.record.replies.get(who, "never"), self.seen.replies[who]
            )

    def _depart(self, who: Any, what: str, recorded: str, here: str) -> None:
        if recorded == here or who in self._left:
            return
        self._left.add(who)
        if len(self.departures) < DEPARTURES_MAX:
            self.departures.append(Departure(self.where, self.now_us, what, recorded, here))
        else:
            self.more += 1

    def depart_at_end(self) -> None:
        """Which VMMs have not reported all that they did."""
        for vmm, told in self.record.reports.items():
            nth = len(self.seen.reports.get(vmm, ()))
            if nth < len(told):
                self._depart(vmm, f"VMM {vmm} reports", told[nth], "nothing more")

    # ---- the model

    def _ask(self, make: Callable[[int], Any], answered: Callable[[nx.Reply | nx.Dropped], None]) -> None:
        self._numbers += 1
        self._waiting[self._numbers] = answered
        self._tell(make(self._numbers))

    def _tell(self, item: Any) -> None:
        for effect in self.nexus.handle(item, self.now_us):
            match effect:
                case nx.Reply() | nx.Dropped():
                    self._waiting.pop(effect.ticket)(effect)
                case nx.CallSled():
                    self._later(0, partial(self._call, effect))
                case nx.Crashed() if not isinstance(item, nx.Crash):
                    self._crashed()

    def _report(self, effect: Send | contract.PutToNexus, reply: Callable[[Outcome], Any]) -> None:
        vmm, gen = effect.propolis_id, effect.body.vmm_state.gen
        after_us, recorded = self.record.answer(_key_of_report(effect))

        def heard(life: int, answer: nx.Reply | nx.Dropped | None) -> None:
            # an answer that is on its way when Nexus dies goes with its connection, unless it was quicker
            if isinstance(answer, nx.Reply) and (life == self._lives or recorded == Delivered.__name__):
                outcome = outcome_of(answer.status)
            else:
                outcome = Transient("connection closed")
            self._heard(vmm, gen, recorded, outcome, reply(outcome))

        def answered(answer: nx.Reply | nx.Dropped | None) -> None:
            self._later(after_us, partial(heard, self._lives, answer))

        if self._is_away(recorded):
            answered(None)
        else:
            self._ask(lambda ticket: _reported(ticket, effect), answered)

    def _heard(self, vmm: UUID, gen: int, recorded: str, outcome: Outcome, item: Any) -> None:
        if recorded:
            here = type(outcome).__name__
            self._depart((vmm, "answers"), f"Nexus answers VMM {vmm}, gen {gen}", recorded.lower(), here.lower())
        self.play(None, item)

    def _register(self, effect: contract.AskNexus) -> None:
        after_us, recorded = self.record.answer(("registration", str(effect.sled_id)))

        def answered(answer: nx.Reply | nx.Dropped) -> None:
            bad = isinstance(answer, nx.Dropped) or answer.status >= 500
            told: GetReplied | PostReplied
            if not isinstance(effect.call, GetSledAgent):
                told = PostReplied(Transient("Nexus is down") if bad else Delivered())
            elif isinstance(answer, nx.Dropped) or bad:
                told = GetReplied(Transient("Nexus is down"))
            else:
                told = GetReplied(NotFound() if answer.status == 404 else Found(answer.body))
            self._later(after_us, lambda: self._registered(effect.sled_id, recorded, told))

        call = effect.call
        if isinstance(call, GetSledAgent):
            self._ask(lambda ticket: nx.SledGot(ticket, effect.sled_id), answered)
        else:
            self._ask(lambda ticket: nx.SledPosted(ticket, effect.sled_id, call.info), answered)

    def _registered(self, sled_id: UUID, recorded: str, told: GetReplied | PostReplied) -> None:
        here = type(told.outcome).__name__
        if recorded:
            self._depart((sled_id, "answers"), f"Nexus answers sled {sled_id}", recorded.lower(), here.lower())
        self.play(None, contract.RegistrationReplied(sled_id, told))

    def _call(self, call: nx.CallSled) -> None:
        """The model asks a sled: what the record has of it happens, and it is told what is."""
        self.wished[translate(call, _TICKET)[0]] += 1
        vmm = getattr(call.op, "propolis_id", None)
        sled = self.rack.passage.rack.sleds.get(call.sled_id)
        outcome: nx.Outcome
        if sled is None:
            outcome = nx.NoConnection()
        elif not isinstance(call.op, nx.GetVmmState | nx.UnregisterVmm | nx.PutVmmState):
            outcome = nx.Answered(None)
        else:
            known = sled.vmms.get(vmm) if vmm is not None else None
            record = None if known is None else known.record
            if isinstance(call.op, nx.UnregisterVmm | nx.PutVmmState):
                outcome = nx.Answered(UpdatedRuntime(record))
            elif record is None:
                gone = refusal(NoSuchVmm(call.op.propolis_id))
                outcome = nx.ErrorAnswered(gone.status, gone.error_code, gone.message)
            else:
                outcome = nx.Answered(record)
        self._tell(nx.SledAnswered(call.call_id, outcome))


def _reported(ticket: int, effect: Send | contract.PutToNexus) -> nx.VmmReported:
    return nx.VmmReported(ticket, effect.propolis_id, replace(effect.body, migration_in=None, migration_out=None))


def _replied(put: contract.PutToNexus, outcome: Outcome) -> contract.NexusReplied:
    return contract.NexusReplied(put.sled_id, put.propolis_id, put.serial, outcome)


@attrs.frozen
class _Beginning:
    """Of a stretch that is played from its own state on: a recording's, a checkpoint, a restored snapshot."""

    rack: Rack
    seed: int
    under_way: _UnderWay | None
    """At a checkpoint. It is taken up when the first line behind it happened: of its own it tells no time."""

    def takes_up(self, side: _Record | _Run, at_us: int) -> None:
        if self.under_way is not None:
            side.begins(self.under_way, at_us)


def _lines(lines: Iterable[tuple[str, Line]], player: Player) -> Iterator[tuple[str, Turn | Did, _Beginning | None]]:
    """Those that something happens in; the first of each stretch with its beginning, whose rack `player` has."""
    begins: _Beginning | None = None
    for where, line in lines:
        if isinstance(line, Header):
            before = player.rack
            player.play(where, line)
            rack = player.rack
            if rack is not None and rack is not before:
                begins = _Beginning(rack, line.seed, _under_way(rack) if line.state else None)
        elif isinstance(line, Turn | Did):
            if player.rack is None:
                raise CannotReplay(f"{where}: nothing says how the rack began")
            yield where, line, begins
            begins = None


def open_loop(read: Callable[[], Iterable[tuple[str, Line]]], resume: Resume | None = None) -> Opened:
    """Plays it; `read` gives its lines with their places, and is asked twice. `resume`: of whoever can begin at a
    checkpoint. Raises `CannotReplay`.
    """
    records: list[_Record] = []
    for _, line, begins in _lines(read(), Player(resume=resume)):
        if begins is not None:
            records.append(_Record())
            begins.takes_up(records[-1], line.at)
        if isinstance(line, Turn):
            records[-1].line(line)
    player = Player(resume=resume)
    runs: list[_Run] = []
    for where, line, begins in _lines(read(), player):
        if begins is not None:
            runs.append(_run_of(begins, records[len(runs)]))
            player.knows(runs[-1].record.drawn)
            begins.takes_up(runs[-1], line.at)
        runs[-1].line(where, line, player)
    return _opened(runs)


def _run_of(begins: _Beginning, record: _Record) -> _Run:
    passage = begins.rack.passage
    config = model_of(passage.conductor.engine.scenario, None) if passage.has_rules else Config()
    nexus = Nexus(attrs.evolve(config, unknown_vmm=UnknownVmm.ADOPT), seed=begins.seed)
    return _Run(record, begins.rack, nexus)


def _opened(runs: list[_Run]) -> Opened:
    ends: dict[UUID, tuple[str, str]] = {}
    for run in runs:
        run.depart_at_end()
        here, recorded = run.seen.reports, run.record.reports
        for vmm in sorted({*here, *recorded}):
            ends[vmm] = ((recorded.get(vmm) or ["nothing"])[-1], (here.get(vmm) or ["nothing"])[-1])
    departures = [each for run in runs for each in run.departures]
    return Opened(
        runs[0].began_us if runs else 0,
        runs[-1].now_us if runs else 0,
        sum(run.inputs for run in runs),
        sum(len(each) for run in runs for each in run.seen.reports.values()),
        departures[:DEPARTURES_MAX],
        sum(run.more for run in runs) + len(departures[DEPARTURES_MAX:]),
        dict(sorted(ends.items())),
        dict(sum((run.wished for run in runs), Counter())),
    )
