"""Rules in action: triggers in, plans and effects out. Pure: time is an argument, chance is a keyed draw.

Whoever runs a rack (the virtual world, a daemon) calls the hooks:

    plan = engine.on_request(...)        before a request of Nexus is carried out     (requests.py)
    engine.pace(vm, point, n)            is the rack's pacer                          (rule_pacer.py)
    engine.watch(happening)              is the rack's watch                          (below)
    engine.on_publish(publication)       before a report goes to Nexus                (publishing.py)
    engine.tick(now), engine.fire(name)  timers, manual triggers

and then performs `engine.take()`. Rules are tried in the order of the file and all that match apply, except that the
first of `fail`, `hang`, `reset` and `drop` ends the request.

Read before: engine/cast.py, engine/plans.py, language/check.py. Read next: engine/act.py, engine/reports.py,
engine/rule_pacer.py, play/conductor.py, play/stage.py, play/virtual.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Final
from uuid import UUID

import attrs

from nexus_client.types import TERMINAL, SledVmmState
from propolis_stub.types import InstanceState, MigrationPhase, Publication
from propolis_stub.waiting import Pace, Point
from sim_sled.core.happenings import Happening, Kind
from sim_sled.engine import rule_pacer
from sim_sled.engine.act import Context, carry_out
from sim_sled.engine.cast import Note, SledInfo, Subject, facts_of, means, means_sled
from sim_sled.engine.plans import (
    EngineEffect,
    Event,
    Listener,
    Overrun,
    PacePlan,
    Power,
    PublishPlan,
    RequestPlan,
    Tell,
)
from sim_sled.engine.reports import Post
from sim_sled.language.check import sleds_of
from sim_sled.language.distribution import Distribution
from sim_sled.language.draw import draw, happens
from sim_sled.language.figures import SHARE_ONE
from sim_sled.language.schema import Rule, Scenario
from sim_sled.language.selector import EVERYTHING, Trigger
from sim_sled.language.source import Mark

TIMERS_MAX: Final = 2_000_000
"""Timers of rules at a time: two for each of a million VMMs; more is a rule that multiplies."""
IDLE_MIN_US: Final = 100_000
"""A shorter silence is none: `idle: 0s` must not stop time."""
CHAIN_MAX: Final = 100
"""How long a chain through `rule` and `fire` may be: each link takes six frames of Python's thousand. `check` refuses
circles.
"""


def _quiet(_kind: str, _who: object, _sled: str, _text: str, _mark: Mark | None, /) -> None:
    return None


@attrs.define(eq=False)
class Counter:
    """How often a rule matched and fired; kept over a reload by the rule's name."""

    matched: int = 0
    fired: int = 0
    worked: set[str] = attrs.field(factory=set)
    """Actions that have had an effect, of those that may have none."""
    futile: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    """Actions that had none: how often, and why the first time."""


@attrs.define(eq=False)
class Engine:
    """The rules of one scenario. `names` gives projects and silos their names, by id."""

    scenario: Scenario
    seed: int
    sled_ids: dict[str, UUID] = attrs.field(factory=dict)
    tell: Tell = _quiet
    listener: Listener | None = None
    names: dict[UUID, str] = attrs.field(factory=dict)
    now_us: int = 0
    start_us: int = 0
    subjects: dict[UUID, Subject] = attrs.field(factory=dict)
    sleds: dict[str, SledInfo] = attrs.field(factory=dict)
    by_id: dict[UUID, SledInfo] = attrs.field(factory=dict)
    counters: dict[str, Counter] = attrs.field(factory=dict)
    manuals: set[str] = attrs.field(factory=set)
    effects: list[EngineEffect] = attrs.field(factory=list)
    post: Post = attrs.field(init=False)
    _living: dict[UUID, list[Subject]] = attrs.field(factory=dict)
    _latencies: dict[tuple[str, str], Distribution | None] = attrs.field(factory=dict)
    _rules: dict[str, list[Rule]] = attrs.field(factory=dict)
    _incarnations: dict[str, int] = attrs.field(factory=dict)
    _ordinals: int = 0
    _timers: list[tuple[int, int, Callable[[], None]]] = attrs.field(factory=list)
    _timer_count: int = 0
    asks_bodies: bool = False
    """Whether any rule looks into the bodies of requests."""
    _chain: int = 0
    _active_us: int = 0

    def __attrs_post_init__(self) -> None:
        self.post = Post(self)
        for sled in sleds_of(self.scenario.fleet):
            if sled.name in self.sled_ids:
                info = SledInfo(sled.name, self.sled_ids[sled.name])
                self.sleds[sled.name] = info
                self.by_id[info.id] = info
        self._index()

    def _index(self) -> None:
        self._rules = {}
        self._latencies = {}
        self.asks_bodies = any(rule.when.body for rule in self.scenario.rules)
        for rule in self.scenario.rules:
            self._rules.setdefault(rule.when.kind(), []).append(rule)
            self.counters.setdefault(rule.name, Counter())

    def join(self, name: str, sled_id: UUID) -> None:
        """A sled joins a fleet that plays already; rules mean it by this name."""
        info = SledInfo(name, sled_id)
        self.sleds[name] = self.by_id[sled_id] = info

    def leave(self, sled_id: UUID) -> None:
        """A sled leaves."""
        info = self.by_id.pop(sled_id, None)
        if info is not None:
            del self.sleds[info.name]

    def takes(self, kind: str, what: str) -> Distribution | None:
        """How long something takes by the scenario's latencies; None: no time."""
        key = (kind, what)
        if key not in self._latencies:
            self._latencies[key] = self.scenario.latency.find(kind, what)
        return self._latencies[key]

    def begin(self, now_us: int) -> None:
        """Scenario time starts: the fleet is registered. Arms `at`, `every` and `idle`."""
        self.now_us = self.start_us = self._active_us = now_us
        for expect in self.scenario.expect:
            if expect.after is not None:
                self._arm_expectation(expect.after)
        for rule in self.scenario.rules:
            self._arm(rule)

    def reload(self, scenario: Scenario, now_us: int) -> None:
        """Other rules from now on; counters of rules whose name is unchanged are kept, old timers of `at`, `every`
        and `idle` are void, times that have passed do not come back.
        """
        self.now_us = now_us
        self.scenario = scenario
        self._index()
        for rule in scenario.rules:
            self._arm(rule)

    # ---- timers

    def next_deadline_us(self) -> int | None:
        """When `tick` has something to do."""
        return self._timers[0][0] if self._timers else None

    def tick(self, now_us: int) -> None:
        """Whatever is due by now."""
        self.now_us = now_us
        while self._timers and self._timers[0][0] <= now_us:
            heapq.heappop(self._timers)[2]()

    def later(self, after_us: int, act: Callable[[], None]) -> None:
        """Do something then. Raises `Overrun` beyond TIMERS_MAX."""
        if len(self._timers) >= TIMERS_MAX:
            raise Overrun(f"more than {TIMERS_MAX} timers of rules")
        self._timer_count += 1
        heapq.heappush(self._timers, (self.now_us + after_us, self._timer_count, act))

    def take(self) -> list[EngineEffect]:
        """What shall be done, in order; forgotten here."""
        effects, self.effects = self.effects, []
        return effects

    def _arm(self, rule: Rule) -> None:
        when = rule.when
        elapsed = self.now_us - self.start_us
        if when.at is not None and when.at >= elapsed:
            self.later(when.at - elapsed, lambda: self._timed(rule))
        elif when.every is not None:
            self.later(max(0, (when.from_ or 0) - elapsed), lambda: self._every(rule, 0))
        elif when.idle is not None:
            self.later(max(IDLE_MIN_US, when.idle), lambda: self._idle(rule))

    def _arm_expectation(self, when: Trigger) -> None:
        """Timed triggers of expectations have timers of their own, which come before those of rules."""
        if when.at is not None:
            self.later(when.at, lambda: self._hear(Event("at", (when.at,)), None, None))
        elif when.every is not None:
            self.later(when.from_ or 0, lambda: self._hear_every(when, 0))
        elif when.idle is not None:
            self.later(max(IDLE_MIN_US, when.idle), lambda: self._hear_idle(when))

    def _hear_every(self, when: Trigger, occurrence: int) -> None:
        assert when.every is not None
        if isinstance(when.to, int) and self.now_us - self.start_us > when.to:
            return
        self._hear(Event("every", (when.every,)), None, None)
        pause = when.every.at(draw(self.seed, "every/expect", "", occurrence))
        self.later(max(1_000, pause), lambda: self._hear_every(when, occurrence + 1))

    def _hear_idle(self, when: Trigger) -> None:
        assert when.idle is not None
        quiet_us = self.now_us - self._active_us
        if quiet_us >= when.idle:
            self._hear(Event("idle", (when.idle,)), None, None)
        else:
            self.later(max(IDLE_MIN_US, when.idle - quiet_us), lambda: self._hear_idle(when))

    def _is_current(self, rule: Rule) -> bool:
        return any(one is rule for one in self._rules.get(rule.when.kind(), ()))

    def _timed(self, rule: Rule) -> None:
        if self._is_current(rule):
            self._wide(rule, rule.when.kind())

    def _every(self, rule: Rule, occurrence: int) -> None:
        when = rule.when
        assert when.every is not None
        if not self._is_current(rule) or (isinstance(when.to, int) and self.now_us - self.start_us > when.to):
            return
        self._wide(rule, "every")
        pause = when.every.at(draw(self.seed, f"every/{rule.name}", "", occurrence))
        self.later(max(1_000, pause), lambda: self._every(rule, occurrence + 1))

    def _idle(self, rule: Rule) -> None:
        assert rule.when.idle is not None
        if not self._is_current(rule):
            return
        quiet_us = self.now_us - self._active_us
        if quiet_us >= rule.when.idle:
            self._active_us = self.now_us  # once per silence; what the rule does ends it
            self._wide(rule, "idle")
            self.later(max(IDLE_MIN_US, rule.when.idle), lambda: self._idle(rule))
        else:
            self.later(max(IDLE_MIN_US, rule.when.idle - quiet_us), lambda: self._idle(rule))

    def fire(self, name: str, who: Subject | None = None, sled: SledInfo | None = None) -> bool:
        """A manual trigger: by a person, or by `fire`. False if no rule has it."""
        self.manuals.add(name)
        self.post.release_until(name)
        rules = [r for r in self._rules.get("manual", ()) if r.when.manual == name]
        self._hear(Event("manual", (name,)), who, sled)
        for rule in rules:
            if who is not None or sled is not None:
                self.try_rule(rule, Context(who, sled, "manual"))
            else:
                self._wide(rule, "manual")
        return bool(rules)

    def _wide(self, rule: Rule, kind: str) -> None:
        """A trigger without a VMM: the rule means every VMM that `for` speaks of, else every sled, else nobody."""
        if rule.for_.names_vmms():
            for who in self._meant(rule):
                self.try_rule(rule, Context(who, who.sled, kind))
        elif rule.for_.names_sleds():
            for sled in self.sleds.values():
                if means_sled(rule.for_, sled.name):
                    self.try_rule(rule, Context(None, sled, kind))
        else:
            self.try_rule(rule, Context(None, None, kind))

    def _meant(self, rule: Rule) -> list[Subject]:
        living = [who for who in self.subjects.values() if not who.gone]
        return [who for who in living if means(rule.for_, facts_of(who), self.seed, rule.name)]

    # ---- firing

    def happened(
        self,
        event: Event,
        who: Subject | None,
        sled: SledInfo | None,
        plan: RequestPlan | PacePlan | PublishPlan | None,
    ) -> None:
        """Something happened (or is about to, then `plan` can be changed): expectations first, then the rules."""
        self._active_us = self.now_us
        self._hear(event, who, sled)
        for rule in self._rules.get(event.kind, ()):
            if self._hits(rule, event):
                self.try_rule(rule, Context(who, sled, event.kind, plan))
                if isinstance(plan, RequestPlan) and not plan.passes:
                    return
                if isinstance(plan, PublishPlan) and plan.dropped:
                    return

    def _hear(self, event: Event, who: Subject | None, sled: SledInfo | None) -> None:
        if self.listener is not None:
            self.listener.heard(event, who, sled, self.now_us)

    def _hits(self, rule: Rule, event: Event) -> bool:
        return hits(getattr(rule.when, event.kind), event, rule.when.to, rule.when.body)

    def try_rule(self, rule: Rule, context: Context) -> None:
        """Fires the rule if it means this one now."""
        if not rule.enabled or not self._is_meant(rule, context):
            return
        counter = self.counters[rule.name]
        counter.matched += 1
        if counter.matched <= rule.skip or (rule.times is not None and counter.fired >= rule.times):
            return
        if rule.between is not None and self.now_us - self.start_us not in rule.between:
            return
        key = context.key()
        occurrence = context.who.count(f"rule/{rule.name}") if context.who is not None else counter.matched
        if rule.chance < SHARE_ONE and not happens(
            draw(self.seed, f"chance/{rule.name}", key, occurrence), rule.chance
        ):
            return
        counter.fired += 1
        self._chain += 1
        if self._chain > CHAIN_MAX:
            raise Overrun(f"rule '{rule.name}' is part of an endless chain")
        try:
            self._fired(rule, attrs.evolve(context, occurrence=occurrence))
        finally:
            self._chain -= 1

    def _fired(self, rule: Rule, context: Context) -> None:
        sled = context.sled.name if context.sled is not None else "-"
        what = " ".join(action.key for action in rule.do)
        self.tell("rule", context.who, sled, f"{rule.name} ({rule.mark()}): {what}", rule.mark())
        self._hear(Event("rule", (rule.name,)), context.who, context.sled)
        carry_out(self, rule, context)
        self.post.release_until(rule.name)
        for other in self._rules.get("rule", ()):
            if other.when.rule == rule.name:
                self.try_rule(other, Context(context.who, context.sled, "rule"))

    def _is_meant(self, rule: Rule, context: Context) -> bool:
        if context.who is not None:
            return rule.for_ is EVERYTHING or means(rule.for_, facts_of(context.who), self.seed, rule.name)
        if context.sled is not None:
            return not rule.for_.names_vmms() and means_sled(rule.for_, context.sled.name)
        return not rule.for_.names_vmms() and not rule.for_.sled

    def note(self, who: Subject | None, rule: Rule, text: str) -> None:
        """Remember for `why` that a rule touched this VMM."""
        if who is not None:
            who.notes.append(Note(self.now_us, rule.name, rule.mark(), text))

    def took_effect(self, cause: tuple[str, str] | None) -> None:
        """What this action of this rule wanted has been done."""
        if cause is not None and cause[0] in self.counters:
            self.counters[cause[0]].worked.add(cause[1])

    def had_no_effect(self, cause: tuple[str, str] | None, why: str) -> None:
        """... or could not be."""
        if cause is not None and cause[0] in self.counters:
            futile = self.counters[cause[0]].futile
            times, first = futile.get(cause[1], (0, why))
            futile[cause[1]] = (times + 1, first)

    # ---- what the rack tells

    def pace(self, vm_id: UUID, point: Point, occurrence: int, leads_to: InstanceState | None = None, /) -> Pace:
        """The rack's pacer (`propolis_stub.waiting.Pacer`)."""
        return rule_pacer.pace(self, vm_id, point, occurrence, leads_to)

    def watch(self, happening: Happening) -> None:
        """The rack's watch: keeps the truth about each VMM."""
        self.now_us = happening.at_us
        who = self.subjects.get(happening.propolis_id) if happening.propolis_id is not None else None
        if who is None:
            return
        match happening.kind:
            case Kind.PROPOLIS:
                assert isinstance(happening.data, tuple)
                self._published(who, happening.data[1])
            case Kind.OBSERVED:
                assert isinstance(happening.data, tuple)
                who.record = happening.data[1]
                state = happening.data[1].vmm_state.state
                if state in TERMINAL:
                    self.entered(who, state.value)
            case Kind.REGISTERED | Kind.UNREGISTERED:
                assert isinstance(happening.data, SledVmmState)
                who.record = happening.data
            case Kind.ACKED:
                assert isinstance(happening.data, SledVmmState)
                who.acked = happening.data
                who.told_gen = max(who.told_gen, happening.data.vmm_state.gen)
        if happening.kind in (Kind.UNREGISTERED, Kind.FORGOTTEN):
            self.lost(who)
        if happening.kind is Kind.UNREGISTERED:
            self.entered(who, "failed")

    def _published(self, who: Subject, publication: Publication) -> None:
        for side in (publication.migration_in, publication.migration_out):
            failed = side is not None and side.state is MigrationPhase.ERROR and who.error_told != side.id
            if failed:
                assert side is not None
                who.error_told = side.id
                self.happened(Event("migration", ("error",)), who, who.sled, None)
        if publication.state is not InstanceState.REPAIRING:
            self.entered(who, publication.state.value.lower())

    def entered(self, who: Subject, state: str, plan: PacePlan | None = None) -> None:
        """The VMM is in this state now, in truth."""
        before = who.truth
        if before == state or before in ("failed", "destroyed"):
            return
        edge = (before, state)
        if who.edge_taken != edge:  # else the rules for it were asked when it was about to be taken
            self.happened(Event("edge", (edge,)), who, who.sled, None)
        who.edge_taken = ("", "")
        who.truth = state
        who.stalled_until_us = 0  # it has left the place where it was stalled
        self.happened(Event("state", (state,)), who, who.sled, plan)

    def lost(self, who: Subject) -> None:
        """The sled does not know this VMM any more."""
        if not who.gone:
            who.gone = True
            living = self._living[who.instance_id]
            living.remove(who)
            if not living:
                del self._living[who.instance_id]
            who.sled.vmms -= 1
            who.published.clear()
            self.post.forget(who)

    def found(self, who: Subject) -> None:
        """It is registered again after all."""
        who.gone = False
        who.sled.vmms += 1
        self._living.setdefault(who.instance_id, []).append(who)

    def add(self, subject: Callable[[int, str], Subject], hostname: str) -> Subject:
        """A VMM is registered for the first time; its ordinal and incarnation are given here."""
        self._ordinals += 1
        n = self._incarnations.get(hostname, 0) + 1
        self._incarnations[hostname] = n
        who = subject(self._ordinals, f"{hostname}/{n}")
        self.subjects[who.propolis_id] = who
        who.sled.vmms += 1
        self._living.setdefault(who.instance_id, []).append(who)
        return who

    def of_instance(self, who: Subject) -> list[Subject]:
        """The living VMMs of the same instance, oldest first."""
        return list(self._living.get(who.instance_id, ()))

    def sled_up(self, sled: SledInfo) -> None:
        """A sled that was down answers again, unless it has gone down anew meanwhile."""
        if sled.down and self.now_us >= sled.down_until_us:
            if sled.down == "power":
                self.effects.append(Power(sled.id, on=True))
            sled.down = ""
            self.tell("sled", None, sled.name, "up", None)
            self.post.sled_up(sled)


def hits(wanted: object, event: Event, to: object, body: tuple[tuple[str, str], ...]) -> bool:
    """Whether a trigger that wants this waits for that event."""
    if isinstance(wanted, tuple):
        found = any(
            word == w or (isinstance(w, str) and isinstance(word, str) and fnmatchcase(word, w))
            for w in wanted
            for word in event.words
        )
    else:
        found = wanted in event.words
    if not found or (isinstance(to, str) and to != event.to):
        return False
    return all(_holds(event.body, path, pattern) for path, pattern in body)


def _holds(body: object, path: str, pattern: str) -> bool:
    for part in path.split("."):
        if not isinstance(body, dict) or part not in body:
            return False
        body = body[part]
    text = "true" if body is True else "false" if body is False else "null" if body is None else str(body)
    return fnmatchcase(text, pattern)
