"""`shrink`: the smallest scenario that still fails for the same reason, found by leaving things out.

Each pass proposes smaller scenarios, biggest bites first; one that is valid and fails with the same key is the new
start. Where no smaller one fails with this seed, neighbouring seeds are tried: with fewer people on fewer sleds a
rare meeting needs another throw of the dice. It ends when no proposal is left, or after `runs_max` runs.

Read before: play/many.py. Read next: campaign/groups.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice, pairwise
from typing import Any, Final, TypeVar

import attrs

from sim_sled.language.check import parse_scenario
from sim_sled.language.figures import SHARE_ONE
from sim_sled.language.latency import Latency
from sim_sled.language.printing import print_scenario
from sim_sled.language.schema import Agent, Churn, Create, Expect, Fleet, Load, Migrate, Rule, Scenario, numbered
from sim_sled.language.selector import EVERYTHING, Selector
from sim_sled.language.words import is_glob
from sim_sled.play.judge.expect import label_of
from sim_sled.play.judge.failures import Failure
from sim_sled.play.many import Players, Task, play_all
from sim_sled.play.users import Deed

RUNS_MAX: Final = 3_000
"""Runs of one reduction: minutes at most."""
SEEDS: Final = 25
"""Seeds that a proposal is tried with: what happens in one run of ten is then nearly always found."""
ALONE: Final = 4
"""... and one instance alone with so many times more."""
SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
BOOT: Final = 10 * SECOND
"""From a creation until something can be asked of the instance."""
SUSPECTS: Final = 5
"""Instances tried alone of which the failure does not speak: those for which something was asked last before it."""
DEEDS_MAX: Final = 50
"""Deeds of one instance that are written out: more says no more than the crowd did."""
WRITTEN_MAX: Final = 2_000
"""Deeds of a crowd that are written out: hours of some dozen people. More take longer to read than to play."""
_CROWD: Final = 1_000_000
"""What one of a churn counts for: more instances than a scenario can write out."""
_VERBS: Final = ("create", "start", "stop", "reboot", "migrate", "delete")
_CHOOSING: Final = ("start", "stop", "reboot", "delete")
"""Actions of users that mean some instances by a selector and nothing else."""

_T = TypeVar("_T")


@attrs.frozen
class Shrunk:
    """The smallest failing scenario found, and at which cost."""

    scenario: Scenario
    seed: int
    key: str
    text: str
    runs: int
    vmms: int


def size_of(s: Scenario) -> tuple[int, ...]:
    """Smaller in lexicographic order is better: sleds, instances, parts, time."""
    made = sum(load.create.count for load in s.load if load.create is not None)
    # people who go on for ever are more than any number of instances written out
    made += sum(_CROWD * load.churn.population for load in s.load if load.churn is not None)
    parts = len(s.rules) + len(s.load) + len(s.expect) + len(s.latency.entries) + sum(len(r.do) for r in s.rules)
    parts += sum((rule.for_ != EVERYTHING) + (rule.chance != SHARE_ONE) for rule in s.rules)
    parts += sum(bool(getattr(load.churn, verb)) for load in s.load if load.churn is not None for verb in _VERBS)
    parts += sum(getattr(load, load.action()) != EVERYTHING for load in s.load if load.action() in _CHOOSING)
    parts += sum(load.migrate is not None and load.migrate.to != "any" for load in s.load)
    parts += sum(len(load.create.sled) for load in s.load if load.create is not None)
    ends = sum((load.at or 0) + (load.to or 0) for load in s.load)
    return s.fleet.sleds, made, parts, ends


def _measure(s: Scenario, vmms: int) -> tuple[int, ...]:
    """As `size_of`, with the VMMs of its run: who is created sooner needs less time, and is restarted more often. Of
    a crowd their number says nothing.
    """
    sleds, made, *rest = size_of(s)
    return sleds, made, vmms if made < _CROWD else 0, *rest


def shrink(
    task: Task,
    key: str,
    *,
    jobs: int = 1,
    runs_max: int = RUNS_MAX,
    seeds: int = SEEDS,
    told: Callable[[int, Scenario], None] | None = None,
) -> Shrunk | None:
    """Reduces `task.scenario`, which fails with `key` for `task.seed`; None if it does not.

    What is left fails for the same reason: the same is expected, the same seen instead, and users want the same. It
    may have another seed; `seeds`: how many each proposal is tried with.
    """
    task = attrs.evolve(task, scenario=_named(task.scenario))
    start = _fails(task, key)
    if start is None:
        return None
    with Players(jobs) as players:
        how = _Way(key, players, seeds, told, blamed=not _fails_anyhow(task, key))
        crowd = _reduced(how, task, start, runs_max - runs_max // 3, written=False)
        if size_of(crowd.scenario)[1] == 1 or not _has_crowd(task.scenario):
            return crowd  # one instance: nothing is smaller
        written = _reduced(how, task, start, runs_max - crowd.runs, written=True)
    least = min((crowd, written), key=lambda one: _measure(one.scenario, one.vmms))
    return attrs.evolve(least, runs=crowd.runs + written.runs - 1)  # the start was played once


@attrs.frozen
class _Way:
    """What stays the same in one reduction. `blamed`: whoever is wrong on purpose is to blame; and so it stays."""

    key: str
    players: Players
    seeds: int
    told: Callable[[int, Scenario], None] | None
    blamed: bool


def _reduced(way: _Way, task: Task, start: _Failed, runs_max: int, *, written: bool) -> Shrunk:
    """One way down. `written`: it begins with what the crowd asked for, written out, instead of the crowd."""
    best, last, reason = task.scenario, start, start.failure.reason
    runs = 1
    others = False
    while runs < runs_max:
        better = None
        quick = attrs.evolve(task, how=attrs.evolve(task.how, keep=False))
        size = size_of(best)
        smaller = _valid((attrs.evolve(quick, scenario=s) for s in proposed(best)), size)
        # one instance alone is quickly played, so other seeds are tried first of all; and again when all else is done
        first: Iterator[Task] = iter(())
        if written and runs == 1:
            first = _valid((attrs.evolve(quick, scenario=s) for s in _written_out(best, last)), size)
        elif runs == 1 or others:
            alone = _valid((attrs.evolve(quick, scenario=s) for s in _alone(best, last)), size)
            first = _seeded(alone, 0, ALONE * way.seeds)
        rest = iter(()) if written and runs == 1 else _seeded(smaller, int(others), way.seeds if others else 1)
        for one in play_all(chain(first, rest), way.players):
            runs += 1
            failure = next((f for f in one.result.failures if f.reason == reason), None)
            vmms = one.result.counts["vmms"]
            smaller_run = _measure(one.task.scenario, vmms) < _measure(best, last.vmms)
            if failure is not None and smaller_run and not (way.blamed and _fails_anyhow(one.task, way.key)):
                better, last = one.task, _Failed(failure, vmms, one.result.deeds)
                break
            if runs >= runs_max:
                break
        if better is None:
            if others or way.seeds <= 1 or (written and runs <= 2):
                break
            others = True
            continue
        task = attrs.evolve(better, how=task.how)
        best, others = better.scenario, False
        if way.told is not None:
            way.told(runs, best)
    return Shrunk(best, task.seed, way.key, last.failure.text, runs, last.vmms)


def _seeded(tasks: Iterator[Task], first: int, seeds: int) -> Iterator[Task]:
    """Each with this many seeds, its own and those after it."""
    for task in tasks:
        for i in range(first, seeds):
            yield attrs.evolve(task, seed=(task.seed + i) % 2**64)


def _named(s: Scenario) -> Scenario:
    """Expectations without a name get the one they are told by, so that leaving others out does not rename them."""
    return attrs.evolve(
        s, expect=tuple(e if e.always else attrs.evolve(e, name=label_of(e, i)) for i, e in enumerate(s.expect))
    )


@attrs.frozen
class _Failed:
    failure: Failure
    vmms: int
    deeds: tuple[Deed, ...]


def _fails(task: Task, key: str) -> _Failed | None:
    for one in play_all([attrs.evolve(task, how=attrs.evolve(task.how, keep=False))], 1):
        for failure in one.result.failures:
            if failure.key == key:
                return _Failed(failure, one.result.counts["vmms"], one.result.deeds)
    return None


def _right(task: Task) -> Task | None:
    """The same with nobody wrong on purpose, neither by an option nor by a hazard that its file switches on; None if
    nobody is.
    """
    s = task.scenario
    nexus = attrs.evolve(s.nexus, hazards=("none",)) if s.nexus.hazards else s.nexus
    right = attrs.evolve(
        task,
        scenario=attrs.evolve(s, nexus=nexus, agent=attrs.evolve(s.agent, hazards=())),
        how=attrs.evolve(task.how, variant=None, sled_variant=None),
    )
    return None if right == task else right


def _fails_anyhow(task: Task, key: str) -> bool:
    """Whether it fails so with nobody wrong on purpose, too. Then it is the scenario that is wrong."""
    right = _right(task)
    return right is not None and _fails(right, key) is not None


def _valid(tasks: Iterator[Task], size: tuple[int, ...]) -> Iterator[Task]:
    seen: set[str] = set()
    for task in tasks:
        printed = print_scenario(task.scenario)
        if printed in seen or size_of(task.scenario)[:2] > size[:2]:
            continue
        seen.add(printed)
        scenario, problems = parse_scenario(printed, task.shown)
        if scenario is not None and not problems.errors:
            yield attrs.evolve(task, scenario=scenario)


def proposed(s: Scenario) -> Iterator[Scenario]:
    """Smaller scenarios, the most promising first; and some that are not, but may need fewer VMMs."""
    yield from _without_instances(s)
    for sleds in sorted({1, 2, s.fleet.sleds // 2, s.fleet.sleds - 1}):
        if 0 < sleds < s.fleet.sleds:
            yield attrs.evolve(s, fleet=attrs.evolve(s.fleet, sleds=sleds, overrides=()))
    yield from _without(s, "load", s.load)
    yield from _without(s, "rules", s.rules)
    yield from _without(s, "expect", s.expect)
    literal = sorted(_literal_hostnames(s))
    for i, load in enumerate(s.load):
        for smaller in (*_named_alone(load, literal), *_smaller_load(load)):
            yield attrs.evolve(s, load=(*s.load[:i], smaller, *s.load[i + 1 :]))
    yield from _born_later(s)
    yield from _sooner_together(s)
    for i, rule in enumerate(s.rules):
        for simpler in _simpler_rule(rule):
            yield attrs.evolve(s, rules=(*s.rules[:i], simpler, *s.rules[i + 1 :]))
    for i, expect in enumerate(s.expect):
        for less in _simpler_expect(expect):
            yield attrs.evolve(s, expect=(*s.expect[:i], less, *s.expect[i + 1 :]))
    entries = s.latency.entries
    for i in range(len(entries)):
        yield attrs.evolve(s, latency=attrs.evolve(s.latency, entries=entries[:i] + entries[i + 1 :]))
    if s.latency != Latency():
        yield attrs.evolve(s, latency=Latency())
    if s.agent != Agent():
        yield attrs.evolve(s, agent=Agent())
    if s.fleet != Fleet(sleds=s.fleet.sleds):
        yield attrs.evolve(s, fleet=Fleet(sleds=s.fleet.sleds))


def _has_crowd(s: Scenario) -> bool:
    return any(load.churn is not None or load.every is not None for load in s.load)


def _alone(s: Scenario, last: _Failed) -> Iterator[Scenario]:
    """Instead of a crowd what was asked for one instance, each deed an entry: the one of which the failure speaks, or
    one for which something was asked just before.
    """
    if not _has_crowd(s):
        return
    words = set(last.failure.text.replace(":", " ").replace(",", " ").split())
    spoken = dict.fromkeys(deed.hostname for deed in last.deeds if deed.hostname in words)
    before = dict.fromkeys(deed.hostname for deed in reversed(last.deeds) if deed.at_us <= last.failure.at_us)
    for hostname in (*spoken, *islice((name for name in before if name not in spoken), SUSPECTS)):
        its = [deed for deed in last.deeds if deed.hostname == hostname][:DEEDS_MAX]
        yield attrs.evolve(s, load=tuple(map(_written, its)))


def _written_out(s: Scenario, last: _Failed) -> Iterator[Scenario]:
    """Instead of a crowd what it asked for until the failure, each deed an entry. With the same seed everybody meets
    the same fate, which is drawn by host name, so that instance after instance can be left out.
    """
    before = [deed for deed in last.deeds if deed.at_us <= last.failure.at_us]
    if len(before) <= WRITTEN_MAX:
        yield attrs.evolve(s, load=tuple(map(_written, before)))


def _written(deed: Deed) -> Load:
    what: dict[str, Any] = {deed.verb: deed.create or Selector(hostname=(deed.hostname,))}
    if deed.verb == "migrate":
        what = {"migrate": Migrate(hostname=(deed.hostname,), to=deed.to)}
    return Load(at=deed.at_us, **what)


def _without(s: Scenario, field: str, items: tuple[Any, ...]) -> Iterator[Scenario]:
    for left in _fewer(items):
        changed: dict[str, Any] = {field: left}
        yield attrs.evolve(s, **changed)


def _without_instances(s: Scenario) -> Iterator[Scenario]:
    """Of instances that are written out one by one, some and all that is asked of them."""
    about = [_only(load) for load in s.load]
    hostnames = tuple(dict.fromkeys(name for name in about if name))
    for left in _fewer(hostnames):
        load = tuple(one for one, name in zip(s.load, about, strict=True) if not name or name in left)
        yield attrs.evolve(s, load=load)


def _born_later(s: Scenario) -> Iterator[Scenario]:
    """Of an instance that is written out, the life before something is asked of it is left out."""
    about = [_only(load) for load in s.load]
    for hostname in dict.fromkeys(name for name in about if name):
        made, *asked = (load for load, name in zip(s.load, about, strict=True) if name == hostname)
        others = [load for load, name in zip(s.load, about, strict=True) if name != hostname]
        if made.create is None or made.at is None:
            continue
        for i in reversed(range(len(asked))):
            starts, at = asked[i].start is not None, asked[i].at or 0
            born = at if starts else max(made.at, at - BOOT)
            yield attrs.evolve(s, load=(*others, attrs.evolve(made, at=born), *asked[i + starts :]))


def _only(load: Load) -> str:
    """The host name of the one instance that it is about; "" if of several."""
    if load.create is not None:
        return numbered(load.create.hostname, 1) if load.create.count == 1 and load.every is None else ""
    meant = load.migrate.hostname if load.migrate is not None else ()
    if load.action() in _CHOOSING:
        meant = getattr(load, load.action()).hostname
    return meant[0] if len(meant) == 1 and not is_glob(meant[0]) else ""


def _fewer(items: tuple[_T, ...]) -> Iterator[tuple[_T, ...]]:
    """Halves first, then single ones are left out."""
    n = len(items)
    step = n
    while step >= 1:
        for start in range(0, n, step):
            left = items[:start] + items[start + step :]
            if len(left) < n:
                yield left
        step //= 2


def _literal_hostnames(s: Scenario) -> set[str]:
    """Host names that somebody means without a glob."""
    selectors: list[Selector | None] = [*(rule.for_ for rule in s.rules), *(expect.for_ for expect in s.expect)]
    for load in s.load:
        selectors += [load.start, load.stop, load.reboot, load.delete, load.migrate]
    return {name for one in selectors if one is not None for name in one.hostname if not is_glob(name)}


def _named_alone(load: Load, names: list[str]) -> Iterator[Load]:
    """Instead of many instances the one that is meant."""
    if load.create is None or load.create.count == 1:
        return
    made = {numbered(load.create.hostname, n) for n in range(1, min(load.create.count, 1_000) + 1)}
    for name in names:
        if name in made:
            yield attrs.evolve(load, create=attrs.evolve(load.create, hostname=name, count=1, spread=0))


def _smaller_load(load: Load) -> Iterator[Load]:
    if load.create is not None:
        for create in _smaller_create(load.create):
            yield attrs.evolve(load, create=create)
    if load.churn is not None:
        for churn in _smaller_churn(load.churn):
            yield attrs.evolve(load, churn=churn)
    if load.migrate is not None and load.migrate.to != "any":
        yield attrs.evolve(load, migrate=attrs.evolve(load.migrate, to="any"))
    if load.action() in _CHOOSING and getattr(load, load.action()) != EVERYTHING:
        everybody: dict[str, Any] = {load.action(): EVERYTHING}
        yield attrs.evolve(load, **everybody)
    if load.to is not None and load.from_ is not None:
        middle = load.from_ + (load.to - load.from_) // 2 // SECOND * SECOND
        if load.from_ < middle < load.to:
            yield attrs.evolve(load, to=middle)
    if load.at:
        for sooner in (0, load.at // 2 // SECOND * SECOND):
            if sooner < load.at:
                yield attrs.evolve(load, at=sooner)


def _smaller_create(create: Create) -> Iterator[Create]:
    if create.sled:
        yield attrs.evolve(create, sled=())
        yield attrs.evolve(create, sled=create.sled[:-1])
    for count in _less(create.count):
        yield attrs.evolve(create, count=count)


def _smaller_churn(churn: Churn) -> Iterator[Churn]:
    for people in _less(churn.population):
        yield attrs.evolve(churn, population=people)
    for verb in _VERBS:
        if getattr(churn, verb):
            without: dict[str, Any] = {verb: 0}
            yield attrs.evolve(churn, **without)


def _less(count: int) -> list[int]:
    """Fewer of something, and at least one; the fewest first."""
    return sorted(each for each in {1, 2, 3, count // 2, count - 1} if 0 < each < count)


def _sooner_together(s: Scenario) -> Iterator[Scenario]:
    """Everything from some time on is asked sooner, so that what comes after what stays as it was; also by whole
    minutes, at which Nexus's background tasks have their turn as before.
    """
    if any(load.at is None for load in s.load):
        return
    times = sorted({0, *(load.at for load in s.load if load.at is not None)})
    for before, first in pairwise(times):
        gap = first - before
        for cut in sorted({gap, gap // MINUTE * MINUTE, gap // 2 // SECOND * SECOND} - {0}, reverse=True):
            moved = (attrs.evolve(one, at=one.at - cut) if one.at and one.at >= first else one for one in s.load)
            yield attrs.evolve(s, load=tuple(moved))


def _simpler_rule(rule: Rule) -> Iterator[Rule]:
    for i in range(len(rule.do)):
        if len(rule.do) > 1:
            yield attrs.evolve(rule, do=rule.do[:i] + rule.do[i + 1 :])
    if rule.for_ != EVERYTHING:
        yield attrs.evolve(rule, for_=EVERYTHING)
    if rule.chance != SHARE_ONE:
        yield attrs.evolve(rule, chance=SHARE_ONE)


def _simpler_expect(expect: Expect) -> Iterator[Expect]:
    for name in expect.always:
        if len(expect.always) > 1:
            yield attrs.evolve(expect, always=tuple(n for n in expect.always if n != name))


__all__ = ["Shrunk", "proposed", "shrink", "size_of"]
