"""`load`: what users of the control plane do in the closed world.

Read before: language/schema.py, play/stage.py, play/tasks.py.
Read next: daemon/external.py, play/population.py, play/virtual.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import attrs

from nexus_client.stub import contract as nx
from nexus_client.stub.records import Instance
from sim_sled.engine.match import Facts, means
from sim_sled.language.distribution import drawn
from sim_sled.language.draw import below, draw
from sim_sled.language.schema import Churn, Create, Load, Migrate, numbered
from sim_sled.language.selector import Selector
from sim_sled.play.population import Population
from sim_sled.play.stage import Stage
from sim_sled.play.tasks import Tasks

EVERY_MIN_US: Final = 1_000
"""Shortest pause of an `every`: a scenario that says 0 must not stop time."""
_RUNNING: Final = frozenset({"running"})
_RESTING: Final = frozenset({"stopped", "failed"})


@attrs.define(eq=False)
class UserEntry:
    """One load entry and how far it has come."""

    load: Load
    index: int
    occurrence: int = 0
    made: int = 0
    acted: int = 0
    met: int = 0

    @property
    def label(self) -> str:
        return self.load.name or f"load {self.index + 1}"


@attrs.frozen
class Deed:
    """What a user asked of an instance that came to be: enough to ask for it again (`shrink`). `to`: the sled of a
    migration.
    """

    at_us: int
    verb: str
    hostname: str
    create: Create | None = None
    to: str = ""


DEEDS_MAX: Final = 100_000
"""Deeds that are kept of one run: a longer one is not reduced to its deeds."""


@attrs.define(eq=False)
class Users:
    """Everybody who uses the control plane."""

    world: Stage
    entries: list[UserEntry] = attrs.field(factory=list)
    done: int = 0
    refused: int = 0
    creations: int = 0
    """Creations that were asked for and answered."""
    creations_refused: int = 0
    first_refusal: str = ""
    """What the first refused creation was told."""
    deeds: list[Deed] = attrs.field(factory=list)
    _due: list[tuple[int, int, bool, Callable[[], None]]] = attrs.field(factory=list)
    _planned: int = 0
    _count: int = 0
    _start_us: int = 0
    tasks: Tasks = attrs.field(init=False)
    _populations: dict[str, Population] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.tasks = Tasks(self.world, self._later)

    def _later(self, after_us: int, act: Callable[[], None]) -> None:
        self._at(self.world.now_us - self._start_us + after_us, act, planned=False)

    def begin(self) -> None:
        """Time starts."""
        self._start_us = self.world.now_us
        for i, load in enumerate(self.world.scenario.load):
            entry = UserEntry(load, i)
            self.entries.append(entry)
            if load.at is not None:
                self._at(load.at, self._acts(entry))
            else:
                self._at(load.from_ or 0, self._repeats(entry))

    def next_deadline_us(self) -> int | None:
        return self._due[0][0] if self._due else None

    def act(self, now_us: int) -> None:
        """Whatever is due by now."""
        while self._due and self._due[0][0] <= now_us:
            _, _, planned, act = heapq.heappop(self._due)
            self._planned -= planned
            act()

    def last_us(self) -> int:
        """When the last planned action is, from the start."""
        ends = [0]
        for load in self.world.scenario.load:
            spread = load.create.spread if load.create is not None else 0
            ends.append((load.at or 0) + spread if load.at is not None else (load.to or 0) + spread)
        return max(ends)

    @property
    def is_through(self) -> bool:
        """Whether everything that was planned has been done; a task may still wait, if need be for ever."""
        return self._planned == 0

    def _at(self, elapsed_us: int, act: Callable[[], None], *, planned: bool = True) -> None:
        self._count += 1
        self._planned += planned
        heapq.heappush(self._due, (self._start_us + elapsed_us, self._count, planned, act))

    def _acts(self, entry: UserEntry) -> Callable[[], None]:
        return lambda: self._once(entry)

    def _repeats(self, entry: UserEntry) -> Callable[[], None]:
        return lambda: self._again(entry)

    def _again(self, entry: UserEntry) -> None:
        load = entry.load
        assert load.every is not None
        elapsed_us = self.world.now_us - self._start_us
        if load.to is not None and elapsed_us > load.to:
            return
        self._once(entry)
        pause = drawn(load.every, self.world.seed, f"every/{entry.label}", "", entry.occurrence)
        self._at(elapsed_us + max(EVERY_MIN_US, pause), self._repeats(entry))

    def _once(self, entry: UserEntry) -> None:
        load = entry.load
        if load.create is not None:
            self._create(entry, load.create)
        elif load.churn is not None:
            self._churn(entry, load.churn)
        elif load.task is not None:
            self.tasks.start(entry.label, load.task)
        else:
            verb = load.action()
            for row in self._meant(entry, getattr(load, verb)):
                entry.met += 1
                self._do(verb, row, entry, load.migrate)
        entry.occurrence += 1

    # ---- one action

    def _create(self, entry: UserEntry, create: Create) -> None:
        elapsed_us = self.world.now_us - self._start_us
        for i in range(create.count):
            entry.made += 1
            hostname = numbered(create.hostname, entry.made)
            after_us = create.spread * i // max(1, create.count)
            make = self._maker(hostname, create)
            if after_us == 0:
                make()
            else:
                self._at(elapsed_us + after_us, make)

    def _maker(self, hostname: str, create: Create) -> Callable[[], None]:
        return lambda: self._make(
            hostname,
            create.ncpus,
            create.memory,
            start=create.start,
            project=create.project,
            silo=create.silo,
            sled=create.sled,
            auto_restart=create.auto_restart,
        )

    def _did(self, verb: str, hostname: str, create: Create | None = None, to: str = "") -> None:
        if len(self.deeds) < DEEDS_MAX:
            self.deeds.append(Deed(self.world.now_us - self._start_us, verb, hostname, create, to))

    def _make(
        self,
        hostname: str,
        ncpus: int,
        memory: int,
        *,
        start: bool,
        project: str | None = None,
        silo: str | None = None,
        sled: tuple[str, ...] = (),
        auto_restart: str | None = None,
    ) -> None:
        world = self.world
        pinned = [world.engine.cast.sleds[each].id for each in sled]

        def item(ticket: int) -> nx.CreateInstance:
            return nx.CreateInstance(
                ticket,
                hostname,
                hostname,
                ncpus,
                memory,
                start,
                auto_restart_policy=auto_restart,
                project=project or "default",
                silo=silo or "default",
                sled_id=next(iter(pinned), None),
                then_sled_ids=tuple(pinned[1:]),
            )

        world.ask(item, self._answered(f"create {hostname}", creates=True))
        row = world.nexus.find(hostname)
        if row is not None:
            self._did(
                "create",
                hostname,
                Create(
                    hostname=hostname,
                    ncpus=ncpus,
                    memory=memory,
                    project=project,
                    silo=silo,
                    start=start,
                    sled=sled,
                    auto_restart=auto_restart,
                ),
            )
            world.engine.names[row.project_id] = project or "default"
            world.engine.names[row.silo_id] = silo or "default"

    def _do(self, verb: str, row: Instance, entry: UserEntry, migrate: Migrate | None) -> None:
        items: dict[str, Callable[[int, UUID], Any]] = {
            "start": nx.Start,
            "stop": nx.Stop,
            "reboot": nx.Reboot,
            "delete": nx.Delete,
        }
        entry.acted += 1
        if verb != "migrate":
            make = items[verb]
            self._did(verb, row.hostname)
            self.world.judge.invariants.wished(row.id, verb)
            self.world.ask(
                lambda ticket: make(ticket, row.id),
                self._answered(f"{verb} {row.hostname}", stops=row.id if verb == "stop" else None),
            )
            return
        target = self._target(entry, row, "any" if migrate is None else migrate.to)
        if target is None:
            self.world.line("user", f"migrate {row.hostname}: no other sled")
            return
        name = self.world.engine.cast.by_id[target].name
        self._did(verb, row.hostname, to=name)
        self.world.ask(
            lambda ticket: nx.Migrate(ticket, row.id, target), self._answered(f"migrate {row.hostname} to {name}")
        )

    def _target(self, entry: UserEntry, row: Instance, to: str) -> UUID | None:
        engine = self.world.engine
        if to != "any":
            return engine.cast.sleds[to].id
        here = self._sled_of(row)
        others = [sled.id for sled in engine.cast.sleds.values() if sled.name != here]
        if not others:
            return None
        u = draw(self.world.seed, f"to/{entry.label}", row.hostname, entry.occurrence * 1_000 + entry.acted)
        return others[below(u, len(others))]

    def _churn(self, entry: UserEntry, churn: Churn) -> None:
        """One action by its weight; one that finds nobody to act on does nothing."""
        seed, nth = self.world.seed, entry.occurrence
        weights = {
            "create": churn.create,
            "start": churn.start,
            "stop": churn.stop,
            "reboot": churn.reboot,
            "migrate": churn.migrate,
            "delete": churn.delete,
        }
        point = below(draw(seed, f"churn/{entry.label}", "verb", nth), sum(weights.values()))
        verb = ""
        for verb, weight in weights.items():  # noqa: B007 (the last one looked at is the one)
            if point < weight:
                break
            point -= weight
        population = self._population(churn.hostname.split("{")[0])
        if verb == "create":
            if len(population) < churn.population:
                entry.made += 1
                self._make(numbered(churn.hostname, entry.made), churn.ncpus, churn.memory, start=True)
            return
        group = _RESTING if verb in ("start", "delete") else _RUNNING
        there = population.of(group)
        if there:
            chosen = population.nth(group, below(draw(seed, f"churn/{entry.label}", "who", nth), there))
            self._do(verb, self.world.nexus.records.instances[chosen], entry, None)

    def _population(self, prefix: str) -> Population:
        found = self._populations.get(prefix)
        if found is None:
            found = self._populations[prefix] = Population(prefix, (_RUNNING, _RESTING))
            found.follow(self.world.nexus)
        return found

    def _answered(
        self, what: str, *, creates: bool = False, stops: UUID | None = None
    ) -> Callable[[nx.Reply | nx.Dropped], None]:
        """`stops`: the instance that was asked to stop."""

        def answered(reply: nx.Reply | nx.Dropped) -> None:
            if stops is not None:
                accepted = isinstance(reply, nx.Reply) and reply.status < 400
                self.world.judge.invariants.stop_answered(stops, accepted=accepted)
            if isinstance(reply, nx.Dropped):
                if creates:  # for all its user knows there is nothing: a run of only such proves nothing
                    self.creations += 1
                    self.creations_refused += 1
                    self.first_refusal = self.first_refusal or "no answer"
                self.world.line("user", f"{what}: no answer")
                return
            self.done += 1
            self.creations += creates
            told = str(reply.status)
            if reply.status >= 400:
                self.refused += 1
                told = f"{reply.status} {self.world.readable(reply.body.message)}"
                if creates:
                    self.creations_refused += 1
                    self.first_refusal = self.first_refusal or told
            self.world.line("user", f"{what}: {told}")

        return answered

    # ---- who is meant

    def _meant(self, entry: UserEntry, selector: Selector) -> list[Instance]:
        seed, who = self.world.seed, f"{entry.label}/{entry.occurrence}"
        return [row for row in self.world.nexus.instances() if means(selector, self._facts(row), seed, who)]

    def _facts(self, row: Instance) -> Facts:
        engine = self.world.engine
        subject = engine.cast.subjects.get(row.active_propolis_id) if row.active_propolis_id is not None else None
        return Facts(
            sled=self._sled_of(row),
            vmm=() if subject is None else (subject.short, subject.propolis_id),
            instance=row.id,
            hostname=row.hostname,
            project=(row.project_id, engine.names.get(row.project_id, "")),
            silo=(row.silo_id, engine.names.get(row.silo_id, "")),
            ncpus=row.ncpus,
            memory=row.memory,
            state=None if subject is None else subject.truth,
            role=None if subject is None else subject.role,
            ordinal=0 if subject is None else subject.ordinal,
            key=row.hostname,
        )

    def _sled_of(self, row: Instance) -> str:
        vmm = self.world.nexus.records.active_vmm(row)
        sled = None if vmm is None else self.world.engine.cast.by_id.get(vmm.sled_id)
        return "" if sled is None else sled.name
