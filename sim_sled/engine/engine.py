"""Rules in action: triggers in, plans and effects out. Pure: time is an argument, chance is a keyed draw.

Whoever runs a rack (play/conductor.py) tells what goes on, each time with the time:

    plan = requests.on_request(engine, ...)   before a request of Nexus is carried out     (engine/requests.py)
    rule_pacer.pace(engine, ...)              how long a VMM waits                         (engine/rule_pacer.py)
    engine.watch(happening, who)              what has become of a VMM
    engine.on_publish(publication, now)       before a report goes to Nexus
    engine.tick(now), engine.fire(name, now)  timers, manual triggers

and then performs `engine.take()`. Rules are tried in the order of the file and all that match apply, except that the
first of `fail`, `hang`, `reset` and `drop` ends the request.

What it consists of knows nothing of it: who is there (cast), what is due (timers), whom a rule means (match), what an
action does (act), the way of reports (reports).

Read before: engine/act/__init__.py, engine/match.py, language/check.py.
Read next: daemon/doing.py, engine/requests.py, engine/rule_pacer.py, play/conductor.py, play/stage.py,
play/virtual.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final
from uuid import UUID

import attrs

from nexus_client.types import TERMINAL, SledVmmState
from propolis_stub.contract import Release
from propolis_stub.types import InstanceState, MigrationPhase
from propolis_stub.types import Publication as Published
from sim_sled.core import contract
from sim_sled.core.happenings import Happening, Kind
from sim_sled.engine.act import carry_out
from sim_sled.engine.act.firing import NOBODY, Counter, Firing, Hands, Plan
from sim_sled.engine.cast import Cast, Down, SledInfo, Subject
from sim_sled.engine.match import facts_of, hits, means, means_sled
from sim_sled.engine.plans import (
    EngineEffect,
    Event,
    Inject,
    Listener,
    Overrun,
    PacePlan,
    Power,
    Publication,
    PublishPlan,
    RequestPlan,
    Tell,
)
from sim_sled.engine.reports import Post
from sim_sled.engine.timers import Timers
from sim_sled.language.check import sleds_of
from sim_sled.language.distribution import Distribution, drawn
from sim_sled.language.draw import draw, happens
from sim_sled.language.figures import SHARE_ONE
from sim_sled.language.schema import Rule, Scenario
from sim_sled.language.selector import EVERYTHING, Trigger
from sim_sled.language.source import Mark
from sim_sled.language.words import TRUTH_OF, On, Truth

IDLE_MIN_US: Final = 100_000
"""A shorter silence is none: `idle: 0s` must not stop time."""
EVERY_MIN_US: Final = 1_000
"""The least pause of `every`, for the same reason."""
CHAIN_MAX: Final = 100
"""How long a chain through `rule` and `fire` may be: each link takes eight frames of Python's thousand. `check`
refuses circles.
"""


def _quiet(_kind: str, _who: object, _sled: str, _text: str, _mark: Mark | None, /) -> None:
    return None


@attrs.define(eq=False)
class Engine:
    """The rules of one scenario. `sled_ids`: the fleet's sleds by name; `names` gives projects and silos their
    names, by id; `start_us` is when scenario time began.
    """

    scenario: Scenario
    seed: int
    sled_ids: dict[str, UUID] = attrs.field(factory=dict)
    tell: Tell = _quiet
    listener: Listener | None = None
    names: dict[UUID, str] = attrs.field(factory=dict)
    start_us: int = 0
    cast: Cast = attrs.field(factory=Cast)
    counters: dict[str, Counter] = attrs.field(factory=dict)
    manuals: set[str] = attrs.field(factory=set)
    asks_bodies: bool = False
    """Whether any rule looks into the bodies of requests."""
    timers: Timers = attrs.field(factory=Timers)
    wanted: list[EngineEffect] = attrs.field(factory=list)
    post: Post = attrs.field(init=False)
    _hands: Hands = attrs.field(init=False)
    _latencies: dict[tuple[str, str], Distribution | None] = attrs.field(factory=dict)
    _rules: dict[On, list[Rule]] = attrs.field(factory=dict)
    _learns: dict[Kind, Callable[[Subject, Any, int], None]] = attrs.field(init=False)
    _armed: dict[str, int] = attrs.field(factory=dict)
    """How often the timer of each rule was armed."""
    _chain: int = 0
    _active_us: int = 0
    """When something happened last."""

    def __attrs_post_init__(self) -> None:
        self.post = Post(self.seed, self.cast, self.timers, self.wanted, self._tell, self)
        self._hands = Hands(self.seed, self.cast, self.timers, self.post, self.wanted, self._tell, self)
        for sled in sleds_of(self.scenario.fleet):
            if sled.name in self.sled_ids:
                self.cast.join(sled.name, self.sled_ids[sled.name])
        # of what happens to a VMM: what is learnt by it
        self._learns = {
            Kind.PROPOLIS: self._published,
            Kind.OBSERVED: self._observed,
            Kind.REGISTERED: self._registered,
            Kind.UNREGISTERED: self._unregistered,
            Kind.FORGOTTEN: self._forgotten,
            Kind.ACKED: self._acked,
        }
        self._index()

    def _tell(self, kind: str, who: object, sled: str, text: str, mark: Mark | None, /) -> None:
        self.tell(kind, who, sled, text, mark)  # whoever runs the rack sets it later

    def _index(self) -> None:
        self._rules = {}
        self._latencies = {}
        self.asks_bodies = any(rule.when.body for rule in self.scenario.rules)
        self.post.doorbell = self.scenario.agent.reporting == "doorbell"
        for rule in self.scenario.rules:
            on = rule.when.kind()
            if on is not None:
                self._rules.setdefault(on, []).append(rule)
            self.counters.setdefault(rule.name, Counter())

    def takes(self, kind: str, what: str) -> Distribution | None:
        """How long something takes by the scenario's latencies; None: no time."""
        key = (kind, what)
        if key not in self._latencies:
            self._latencies[key] = self.scenario.latency.find(kind, what)
        return self._latencies[key]

    def begin(self, now_us: int) -> None:
        """Scenario time starts: the fleet is registered. Arms `at`, `every` and `idle`."""
        self.start_us = self._active_us = now_us
        armed: list[Trigger] = []
        for expect in self.scenario.expect:
            # what waits for the same moment hears of it at once: of a timer of its own each would hear for all others
            if expect.after is not None and expect.after not in armed:
                armed.append(expect.after)
                self._arm_expectation(expect.after, now_us)
        for rule in self.scenario.rules:
            self._arm(rule, now_us)

    def reload(self, scenario: Scenario, now_us: int) -> None:
        """Other rules from now on; counters of rules whose name is unchanged are kept, and whatever goes on for rules
        of which nothing is changed. Timers of `at`, `every` and `idle` of others are void, times that have passed do
        not come back.
        """
        kept = self.scenario.rules
        self.scenario = scenario
        self._index()
        for rule in scenario.rules:
            if rule not in kept:
                self._arm(rule, now_us)

    # ---- timers

    def next_deadline_us(self) -> int | None:
        """When `tick` has something to do."""
        return self.timers.next_us()

    def tick(self, now_us: int) -> None:
        """Whatever is due by now."""
        self.timers.run(now_us)

    def take(self) -> list[EngineEffect]:
        """What shall be done, in order; forgotten here."""
        effects = self.wanted.copy()
        self.wanted.clear()
        return effects

    def _arm(self, rule: Rule, now_us: int) -> None:
        when = rule.when
        nth = self._armed[rule.name] = self._armed.get(rule.name, 0) + 1
        if when.at is not None and self.start_us + when.at >= now_us:
            self.timers.at(self.start_us + when.at, lambda then_us: self._timed(rule, nth, then_us), trigger=True)
        elif when.every is not None:
            first_us = max(now_us, self.start_us + (when.from_ or 0))
            self.timers.at(first_us, lambda then_us: self._every(rule, nth, 0, then_us), trigger=True)
        elif when.idle is not None:
            self.timers.at(
                now_us + max(IDLE_MIN_US, when.idle), lambda then_us: self._idle(rule, nth, then_us), trigger=True
            )

    def _arm_expectation(self, when: Trigger, now_us: int) -> None:
        """Timed triggers of expectations have timers of their own, which come before those of rules."""
        if when.at is not None:
            event = Event(On.AT, (when.at,), timed=when)
            self.timers.at(now_us + when.at, lambda then_us: self._hear(event, None, None, then_us), trigger=True)
        elif when.every is not None:
            self.timers.at(
                now_us + (when.from_ or 0), lambda then_us: self._hear_every(when, 0, then_us), trigger=True
            )
        elif when.idle is not None:
            self.timers.at(
                now_us + max(IDLE_MIN_US, when.idle), lambda then_us: self._hear_idle(when, then_us), trigger=True
            )

    def _hear_every(self, when: Trigger, occurrence: int, now_us: int) -> None:
        assert when.every is not None
        if self._is_past(when, now_us):
            return
        self._hear(Event(On.EVERY, (when.every,), timed=when), None, None, now_us)
        pause = drawn(when.every, self.seed, "every/expect", "", occurrence)
        again_us = now_us + max(EVERY_MIN_US, pause)
        self.timers.at(again_us, lambda then_us: self._hear_every(when, occurrence + 1, then_us), trigger=True)

    def _hear_idle(self, when: Trigger, now_us: int) -> None:
        assert when.idle is not None
        quiet_us = now_us - self._active_us
        if quiet_us >= when.idle:
            self._hear(Event(On.IDLE, (when.idle,), timed=when), None, None, now_us)
        else:
            again_us = now_us + max(IDLE_MIN_US, when.idle - quiet_us)
            self.timers.at(again_us, lambda then_us: self._hear_idle(when, then_us), trigger=True)

    def _is_past(self, when: Trigger, now_us: int) -> bool:
        """Whether `every ... to` is over."""
        return isinstance(when.to, int) and now_us - self.start_us > when.to

    def _is_current(self, rule: Rule, nth: int) -> bool:
        """Whether a timer of a rule is the one that was armed last, and the rule is still as it was then. By value: a
        recording has the same rules, and not the same objects.
        """
        on = rule.when.kind()
        return on is not None and nth == self._armed.get(rule.name) and rule in self._rules.get(on, ())

    def _timed(self, rule: Rule, nth: int, now_us: int) -> None:
        if self._is_current(rule, nth):
            self._wide(rule, On.AT, now_us)

    def _every(self, rule: Rule, nth: int, occurrence: int, now_us: int) -> None:
        when = rule.when
        assert when.every is not None
        if not self._is_current(rule, nth) or self._is_past(when, now_us):
            return
        self._wide(rule, On.EVERY, now_us)
        pause = drawn(when.every, self.seed, f"every/{rule.name}", "", occurrence)
        again_us = now_us + max(EVERY_MIN_US, pause)
        self.timers.at(again_us, lambda then_us: self._every(rule, nth, occurrence + 1, then_us), trigger=True)

    def _idle(self, rule: Rule, nth: int, now_us: int) -> None:
        assert rule.when.idle is not None
        if not self._is_current(rule, nth):
            return
        quiet_us = now_us - self._active_us
        if quiet_us >= rule.when.idle:
            self._active_us = now_us  # once per silence; what the rule does ends it
            self._wide(rule, On.IDLE, now_us)
            quiet_us = 0
        again_us = now_us + max(IDLE_MIN_US, rule.when.idle - quiet_us)
        self.timers.at(again_us, lambda then_us: self._idle(rule, nth, then_us), trigger=True)

    def fire(self, name: str, now_us: int, who: Subject | None = None, sled: SledInfo | None = None) -> bool:
        """A manual trigger: by a person, or by `fire`. False if no rule has it."""
        self.manuals.add(name)
        self.post.release_until(name, now_us)
        rules = [r for r in self._rules.get(On.MANUAL, ()) if r.when.manual == name]
        self._hear(Event(On.MANUAL, (name,)), who, sled, now_us)
        for rule in rules:
            if who is not None or sled is not None:
                self._try(rule, who, sled, On.MANUAL, now_us=now_us)
            else:
                self._wide(rule, On.MANUAL, now_us)
        return bool(rules)

    def _wide(self, rule: Rule, on: On, now_us: int) -> None:
        """A trigger without a VMM: the rule means every VMM that `for` speaks of, else every sled, else nobody."""
        if rule.for_.names_vmms():
            for who in self._meant(rule):
                self._try(rule, who, who.sled, on, now_us=now_us)
        elif rule.for_.names_sleds():
            for sled in self.cast.sleds.values():
                if means_sled(rule.for_, sled.name):
                    self._try(rule, None, sled, on, now_us=now_us)
        else:
            self._try(rule, None, None, on, now_us=now_us)

    def _meant(self, rule: Rule) -> list[Subject]:
        return [who for who in self.cast.living() if means(rule.for_, facts_of(who), self.seed, rule.name)]

    # ---- firing

    def happened(
        self, event: Event, who: Subject | None, sled: SledInfo | None, plan: Plan | None, now_us: int
    ) -> None:
        """Something happened (or is about to, then `plan` can be changed): expectations first, then the rules."""
        self._active_us = now_us
        self._hear(event, who, sled, now_us)
        for rule in self._rules.get(event.kind, ()):
            if self._hits(rule, event):
                self._try(rule, who, sled, event.kind, now_us=now_us, plan=plan)
                if isinstance(plan, RequestPlan) and not plan.passes:
                    return
                if isinstance(plan, PublishPlan) and plan.dropped:
                    return

    def _hear(self, event: Event, who: Subject | None, sled: SledInfo | None, now_us: int) -> None:
        if self.listener is not None:
            self.listener.heard(event, who, sled, now_us)

    def _hits(self, rule: Rule, event: Event) -> bool:
        return hits(getattr(rule.when, event.kind), event, rule.when.to, rule.when.body)

    def _try(
        self,
        rule: Rule,
        who: Subject | None,
        sled: SledInfo | None,
        on: On,
        *,
        now_us: int,
        plan: Plan | None = None,
    ) -> None:
        """Fires the rule if it means this one now."""
        if not rule.enabled or not self._is_meant(rule, who, sled):
            return
        counter = self.counters[rule.name]
        counter.matched += 1
        if counter.matched <= rule.skip or (rule.times is not None and counter.fired >= rule.times):
            return
        if rule.between is not None and now_us - self.start_us not in rule.between:
            return
        occurrence = who.count(f"rule/{rule.name}") if who is not None else counter.matched
        firing = Firing(self._hands, rule, counter, who, sled, on, now_us, plan, occurrence)
        if rule.chance < SHARE_ONE and not happens(
            draw(self.seed, f"chance/{rule.name}", firing.key, occurrence), rule.chance
        ):
            return
        counter.fired += 1
        self._chain += 1
        if self._chain > CHAIN_MAX:
            raise Overrun(f"rule '{rule.name}' is part of an endless chain")
        try:
            self._fired(firing)
        finally:
            self._chain -= 1

    def _fired(self, firing: Firing) -> None:
        rule, now_us = firing.rule, firing.now_us
        what = " ".join(action.key for action in rule.do)
        firing.tell("rule", f"{rule.name} ({rule.mark()}): {what}", who=firing.who)
        self._hear(Event(On.RULE, (rule.name,)), firing.who, firing.sled, now_us)
        carry_out(firing)
        self.post.release_until(rule.name, now_us)
        for other in self._rules.get(On.RULE, ()):
            if other.when.rule == rule.name:
                self._try(other, firing.who, firing.sled, On.RULE, now_us=now_us)

    def _is_meant(self, rule: Rule, who: Subject | None, sled: SledInfo | None) -> bool:
        if who is not None:
            return rule.for_ is EVERYTHING or means(rule.for_, facts_of(who), self.seed, rule.name)
        if sled is not None:
            return not rule.for_.names_vmms() and means_sled(rule.for_, sled.name)
        return not rule.for_.names_vmms() and not rule.for_.sled

    def took_effect(self, cause: tuple[str, str] | None) -> None:
        """What this action of this rule wanted has been done."""
        if cause is not None and cause[0] in self.counters:
            self.counters[cause[0]].worked.add(cause[1])

    def had_no_effect(self, cause: tuple[str, str] | None, why: str) -> None:
        """... or could not be."""
        if cause is not None and cause[0] in self.counters:
            self.counters[cause[0]].had_no_effect(cause[1], why)

    # ---- what the rack tells

    def on_publish(self, publication: Publication, now_us: int) -> None:
        """One report of the rack; what becomes of it is among the effects, now or later."""
        who = self.cast.who(publication.propolis_id)
        sled = self.cast.by_id.get(publication.sled_id)
        if who is None or sled is None:
            self.post.deliver(publication, now_us)
        elif sled.down:
            self.post.keep_back(publication, f"{sled.name} is down ({sled.down})")
        else:
            plan = PublishPlan()
            state = publication.body.vmm_state.state.value
            self.happened(Event(On.PUBLISH, (state,)), who, sled, plan, now_us)
            self.post.publish(publication, who, sled, plan, now_us)

    def watch(self, happening: Happening, who: Subject) -> None:
        """The rack's watch: keeps the truth about each VMM that a rule can mean."""
        learn = self._learns.get(happening.kind)
        if learn is not None:
            learn(who, happening.data, happening.at_us)

    def _registered(self, who: Subject, record: SledVmmState, _now_us: int) -> None:
        who.record = record

    def _unregistered(self, who: Subject, record: SledVmmState, now_us: int) -> None:
        who.record = record
        self.lost(who)
        self.entered(who, Truth.FAILED, now_us)

    def _forgotten(self, who: Subject, _record: SledVmmState, _now_us: int) -> None:
        self.lost(who)

    def _observed(self, who: Subject, records: tuple[SledVmmState, SledVmmState], now_us: int) -> None:
        who.record = records[1]
        state = who.record.vmm_state.state
        if state in TERMINAL:
            self.entered(who, Truth(state.value), now_us)

    def _acked(self, who: Subject, body: SledVmmState, _now_us: int) -> None:
        who.acked = body
        who.told_gen = max(who.told_gen, body.vmm_state.gen)

    def _published(self, who: Subject, publications: tuple[Published | None, Published], now_us: int) -> None:
        publication = publications[1]
        for side in (publication.migration_in, publication.migration_out):
            failed = side is not None and side.state is MigrationPhase.ERROR and who.error_told != side.id
            if failed:
                assert side is not None
                who.error_told = side.id
                self.happened(Event(On.MIGRATION, ("error",)), who, who.sled, None, now_us)
        if publication.state is not InstanceState.REPAIRING:
            self.entered(who, TRUTH_OF[publication.state], now_us)

    def holds(self, rule: str) -> bool:
        """Whether `release` has something to let go: reports, or a Propolis whose time stands."""
        return self.post.holds(rule) or any(True for _ in self._frozen(rule))

    def release(self, rule: str, now_us: int) -> None:
        """By a person: the reports that a rule holds go out, and what it keeps frozen goes on. A stall that was
        planned where Propolis was about to wait is a waiting of its own, which only a request or a fault ends.
        """
        self.post.release(rule, now_us)
        for who in list(self._frozen(rule)):
            who.frozen_by, who.stalled_until_us = "", 0
            who.stalls_end(now_us)  # those of others too, which would have ended before
            who.let_go(rule, "lets it go on", now_us)
            self.wanted.append(Inject(contract.PropolisInput(NOBODY, who.sled.id, who.propolis_id, Release())))

    def stalled(self, rule: str, now_us: int) -> list[Subject]:
        """Whom a rule stalls where their Propolis waits."""
        here = (who for who in self.cast.subjects.values() if not who.gone)
        return [who for who in here if any(note.rule == rule and note.stalls_until_us > now_us for note in who.notes)]

    def _frozen(self, rule: str) -> Iterator[Subject]:
        return (who for who in self.cast.subjects.values() if who.frozen_by == rule and not who.gone)

    def entered(self, who: Subject, state: Truth, now_us: int, plan: PacePlan | None = None) -> None:
        """The VMM is in this state now, in truth."""
        before = who.truth
        if before is state or before in (Truth.FAILED, Truth.DESTROYED):
            return
        edge = (before, state)
        if who.edge_taken != edge:  # else the rules for it were asked when it was about to be taken
            self.happened(Event(On.EDGE, (edge,)), who, who.sled, None, now_us)
        who.edge_taken = None
        who.truth = state
        who.stalled_until_us, who.frozen_by = 0, ""  # it has left the place where it was stalled
        self.happened(Event(On.STATE, (state,)), who, who.sled, plan, now_us)

    def lost(self, who: Subject) -> None:
        """The sled does not know this VMM any more."""
        if self.cast.lost(who):
            self.post.forget(who)

    def sled_up(self, sled: SledInfo, now_us: int) -> None:
        """A sled that was down answers again, unless it has gone down anew meanwhile."""
        if sled.down and now_us >= sled.down_until_us:
            if sled.down is Down.POWER:
                self.wanted.append(Power(sled.id, on=True))
            sled.down = None
            self.tell("sled", None, sled.name, "up", None)
            for publication in self.post.sled_up(sled):
                self.on_publish(publication, now_us)
