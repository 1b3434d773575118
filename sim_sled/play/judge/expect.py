"""Expectations: armed by an event for each VMM anew, met or broken within their time.

Read before: language/schema.py, play/judge/failures.py, play/judge/invariants.py, play/stage.py.
Read next: antithesis.py, daemon/judging.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Final
from uuid import UUID

import attrs

from sim_sled.core.happenings import Happening, Kind
from sim_sled.engine.cast import Subject
from sim_sled.engine.match import facts_of, hits, means, means_sled
from sim_sled.engine.plans import Event
from sim_sled.language.figures import show_duration
from sim_sled.language.schema import Expect, Scenario, That
from sim_sled.language.selector import Trigger
from sim_sled.language.source import Mark
from sim_sled.language.words import DEFAULT_INVARIANTS, On
from sim_sled.play.explain import why_it_failed
from sim_sled.play.judge.failures import Failure
from sim_sled.play.judge.invariants import Invariants
from sim_sled.play.stage import Stage

UNJUDGED: Final = "unjudged"
"""Begins the key of a failure that is not a broken expectation but one on which no verdict was reached."""
_STATE: Final = On.STATE
NOBODY: Final = UUID(int=0)
"""Instead of an instance: of expectations about tasks and inventories."""


@attrs.define(eq=False)
class _Armed:
    """One expectation waiting for one VMM (None: for nobody in particular)."""

    expect: Expect
    label: str
    who: Subject | None
    sled_before: UUID | None
    due_us: int
    requests: set[str] = attrs.field(factory=set)
    over: bool = False

    @property
    def key(self) -> UUID:
        """Under which it waits: that of the instance."""
        return NOBODY if self.who is None else self.who.instance_id


@attrs.define(eq=False)
class Judge:
    """All expectations and invariants of one run."""

    scenario: Scenario
    world: Stage
    failures: list[Failure] = attrs.field(factory=list)
    armed_count: dict[str, int] = attrs.field(factory=dict)
    met_count: dict[str, int] = attrs.field(factory=dict)
    invariants: Invariants = attrs.field(init=False)
    _kinds: frozenset[On] = frozenset()
    _after: dict[On, list[tuple[Expect, Trigger, str]]] = attrs.field(factory=dict)
    _waiting: dict[UUID, list[_Armed]] = attrs.field(factory=dict)  # by instance
    _due: list[tuple[int, int, _Armed]] = attrs.field(factory=list)
    _dirty: dict[UUID, None] = attrs.field(factory=dict)
    _watches: dict[Kind, Callable[[Subject | None, Happening], None]] = attrs.field(init=False)
    _marks: dict[str, Mark] = attrs.field(factory=dict)
    _count: int = 0

    def __attrs_post_init__(self) -> None:
        self.invariants = Invariants(self.world, watched(self.scenario), self.failures)
        self._watches = {Kind.SENT: self.invariants.sent, Kind.INJECTED: self.invariants.injected}
        kinds: set[On] = set()
        for i, expect in enumerate(self.scenario.expect):
            if not expect.always:
                self._marks[label_of(expect, i)] = expect.mark()
                self.armed_count[label_of(expect, i)] = 0
            after = None if expect.after is None else expect.after.kind()
            if expect.after is not None and after is not None:
                self._after.setdefault(after, []).append((expect, expect.after, label_of(expect, i)))
                kinds.add(after)
            never = None if expect.never is None else expect.never.kind()
            if never is not None:
                kinds.add(never)
            if expect.that is not None and expect.that.request:
                kinds.add(On.REQUEST)
        self._kinds = frozenset(kinds)

    # ---- events

    def heard(self, event: Event, who: object, _sled: object, now_us: int, /) -> None:
        """The engine's listener."""
        assert who is None or isinstance(who, Subject)
        kind = event.kind
        if kind is _STATE and who is not None:
            self.invariants.entered(who, event)
        if kind not in self._kinds:
            return
        for waiting in self._waiting.get(who.instance_id, ()) if who is not None else ():
            if event.kind is On.REQUEST and waiting.who is who:
                waiting.requests.update(str(word) for word in event.words)
            never = waiting.expect.never
            if never is not None and never.kind() is event.kind and self._is_same(waiting, who, never.same):
                self._forbidden(waiting, event)
        for expect, after, label in self._after.get(event.kind, ()):
            due = (
                after == event.timed
                if event.timed is not None
                else hits(getattr(after, event.kind), event, after.to, after.body)
            )
            if due:
                self._arm(expect, label, who, _sled, now_us)

    def _is_same(self, waiting: _Armed, who: Subject | None, same: str | None) -> bool:
        if waiting.who is None or who is None:
            return same is None
        if same == "vmm":
            return waiting.who is who
        return True  # the list is of one instance, and without `same` any instance is watched by its own entry

    def _forbidden(self, waiting: _Armed, event: Event) -> None:
        never = waiting.expect.never
        assert never is not None
        if not waiting.over and hits(getattr(never, event.kind), event, never.to, never.body):
            waiting.over = True
            words = " ".join(str(word) for word in event.words)
            self._fail(waiting, f"{event.kind} {words} happened, which must never be within "
                       f"{show_duration(waiting.expect.lasts or 0)}", f"{event.kind} {words}")  # fmt: skip

    def _arm(self, expect: Expect, label: str, who: Subject | None, sled: object, now_us: int) -> None:
        engine = self.world.engine
        if who is not None:
            subjects = [who] if means(expect.for_, facts_of(who), engine.seed, label) else []
        else:
            name = getattr(sled, "name", None)
            subjects = [
                one
                for one in engine.cast.subjects.values()
                if not one.gone
                and (name is None or one.sled.name == name)
                and means(expect.for_, facts_of(one), engine.seed, label)
            ]
            if name is not None and expect.for_.names_sleds() and not means_sled(expect.for_, name):
                subjects = []
        if expect.that is not None and expect.that.concerns_nobody:
            subjects = []
            self._arm_one(expect, label, None, now_us)
        for one in subjects:
            self._arm_one(expect, label, one, now_us)

    def _arm_one(self, expect: Expect, label: str, one: Subject | None, now_us: int) -> None:
        lasts_us = (expect.within if expect.that is not None else expect.lasts) or 0
        self._count += 1
        armed = _Armed(expect, label, one, None if one is None else self._sled_of(one), now_us + lasts_us)
        self.armed_count[label] = self.armed_count.get(label, 0) + 1
        self._waiting.setdefault(armed.key, []).append(armed)
        heapq.heappush(self._due, (armed.due_us, self._count, armed))
        self._dirty[armed.key] = None

    def touch(self, who: Subject) -> None:
        """Something about this VMM changed."""
        self.touch_instance(who.instance_id)

    def touch_instance(self, instance_id: UUID) -> None:
        if self._waiting and instance_id in self._waiting:
            self._dirty[instance_id] = None

    def happened(self, happening: Happening, who: Subject | None) -> None:
        """Something in the rack."""
        watch = self._watches.get(happening.kind)
        if watch is not None:
            watch(who, happening)
        if who is not None and self._waiting:
            self.touch(who)

    def touch_tasks(self) -> None:
        """A task has come further, or Nexus has seen a sled."""
        self.touch_instance(NOBODY)

    def look(self) -> None:
        """Look at everything that waits, when nobody says what changed (on the wall clock)."""
        self._dirty.update(dict.fromkeys(self._waiting))

    def nexus_moved(self) -> None:
        """The model took an input."""
        self.invariants.nexus_moved()

    # ---- judging

    def next_deadline_us(self) -> int | None:
        while self._due and self._due[0][2].over:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    @property
    def pending(self) -> int:
        """Expectations that are armed and not decided."""
        return sum(len(waiting) for waiting in self._waiting.values())

    @property
    def is_waiting(self) -> bool:
        """Whether any expectation is pending."""
        return bool(self._waiting)

    def settle(self, now_us: int) -> None:
        """Look at whatever changed, then at what is due."""
        if self._dirty:
            dirty, self._dirty = self._dirty, {}
            for instance_id in dirty:
                for waiting in self._waiting.get(instance_id, ()):
                    if waiting.expect.that is not None and not waiting.over and self._holds(waiting):
                        waiting.over = True
                        self.met_count[waiting.label] = self.met_count.get(waiting.label, 0) + 1
                self._sweep(instance_id)
        while self._due and (self._due[0][0] <= now_us or self._due[0][2].over):
            waiting = heapq.heappop(self._due)[2]
            if not waiting.over:
                self._time_is_up(waiting)
                self._sweep(waiting.key)

    def _sweep(self, instance_id: UUID) -> None:
        left = [waiting for waiting in self._waiting.get(instance_id, ()) if not waiting.over]
        if left:
            self._waiting[instance_id] = left
        else:
            self._waiting.pop(instance_id, None)

    def _time_is_up(self, waiting: _Armed) -> None:
        waiting.over = True
        if waiting.expect.that is None or self._holds(waiting):
            self.met_count[waiting.label] = self.met_count.get(waiting.label, 0) + 1
            return
        wrong = ", ".join(self._wrong(waiting))
        self._fail(waiting, f"not within {show_duration(waiting.expect.within or 0)}: {wrong}", wrong)

    def undecided(self) -> None:
        """The run is cut short: what still waits has not been met, what was never armed was not judged, and neither
        is green. (In a run that came to rest by itself all that its file plans has happened; there W310 says so.)
        """
        for instance_id in list(self._waiting):
            for waiting in self._waiting.get(instance_id, ()):
                if waiting.over:
                    continue
                waiting.over = True
                left_us = max(0, waiting.due_us - self.world.now_us)
                rest = f"with {show_duration(left_us // 1000 * 1000)} left"
                if waiting.expect.that is None:
                    self._fail(waiting, f"not decided when the run ended, {rest}", "not decided")
                else:
                    wrong = ", ".join(self._wrong(waiting))
                    self._fail(waiting, f"not yet so when the run ended, {rest}: {wrong}", wrong)
            self._sweep(instance_id)
        for label, mark in self._marks.items():
            if not self.armed_count.get(label):
                self.unjudged(label, mark, "what arms it did not happen before the run ended")

    def unjudged(self, label: str, mark: Mark | None, why: str) -> None:
        """No verdict was reached on an expectation: it must not look green."""
        where = "" if mark is None else f" ({mark})"
        told = f"expectation '{label}'{where} was not judged: {why}"
        self.failures.append(Failure(f"{UNJUDGED}/{label}", told, self.world.elapsed_us, mark))
        self.world.line("failed", told)

    def goes_on_from(self, before: Judge) -> None:
        """Other rules are judged by from now on: what was armed and met by the same name has been judged."""
        for label in self._marks.keys() & before._marks.keys():
            self.armed_count[label] = before.armed_count.get(label, 0)
            self.met_count[label] = before.met_count.get(label, 0)

    def _fail(self, waiting: _Armed, text: str, seen: str) -> None:
        who = waiting.who
        whom = f"{who.short} {who.hostname}: " if who is not None else ""
        why = why_it_failed(self.world, who)
        told = f"expectation '{waiting.label}' ({waiting.expect.mark()}): {whom}{text}"
        # of tasks and inventories `seen` has names of sleds, of which a smaller scenario has fewer
        reason = "" if who is None else f"{seen}; wanted {self._wanted(who.instance_id)}"
        hostname = "" if who is None else who.hostname
        key, mark = f"expect/{waiting.label}", waiting.expect.mark()
        self.failures.append(Failure(key, told, self.world.elapsed_us, mark, why, reason, hostname))
        self.world.line("failed", told, who)

    def _wanted(self, instance_id: UUID) -> str:
        """What users want of an instance."""
        row = self.world.nexus.records.instances.get(instance_id)
        return "nothing" if row is None or row.time_deleted is not None else row.intended_state.value

    def _holds(self, waiting: _Armed) -> bool:
        that = waiting.expect.that
        assert that is not None
        return not self._wrong_of(that, waiting, first=True)

    def _wrong(self, waiting: _Armed) -> list[str]:
        assert waiting.expect.that is not None
        return self._wrong_of(waiting.expect.that, waiting, first=False)

    def _wrong_of(self, that: That, waiting: _Armed, *, first: bool) -> list[str]:
        """What is not as it should be, each as `subject is x, not y`; with `first` it stops at the first."""
        wrong: list[str] = []
        if that.concerns_nobody:
            return self._wrong_of_sleds(that, waiting.expect)
        for subject in that.subjects():
            wanted = getattr(that, subject)
            wants = (wanted,) if isinstance(wanted, str) else wanted
            seen = self._seen(subject, waiting)
            if subject == "request":
                fine = any(hits(wants, Event(On.REQUEST, (op,)), None, ()) for op in waiting.requests)
            elif subject == "acked" and "same_as_vmm" in wants and self._is_told(waiting):
                fine = True
            else:
                fine = any(one in wants for one in seen)
            if not fine:
                is_now = " or ".join(seen) or "nothing"
                wrong.append(f"{subject} is {is_now}, not {' or '.join(str(w) for w in wants)}")
                if first:
                    break
        return wrong

    def _wrong_of_sleds(self, that: That, expect: Expect) -> list[str]:
        """What tasks have not come to, and what Nexus has not seen of every sled that is meant."""
        tasks, wrong = self.world.tasks, []
        for name, wanted in that.task:
            if (now := tasks.state.get(name, "not begun")) != wanted:
                wrong.append(f"task {name} is {now}, not {wanted}")
        for sled in self.world.engine.cast.sleds.values():
            if not means_sled(expect.for_, sled.name):
                continue
            for path, pattern in that.inventory:
                seen = tasks.path(sled.id, path)
                if not any(fnmatchcase(one, pattern) for one in seen):
                    told = " or ".join(dict.fromkeys(seen)) or "nothing"
                    wrong.append(f"{path} of {sled.name} is {told[:200]}, not {pattern}")
        return wrong

    def _seen(self, subject: str, waiting: _Armed) -> tuple[str, ...]:
        who = waiting.who
        assert who is not None
        match subject:
            case "vmm":
                return (who.truth,)
            case "acked":
                return () if who.acked is None else (who.acked.vmm_state.state.value,)
            case "instance":
                return (self._public(who.instance_id),)
            case "sled":
                return ("unchanged" if self._sled_of(who) == waiting.sled_before else "changed",)
            case "migration_in" | "migration_out" | "migration":
                return self._migration(subject, who)
        return ()

    def _migration(self, subject: str, who: Subject) -> tuple[str, ...]:
        """The side's state as Nexus has it: of the migration this VMM is or was part of."""
        row = self.world.nexus.records.migrations.get(who.migration_id) if who.migration_id is not None else None
        if row is None:
            return ()
        if subject == "migration":
            sides = {row.target_state.value, row.source_state.value}
            # what one side alone says decides nothing but a failure
            told = "failed" if "failed" in sides else sides.pop() if len(sides) == 1 else "in_progress"
            return (told,)
        return ((row.target_state if subject == "migration_in" else row.source_state).value,)

    def _is_told(self, waiting: _Armed) -> bool:
        who = waiting.who
        assert who is not None
        return who.record is None or who.gone or who.told_gen >= who.record.vmm_state.gen

    def _public(self, instance_id: UUID) -> str:
        row = self.world.nexus.records.instances.get(instance_id)
        if row is None or row.time_deleted is not None:
            return "destroyed"
        return self.world.nexus.public_state(instance_id).value

    def _sled_of(self, who: Subject) -> UUID | None:
        row = self.world.nexus.records.instances.get(who.instance_id)
        vmm = None if row is None else self.world.nexus.records.active_vmm(row)
        return None if vmm is None else vmm.sled_id


def watched(scenario: Scenario) -> tuple[str, ...]:
    """Which invariants a file wants, or those it has if it wants none."""
    wanted = dict.fromkeys(name for expect in scenario.expect for name in expect.always)
    return tuple(wanted) or DEFAULT_INVARIANTS


def label_of(expect: Expect, index: int) -> str:
    """Its name, or its number."""
    return expect.name or f"expect-{index + 1}"
