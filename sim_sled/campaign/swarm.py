"""A swarm: each seed plays another scenario, made of the file and of faults of the library. One number is all of it.

The eight bytes of a seed are eight parts, each drawn by its own byte: so a seed can be changed in one part and keep
the others, which is what guidance does (`guide.py`).

    rules       which rules of the file are on
    latency     how much faster or slower everything is
    shares      how likely the rules' chances and shares are; where an ambush is laid, and for whom (`ambush.py`)
    fleet       how many sleds
    load        how many instances; whether a crowd of users comes along, impatient ones who
                ask without looking, and watchful ones who look too often
    faults      which faults of the catalogue are added: rules of the library, freed from the names they mean, and
                mostly a family of them with its users and latencies, as one scenario of the library has them
    places      whom they mean, when and how often; with what an ambush strikes
    chance      nothing of this: the run's own draws, which depend on the whole number

What a file expects of its own rules need not hold with others. So a swarm is judged by invariants, which hold
whatever rules do, unless it is to be told apart from a wrong Nexus or wrong sleds: then the right ones are asked,
too (`job.py`).

Read before: campaign/ambush.py, campaign/draws.py, campaign/job.py, play/library.py. Read next: campaign/guide.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

import attrs

from sim_sled.campaign.ambush import MOMENT_US, SECOND, VERBS, ambush, asking, unlucky, watchful
from sim_sled.campaign.draws import PARTS, Draws, byte_of
from sim_sled.language.actions import Fire, Hold, Release, RestartNexus, SetFacts
from sim_sled.language.check import parse_scenario, sleds_of
from sim_sled.language.distribution import (
    Choice,
    Distribution,
    Exponential,
    Fixed,
    FromFile,
    LogNormal,
    Normal,
    Uniform,
)
from sim_sled.language.figures import DURATION_MAX, SHARE_ONE
from sim_sled.language.latency import Latency, LatencyEntry
from sim_sled.language.presets import PRESETS
from sim_sled.language.printing import print_scenario
from sim_sled.language.schema import FLEET_MAX, Churn, Expect, Fleet, Load, Migrate, Nexus, Rule, Scenario
from sim_sled.language.selector import EVERYTHING, Selector
from sim_sled.language.words import DEFAULT_INVARIANTS
from sim_sled.play import library

FAULTS_MAX: Final = 4
"""Faults added to one run: more hide each other."""
INSTANCES_MAX: Final = 24
"""Of one `create`: a campaign wants many short runs, not a long one."""
WHEN_US: Final = 120 * SECOND
"""Added faults that have a time get one before this; the crowd of users is gone by then."""
_LAGS_US: Final = (0, 20_000, 70_000, 200_000, SECOND, 3 * SECOND)
"""Of users who ask at a moment: from the answer to a fault's first report up to the middle of a migration."""
_POINTS: Final = ("now", "after_commit", "in_commit")
_OF_FAMILY: Final = "swarm-of-"
_FACTORS: Final = ((1, 20), (1, 4), (1, 1), (1, 1), (3, 1), (10, 1))
_SAGAS: Final = (1, 1, 1, 20, 100)
"""How many times slower a node of a saga is."""
_LONGEST_US: Final = 90 * SECOND
"""No latency is scaled beyond: what takes longer than a saga's patience is a fault, and the catalogue has those."""


def swarmed(scenario: Scenario, seed: int, *, keeps_expectations: bool = False) -> Scenario:
    """The scenario that a seed of a swarm over this one plays. It is valid: printed and read it is the same."""
    parts = {part: Draws(part, byte_of(seed, part)) for part in PARTS}
    family = _family(parts["faults"])
    fleet = _fleet(scenario, family, parts["fleet"])
    changed = attrs.evolve(
        scenario,
        seed=None,
        fleet=fleet,
        latency=_latency(scenario.latency, family, parts["latency"]),
        nexus=_nexus(scenario.nexus, family, parts["latency"]),
        load=_load(scenario, parts["load"]),
        expect=scenario.expect if keeps_expectations else _invariants(scenario),
    )
    rules = _own(scenario, parts["rules"], parts["shares"])
    sleds = [sled.name for sled in sleds_of(fleet)]
    most = FAULTS_MAX if family is None else 1  # ... beside a family: what it shows is not to be hidden
    added = _added({rule.name for rule in rules}, sleds, parts["faults"], parts["places"], most)
    if family is not None:
        added += [_on_a_sled(rule, n, sleds, parts["places"]) for n, rule in enumerate(family.rules)]
        changed = attrs.evolve(changed, load=(*changed.load, *family.load))
    if parts["places"].below("unlucky", 4) < (1 if family is not None else 2):
        added.append(unlucky(parts["places"]))
    if parts["shares"].below("ambushed", 4) < (1 if family is not None else 3):
        laid, brought = ambush(parts["shares"], parts["places"], WHEN_US)
        added += laid
        changed = attrs.evolve(changed, load=(*changed.load, *brought))
    changed = attrs.evolve(changed, rules=(*rules, *added))
    read, problems = parse_scenario(print_scenario(changed), scenario.name)
    if read is None:  # a draw that does not fit this file (a test looks for it); it plays without what was added
        assert problems.errors
        return attrs.evolve(changed, rules=rules, load=_load(scenario, parts["load"]))
    return read


# ---- what the file has


def _own(scenario: Scenario, on: Draws, shares: Draws) -> tuple[Rule, ...]:
    """The file's rules, some of them off. Those that others refer to stay: half of a pair is another scenario."""
    share = (SHARE_ONE, SHARE_ONE, SHARE_ONE * 3 // 4, SHARE_ONE // 2, SHARE_ONE // 4)[on.below("share", 5)]
    needed = _referred(scenario)
    rules = []
    for n, rule in enumerate(scenario.rules):
        enabled = rule.enabled and (rule.name in needed or on.happens("on", share, n))
        chance = rule.chance
        if shares.below("scales", 2):
            chance = max(1, min(SHARE_ONE, chance * (1 + shares.below("factor", 8, n)) // 4))
        rules.append(attrs.evolve(rule, enabled=enabled, chance=chance))
    return tuple(rules)


def _referred(scenario: Scenario) -> set[str]:
    """Rules that others name, and that name others."""
    names: set[str] = set()
    for rule in scenario.rules:
        others = {rule.when.rule} if rule.when.rule else set()
        for action in rule.do:
            if isinstance(action, Hold) and action.until:
                others.add(action.until)
            elif isinstance(action, Fire | Release):
                others.add(rule.name)
        if others:
            names |= others | {rule.name}
    for expect in scenario.expect:
        if expect.after is not None and expect.after.rule:
            names.add(expect.after.rule)
    return names


def _fleet(scenario: Scenario, family: Family | None, draws: Draws) -> Fleet:
    fleet = scenario.fleet
    named = (
        family is not None  # which may want to lose a sled, or to move somebody
        or fleet.overrides
        or any(rule.for_.names_sleds() for rule in scenario.rules)
        or any(load.migrate is not None and load.migrate.to != "any" for load in scenario.load)
        or any(load.create is not None and load.create.sled for load in scenario.load)
    )
    least = fleet.sleds if named else 1
    counts = sorted({least, max(least, fleet.sleds // 2), fleet.sleds, fleet.sleds, fleet.sleds + 1, fleet.sleds + 2})
    return attrs.evolve(fleet, sleds=min(FLEET_MAX, counts[draws.below("sleds", len(counts))]))


def _latency(latency: Latency, family: Family | None, draws: Draws) -> Latency:
    """Everything times one factor, and some of it times another; or as a family has it, as its moments rest on it."""
    if family is not None and family.latency is not None and draws.below("of family", 4):
        return family.latency
    factor = _FACTORS[draws.below("factor", len(_FACTORS))]
    takes = dict(PRESETS[latency.preset].takes) | {(one.kind, one.what): one.takes for one in latency.entries}
    entries = []
    for n, ((kind, what), one) in enumerate(takes.items()):
        own = (
            _FACTORS[draws.below("own", len(_FACTORS), n)] if draws.happens("differs", SHARE_ONE // 5, n) else (1, 1)
        )
        entries.append(LatencyEntry(kind, what, scaled(one, factor[0] * own[0], factor[1] * own[1])))
    return Latency(latency.preset, tuple(entries))


def _nexus(nexus: Nexus, family: Family | None, draws: Draws) -> Nexus:
    """A quick Nexus, or a slow one: what comes between two nodes of a saga comes more often then."""
    if family is not None and family.saga_node is not None and draws.below("of family", 4):
        return attrs.evolve(nexus, saga_node=family.saga_node)
    return attrs.evolve(nexus, saga_node=nexus.saga_node * _SAGAS[draws.below("saga node", len(_SAGAS))])


def scaled(takes: Distribution, times: int, by: int) -> Distribution:
    """The distribution with every time multiplied by `times / by`."""

    def us(value: int) -> int:
        scaled_us = value * times // by
        # what was longer from the start stays as long
        return scaled_us if scaled_us <= value else max(value, min(DURATION_MAX, _LONGEST_US, scaled_us))

    match takes:
        case Fixed():
            return Fixed(us(takes.us))
        case Uniform():
            low, high = us(takes.low_us), us(takes.high_us)
            return Uniform(low, high) if low < high else Fixed(low)
        case Normal():
            return Normal(us(takes.mean_us), us(takes.sigma_us))
        case LogNormal():
            low = max(1, us(takes.p50_us))
            return LogNormal(low, max(low, us(takes.p99_us)))
        case Exponential():
            return Exponential(us(takes.mean_us))
        case Choice():
            parts = tuple((share, scaled(inner, times, by)) for share, inner in takes.parts)
            return Choice(tuple((share, one) for share, one in parts if isinstance(one, Fixed | Uniform)))
        case FromFile() | _:
            return takes  # measured times stay what was measured


def _load(scenario: Scenario, draws: Draws) -> tuple[Load, ...]:
    """Fewer or more instances, busier users, and with every second byte a crowd who do what they like."""
    loads = []
    for n, load in enumerate(scenario.load):
        create = load.create
        if create is not None and "{n" in create.hostname:
            counts = sorted({1, max(1, create.count // 2), create.count, min(INSTANCES_MAX, create.count * 2)})
            count = (
                min(create.count, INSTANCES_MAX)
                if draws.below("same", 2, n)
                else counts[draws.below("n", len(counts), n)]
            )
            create = attrs.evolve(create, count=count)
        busy = load.churn is not None and load.every is not None and draws.below("busy", 2, n)
        every = scaled(load.every, 1, 3) if busy and load.every is not None else load.every
        loads.append(attrs.evolve(load, create=create, every=every))
    if draws.below("crowd", 2):
        loads.append(_crowd(draws))
    loads += (_impatient(draws, n) for n in range(draws.below("impatient", 4)))
    return (*loads, *(watchful(draws, n, WHEN_US) for n in range(draws.below("watchful", 4))))


def _impatient(draws: Draws, n: int) -> Load:
    """Users who ask the same again and again, of all or of some, whether it can be or not: most of it is refused."""
    share = (None, SHARE_ONE // 2, SHARE_ONE // 4)[draws.below("whom", 3, n)]
    lag_us = _LAGS_US[draws.below("lag", len(_LAGS_US), n)]
    again = MOMENT_US * (1 + draws.below("again", 3, n))
    load = Load(name=f"swarm-impatient-{n + 1}", every=Fixed(again), from_=MOMENT_US + lag_us, to=WHEN_US)
    return asking(load, draws.one_of("verb", VERBS, n), Selector(percent=share))


def _crowd(draws: Draws) -> Load:
    def weight(verb: str) -> int:
        return (0, 1, 2, 4)[draws.below(verb, 4)]

    churn = Churn(
        population=1 + draws.below("population", 8),
        create=3,
        start=weight("start"),
        stop=weight("stop"),
        reboot=weight("reboot"),
        migrate=weight("migrate"),
        delete=weight("delete"),
        hostname="swarm-{n}",
    )
    every = Uniform(SECOND // 10, SECOND * (1 + draws.below("pause", 5)))
    return Load(name="swarm-crowd", every=every, from_=0, to=WHEN_US, churn=churn)


def _invariants(scenario: Scenario) -> tuple[Expect, ...]:
    names = dict.fromkeys(DEFAULT_INVARIANTS)
    for expect in scenario.expect:
        names |= dict.fromkeys(expect.always)
    return (Expect(always=tuple(names)),)


# ---- what comes from the library


@cache
def catalogue() -> tuple[Rule, ...]:
    """The rules of all library scenarios that can stand alone, freed from the names and sleds they mean there."""
    return tuple(rule for _, family in sorted(_library().items()) for rule in family.rules)


@cache
def families() -> tuple[Family, ...]:
    """Library scenarios of which more than one rule can stand alone, or whose users do something at a moment; but for
    those whose faults are of disks, files and clocks, which instances hardly feel.
    """
    found = (family for _, family in sorted(_library().items()))
    return tuple(
        family
        for family in found
        if len(family.rules) + len(family.load) > 1
        and not any(isinstance(action, SetFacts) for rule in family.rules for action in rule.do)
    )


@attrs.frozen
class Family:
    """What one library scenario plays: its rules and its users' wishes, freed from the names they mean there."""

    rules: tuple[Rule, ...]
    load: tuple[Load, ...]
    latency: Latency | None
    saga_node: int | None
    """None, of these two: it says nothing of it."""


@cache
def _library() -> dict[str, Family]:
    loaded, _ = library.load(library.names())
    return {one.scenario.name: _freed(one.scenario) for one in loaded if one.scenario is not None}


def _freed(scenario: Scenario) -> Family:
    tied = _referred(scenario) - _of_expectations(scenario)
    rules = []
    for rule in sorted(scenario.rules, key=lambda each: each.name):
        if rule.name in tied or rule.when.manual or rule.when.idle is not None:
            continue
        freed = Selector(state=rule.for_.state, role=rule.for_.role)
        if not rule.when.of_vmm() and rule.for_.names_vmms():
            freed = attrs.evolve(freed, percent=SHARE_ONE // 2)  # a timer that means VMMs has to say which
        name = f"{scenario.name}-{rule.name}"[:60]
        rules.append(attrs.evolve(rule, name=name, for_=freed))
    latency = scenario.latency if scenario.latency != Latency() else None
    saga_node = scenario.nexus.saga_node if scenario.nexus.saga_node != Nexus().saga_node else None
    return Family(tuple(rules), tuple(_users(scenario)), latency, saga_node)


def _users(scenario: Scenario) -> Iterator[Load]:
    """Wishes at a moment or again and again, of everybody instead of those named there."""
    for n, load in enumerate(scenario.load):
        name = f"swarm-{scenario.name}-{n + 1}"[:63]
        if load.migrate is not None:
            yield attrs.evolve(load, name=name, migrate=Migrate(percent=load.migrate.percent))
        elif load.create is None and load.churn is None:
            yield attrs.evolve(
                load,
                name=name,
                start=load.start and Selector(percent=load.start.percent),
                stop=load.stop and Selector(percent=load.stop.percent),
                reboot=load.reboot and Selector(percent=load.reboot.percent),
                delete=load.delete and Selector(percent=load.delete.percent),
            )


def _family(which: Draws) -> Family | None:
    known = families()
    return known[which.below("family", len(known))] if which.below("has family", 4) else None


def _of_expectations(scenario: Scenario) -> set[str]:
    alone = attrs.evolve(scenario, rules=())
    return _referred(alone) - _referred(attrs.evolve(scenario, expect=()))


def _added(taken: set[str], sleds: Sequence[str], which: Draws, places: Draws, most: int) -> list[Rule]:
    known = catalogue()
    rules = []
    for n in range(which.below("count", most + 1)):
        rule = placed(known[which.below("which", len(known), n)], n, sleds, places)
        if rule.name not in taken:
            rules.append(rule)
    return rules


def placed(rule: Rule, nth: int, sleds: Sequence[str], places: Draws) -> Rule:
    """A rule of the catalogue as the n-th fault of a run: whom it means, when and how often."""
    rule = _on_a_sled(rule, nth, sleds, places)
    when, for_ = rule.when, rule.for_
    if when.at is not None:
        when = attrs.evolve(when, at=MOMENT_US * (1 + places.below("at", WHEN_US // MOMENT_US, nth)))
    if when.of_vmm():
        share = (SHARE_ONE, SHARE_ONE, SHARE_ONE // 2, SHARE_ONE // 4)[places.below("share", 4, nth)]
        for_ = attrs.evolve(for_, percent=share if share < SHARE_ONE else for_.percent)
    point = _POINTS[places.below("point", len(_POINTS), nth)]
    do = tuple(attrs.evolve(each, point=point) if isinstance(each, RestartNexus) else each for each in rule.do)
    return attrs.evolve(
        rule,
        name=f"swarm-{nth + 1}-{rule.name.removeprefix(_OF_FAMILY)}"[:63],
        for_=for_,
        when=when,
        between=None,
        do=do,
        times=(rule.times, rule.times, 1, 3)[places.below("times", 4, nth)],
        skip=(0, 0, 1, 3)[places.below("skip", 4, nth)],
    )


def _on_a_sled(rule: Rule, nth: int, sleds: Sequence[str], places: Draws) -> Rule:
    """A rule whose timer means sleds means one of them: else all were lost at once."""
    for_ = rule.for_
    if not rule.when.of_vmm() and for_.percent is None:
        for_ = attrs.evolve(for_, sled=(sleds[places.below("sled", len(sleds), nth)],))
    return attrs.evolve(rule, name=f"{_OF_FAMILY}{rule.name}"[:63], for_=for_ if for_ != Selector() else EVERYTHING)


__all__ = ["catalogue", "families", "placed", "scaled", "swarmed"]
