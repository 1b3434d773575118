"""One run of a scenario in the closed world, from the first registration until it rests; its result.

A run ends when users, timed rules and expectations are through and nothing has happened for `SETTLE_US` (so that
the background tasks of Nexus had their turn), or `OVERTIME_US` after that if something never comes to rest, e.g. a
sled that is cut off for ever and retries.

Read before: play/virtual.py. Read next: campaign/job.py, cli/scenario_commands.py, play/many.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

import attrs

from nexus_client.stub.config import Config
from nexus_client.stub.nexus import Nexus
from nexus_client.stub.records import IntendedState, InvariantBroken
from sim_sled.core.event import Event
from sim_sled.engine.engine import Engine
from sim_sled.engine.plans import Overrun
from sim_sled.language.actions import RebootSled, RestartAgent, RestartNexus
from sim_sled.language.figures import FOREVER
from sim_sled.language.printing import print_scenario
from sim_sled.language.schema import Rule, Scenario
from sim_sled.language.selector import Selector
from sim_sled.language.source import Mark
from sim_sled.play.judge.expect import UNJUDGED, Judge, label_of
from sim_sled.play.judge.failures import Failure
from sim_sled.play.trace import Line, Trace
from sim_sled.play.users import Deed, UserEntry, Users
from sim_sled.play.virtual import EPOCH_US, Bounds, TooMuch, World

SETTLE_US: Final = 135_000_000
"""Longer than two rounds of each of Nexus's background tasks (30 s and 60 s, NX 4.5)."""
BEGUN_US: Final = 1_000_000
"""How long after the last planned event the first thing that comes of it is due: a request and its answer."""
OVERTIME_US: Final = 20 * 60_000_000
"""How long after the last planned event a run may still be busy (a stop's grace is 10 minutes)."""
EMPTY: Final = "W312"
"""Every creation was refused: nothing was there to fail."""
_ASK_EVERY: Final = 64
"""Steps between two reports of progress."""


@attrs.frozen
class Warned:
    """W300, W310 to W313 of a run. `about`: the label of an expectation (W310)."""

    code: str
    text: str
    mark: Mark
    about: str = ""


@attrs.frozen
class Result:
    """How a run went."""

    scenario: Scenario
    seed: int
    variant: str
    sled_variant: str
    failures: tuple[Failure, ...]
    warnings: tuple[Warned, ...]
    unfired: tuple[str, ...]
    steps: int
    elapsed_us: int
    end: str
    lines: tuple[Line, ...]
    counts: dict[str, int]
    clock: str = "virtual"
    deeds: tuple[Deed, ...] = ()
    """What users asked for, one by one."""
    met: dict[str, int] = attrs.field(factory=dict)
    """How often each expectation was met, by its label."""
    fired: dict[str, int] = attrs.field(factory=dict)
    """How often each rule fired, by its name."""
    events: tuple[Event, ...] = ()
    """What happened, for `--events`; none if nobody wanted them."""

    @property
    def good(self) -> bool:
        """Nothing failed, and something was there to fail: a run in which nobody got an instance proves nothing."""
        return not self.failures and not self.is_empty

    @property
    def is_empty(self) -> bool:
        """Whether every creation was refused."""
        return any(warned.code == EMPTY for warned in self.warnings)

    def trace(self) -> Trace:
        marks = [f"rule {rule.name} {rule.mark()}" for rule in self.scenario.rules]
        marks += [f"expect {i} {expect.mark()}" for i, expect in enumerate(self.scenario.expect)]
        lines = tuple(str(line) for line in self.lines)
        return Trace(
            self.seed, print_scenario(self.scenario), lines, self.end, self.variant, tuple(marks), self.sled_variant
        )


@attrs.frozen
class How:
    """Options of a run. `events`: they are kept too. `until_us`: end there, at rest or not."""

    variant: str | None = None
    sled_variant: str | None = None
    bounds: Bounds = attrs.field(factory=Bounds)
    keep: bool = True
    events: bool = False
    until_us: int | None = None
    nexus: Config | None = None


Progress = Callable[[World], None]
NAMED_MAX: Final = 5
"""Instances that a warning names."""


def play(scenario: Scenario, seed: int, how: How | None = None, progress: Progress | None = None) -> Result:
    """Play a scenario. Never raises for what happens inside: that is in the result."""
    how = how or How()
    world = World(
        scenario,
        seed,
        variant=how.variant,
        sled_variant=how.sled_variant,
        bounds=how.bounds,
        keep=how.keep,
        events=[] if how.events else None,
        nexus_config=how.nexus,
    )
    end = run_to_end(world, how, progress)
    return attrs.evolve(result_of(world, end, world.lines), events=tuple(world.events or ()))


def run_to_end(world: World, how: How, progress: Progress | None = None) -> str:
    """Steps until the run is over; returns how it ended."""
    settled = ended = False
    try:
        world.begin()
        end_us = horizon_us(world.scenario, world.users)
        while True:
            if progress is not None and world.steps % _ASK_EVERY == 0:
                progress(world)
            if _is_over(world, end_us):
                settled = True
                break
            if world.elapsed_us > end_us + OVERTIME_US and not world.judge.is_waiting:
                ended = True
                break
            if how.until_us is not None and (world.next_us() or 0) - EPOCH_US > how.until_us:
                world.judge.undecided()
                break
            if not world.step():
                settled = True
                break
    except (TooMuch, Overrun) as bound:
        world.judge.failures.append(Failure("bounds", str(bound), world.elapsed_us))
        world.line("failed", f"bounds: {bound}")
    except InvariantBroken as broken:  # the model has reported it and would go on; what follows would follow from it
        text = f"invariant nexus_properties: {broken.prop}: {world.readable(str(broken))}"
        world.judge.failures.append(Failure(f"nexus_properties/{broken.prop}", text, world.elapsed_us))
        world.line("failed", text)
    if settled or ended:  # what was cut short has no last state to be judged by
        world.judge.invariants.finish(settled=settled)
    how_far = f"{world.elapsed_us // 1_000_000}.{world.elapsed_us % 1_000_000:06d} s, {world.steps} steps"
    return how_far + ("" if settled else ", not at rest")


def horizon_us(scenario: Scenario, users: Users) -> int:
    """The last planned event: users, timed rules and what they set off for a known time."""
    ends = [users.last_us()]
    ends += [_last_of(rule) for rule in scenario.rules]
    afters = [expect.after for expect in scenario.expect if expect.after is not None]
    return max(ends + [after.at for after in afters if after.at is not None])


def _last_of(rule: Rule) -> int:
    when = rule.when
    start = when.at or (when.to if isinstance(when.to, int) else when.from_) or 0
    lasting = [getattr(action, "lasts", 0) for action in rule.do]
    downs = [a.down.typical_most_us() for a in rule.do if isinstance(a, RestartAgent | RebootSled | RestartNexus)]
    return start + max([0, *(one for one in lasting if isinstance(one, int) and one < FOREVER), *downs])


def _is_over(world: World, end_us: int) -> bool:
    now_us = world.now_us
    quiet = now_us - EPOCH_US >= end_us and now_us - world.active_us >= SETTLE_US and not world.judge.is_waiting
    if not quiet:
        return False
    # after a long silence the last planned event may be due at this very moment, or have been begun and not shown yet
    next_us = world.next_us()
    return next_us is None or next_us - EPOCH_US > end_us + BEGUN_US


class Finished(Protocol):
    """What a result is made of: a closed world, or one on real sockets (`daemon/on_sockets.py`)."""

    scenario: Scenario
    seed: int
    steps: int
    judge: Judge
    users: Users

    @property
    def engine(self) -> Engine: ...
    @property
    def nexus(self) -> Nexus: ...
    @property
    def variant(self) -> str | None: ...
    @property
    def sled_variant(self) -> str | None: ...
    def readable(self, text: str, /) -> str: ...
    @property
    def elapsed_us(self) -> int: ...


def result_of(world: Finished, end: str, lines: Iterable[Line], clock: str = "virtual") -> Result:
    """What is to be told of a run."""
    unfired = tuple(
        rule.name for rule in world.scenario.rules if rule.enabled and not world.engine.counters[rule.name].fired
    )
    counts = {
        "steps": world.steps,
        "vmms": len(world.engine.cast.subjects),
        "user_actions": world.users.done,
        "user_refused": world.users.refused,
        "creations_refused": world.users.creations_refused,
        "rules_fired": sum(counter.fired for counter in world.engine.counters.values()),
        "expectations_armed": sum(world.judge.armed_count.values()),
        "expectations_met": sum(world.judge.met_count.values()),
    }
    return Result(
        world.scenario,
        world.seed,
        world.variant or "",
        world.sled_variant or "",
        tuple(world.judge.failures),
        tuple(_warnings(world)),
        unfired,
        world.steps,
        world.elapsed_us,
        end,
        tuple(lines),
        counts,
        clock,
        tuple(world.users.deeds),
        dict(world.judge.met_count),
        {name: counter.fired for name, counter in world.engine.counters.items()},
    )


def _warnings(world: Finished) -> list[Warned]:
    found = []
    for rule in world.scenario.rules:
        counter = world.engine.counters[rule.name]
        selects = rule.for_.names_vmms() or rule.for_.names_sleds()
        if rule.enabled and selects and counter.matched == 0 and world.engine.cast.subjects:
            found.append(Warned("W300", f"rule '{rule.name}' meant nobody in this run", rule.mark("for")))
        for action, (times, why) in counter.futile.items():
            if action not in counter.worked:
                often = f"{counter.fired} time{'s' * (counter.fired != 1)}"
                told = f"rule '{rule.name}' fired {often}, but '{action}' had no effect ({times} x: {why})"
                found.append(Warned("W313", world.readable(told), rule.mark()))
    failed = {failure.key for failure in world.judge.failures}
    for i, expect in enumerate(world.scenario.expect):
        label = label_of(expect, i)
        if not expect.always and not world.judge.armed_count.get(label) and f"{UNJUDGED}/{label}" not in failed:
            told = f"expectation '{label}' was never armed in this run"
            found.append(Warned("W310", told, expect.mark("after"), label))
    users = world.users
    if users.creations and users.creations == users.creations_refused:
        told = f"no instance was created: all {users.creations} were refused, the first with {users.first_refusal}"
        create = next(load.mark() for load in world.scenario.load if load.action() in ("create", "churn"))
        found.append(Warned("W312", told, create))
    homeless = never_placed(world)
    if homeless:
        names = ", ".join(homeless[:NAMED_MAX]) + (", ..." if len(homeless) > NAMED_MAX else "")
        many = f"{len(homeless)} instance{'s' * (len(homeless) != 1)}"
        made_by = next((load.mark() for load in world.scenario.load if load.action() in ("create", "churn")), None)
        if made_by is not None:
            found.append(Warned("W314", f"{many} never found room on a sled: {names}", made_by))
    alone = [e for e in world.users.entries if e.load.action() not in ("create", "churn", "task") and e.met == 0]
    return found + [Warned("W311", _met_nobody(e), e.load.mark()) for e in alone]


def never_placed(world: Finished) -> list[str]:
    """Host names of instances that users want running and that never had a VMM, in order of their names."""
    had = {who.instance_id for who in world.engine.cast.subjects.values()}
    rows = world.nexus.records.instances.values()
    wanted = [each for each in rows if each.intended_state is IntendedState.RUNNING and each.time_deleted is None]
    return sorted(each.hostname for each in wanted if each.id not in had)


def _met_nobody(entry: UserEntry) -> str:
    """A user action without anybody to do it to; why, where it could never have met anybody."""
    told, verb = f"{entry.label} met no instance in this run", entry.load.action()
    selector = getattr(entry.load, verb)
    if verb in ("start", "delete") and isinstance(selector, Selector) and selector.names_sleds():
        return told + ": one that is stopped is on no sled; mean it by its host name"
    return told
