"""Scenarios of the language. What is printed of one is read as the same.

Read before: strategies/__init__.py.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from sim_sled.language import actions as act
from sim_sled.language import distribution as d
from sim_sled.language.figures import FOREVER, Span
from sim_sled.language.latency import Latency, LatencyEntry
from sim_sled.language.presets import PRESETS
from sim_sled.language.printing import print_scenario
from sim_sled.language.schema import (
    Agent,
    Churn,
    Create,
    Expect,
    Fleet,
    Load,
    Migrate,
    Override,
    Retry,
    Rule,
    Scenario,
    Shape,
    That,
)
from sim_sled.language.selector import Selector, Trigger
from sim_sled.language.words import EDGES, INVARIANTS, PHASES, PUBLISHED_STATES, STATES

T = TypeVar("T")
D = TypeVar("D")

SECOND = 1_000_000
GIB = 2**30

times = st.one_of(
    st.integers(0, 5 * SECOND), st.sampled_from([0, 1, 1_000, SECOND, 60 * SECOND, 90 * SECOND, 3_600 * SECOND])
)
lasts = st.one_of(times, st.just(FOREVER))
shares = st.one_of(st.sampled_from([0, 1, 10_000, 500_000, 1_000_000]), st.integers(0, 1_000_000))
LETTERS = "abcdefghijklmnopqrstuvwxyz"
names = st.builds(str.__add__, st.sampled_from(LETTERS), st.text(LETTERS + "0123456789-", max_size=8))
"""As `[a-z][a-z0-9-]{0,8}`; a regular expression would draw each character by itself, which is slow."""
texts = st.text(  # without "$", which begins a variable
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="$"), min_size=1, max_size=20
)
globs = st.lists(
    st.builds(str.__add__, st.text(LETTERS, min_size=1, max_size=4), st.sampled_from(["", "*", "-1", "-7*"])),
    min_size=1,
    max_size=2,
).map(tuple)


@st.composite
def uniforms(draw: st.DrawFn) -> d.Uniform:
    low = draw(times)
    return d.Uniform(low, low + draw(st.integers(1, SECOND)))


@st.composite
def choices(draw: st.DrawFn) -> d.Choice:
    cuts = sorted(draw(st.lists(st.integers(0, 1_000_000), max_size=2)))
    edges = [0, *cuts, 1_000_000]
    part = st.one_of(times.map(d.Fixed), uniforms())
    return d.Choice(tuple((b - a, draw(part)) for a, b in itertools.pairwise(edges)))


@st.composite
def lognormals(draw: st.DrawFn) -> d.LogNormal:
    p50 = draw(st.integers(1, SECOND))
    return d.LogNormal(p50, p50 + draw(st.integers(0, SECOND)))


distributions = st.one_of(
    times.map(d.Fixed),
    uniforms(),
    st.builds(d.Normal, times, times),
    lognormals(),
    times.map(d.Exponential),
    choices(),
)


SMALL = st.integers(0, 200)


@st.composite
def stretches(draw: st.DrawFn) -> Span:
    """Of time, and not empty."""
    low = draw(times)
    return Span(low, low + draw(st.integers(1, 60 * SECOND)))


@st.composite
def spans(draw: st.DrawFn, values: st.SearchStrategy[int] = SMALL) -> Span:
    low, high = draw(values), draw(values)
    low, high = min(low, high), max(low, high)
    shape = draw(st.integers(0, 2))
    return [Span(low, high), Span(low, None), Span(None, high)][shape]


def maybe(
    strategy: st.SearchStrategy[T],
    default: D = None,  # type: ignore[assignment]  # without one, D is None
) -> st.SearchStrategy[T | D]:
    return st.one_of(st.just(default), strategy)


def some(values: Iterable[Any], most: int = 2) -> st.SearchStrategy[tuple[Any, ...]]:
    """From one to `most` of them: one choice, and fewer are plainer."""
    return st.sampled_from(fewest_first(sorted(values), most)[1:])


def fewest_first(values: Sequence[T], most: int) -> list[tuple[T, ...]]:
    """All selections of up to so many."""
    return [each for size in range(most + 1) for each in itertools.combinations(values, size)]


def with_few(
    kind: Callable[..., T],
    needed: Mapping[str, st.SearchStrategy[Any]],
    more: Mapping[str, st.SearchStrategy[Any]],
    most: int = 2,
) -> st.SearchStrategy[T]:
    """`kind` with all fields of `needed` and at most `most` of `more`; the rest keep their defaults. To draw every
    field each time takes three times as long, and who reads what fails has to find out which of them matter.
    """
    selections = st.sampled_from(fewest_first(list(more), most))

    @st.composite
    def made(draw: st.DrawFn) -> T:
        fields = {name: draw(strategy) for name, strategy in needed.items()}
        return kind(**fields, **{name: draw(more[name]) for name in draw(selections)})

    return made()


@functools.cache
def selectors(depth: int = 1) -> st.SearchStrategy[Selector]:
    fields: dict[str, st.SearchStrategy[Any]] = {
        "hostname": globs,
        "sled": st.sampled_from([("sled-1",), ("sled-*",), ("sled-1", "sled-2")]),
        "vmm": globs,
        "instance": globs,
        "project": globs,
        "silo": globs,
        "ncpus": spans(),
        "memory": spans(st.integers(0, 64).map(lambda n: n * GIB)),
        "state": some(STATES),
        "role": st.sampled_from(["source", "target"]),
        "nth_vmm": st.lists(spans(), min_size=1, max_size=2).map(tuple),
        "percent": shares,
    }
    if depth:
        fields["not_"] = selectors(depth - 1)
        fields["any_"] = st.lists(selectors(depth - 1), min_size=1, max_size=2).map(tuple)
    return with_few(Selector, {}, fields)


vmm_triggers = st.one_of(
    st.builds(
        Trigger, request=st.just(("vmm_put_state",)), to=maybe(st.sampled_from(["running", "stopped", "reboot"]))
    ),
    st.builds(
        Trigger, request=some(["vmm_register", "vmm_*", "vmm_get_state"]), body=maybe(st.just((("a.b", "x*"),)), ())
    ),
    st.builds(Trigger, response=some(["vmm_register", "vmm_put_state"])),
    st.builds(Trigger, state=some(STATES)),
    st.builds(Trigger, edge=some(EDGES)),
    st.builds(Trigger, migration=some([*PHASES, "error"])),
    st.builds(Trigger, publish=some([*PUBLISHED_STATES, "*"])),
)
free_triggers = st.one_of(
    st.builds(Trigger, at=times),
    st.builds(
        Trigger, every=times.map(lambda t: d.Fixed(t + SECOND)), from_=st.just(SECOND), to=st.just(30 * SECOND)
    ),
    st.builds(Trigger, idle=times),
    st.builds(Trigger, manual=st.just("go")),
)
anywhere = st.one_of(
    st.builds(act.Delay, distributions, per_vmm=times.map(d.Fixed)),
    st.builds(act.Snapshot, names),
    st.builds(act.Note, texts),
    st.builds(
        act.Partition,
        st.sampled_from(["nexus", "sled-2"]),
        direction=st.sampled_from(["in", "out", "both"]),
        lasts=lasts,
    ),
    st.builds(act.RestartNexus, down=distributions, point=st.sampled_from(["now", "after_commit", "in_commit"])),
    st.builds(act.NexusReplies, st.integers(200, 599), chance=shares, lasts=lasts),
)
on_any_vmm = st.one_of(
    st.builds(act.SetState, st.sampled_from(STATES), illegal=st.just(True)),
    st.builds(act.Stall, lasts=lasts),
    st.builds(act.SkipStates, some(["stopping", "rebooting", "stopped"])),
    st.builds(act.KillPropolis, restart=st.booleans()),
    st.just(act.ForgetVmm()),
    st.builds(
        act.MigrationFate,
        result=st.just("failed"),
        phase=maybe(st.sampled_from(PHASES)),
        source=maybe(st.sampled_from(["resumes", "dies", "silent"])),
        target=maybe(st.sampled_from(["failed", "silent"])),
    ),
    st.builds(act.RestartAgent, down=distributions, keep_vmms=shares),
    st.builds(act.RebootSled, down=distributions, early_accept=times),
    st.builds(act.PowerOffSled, lasts=lasts),
)
on_vmm = st.one_of(
    st.builds(act.Hold, publish=some([*PUBLISHED_STATES, "*"]), lasts=lasts, until=st.just("go")),
    on_any_vmm,
)
on_vmm_while_publishing = st.one_of(st.builds(act.Hold, lasts=lasts, until=st.just("go")), on_any_vmm)
on_request = st.one_of(
    st.builds(
        act.Fail,
        status=st.integers(400, 599),
        code=maybe(texts),
        message=texts,
        headers=maybe(st.just((("retry-after", "1"),)), ()),
    ),
    st.builds(act.Hang, lasts=lasts),
    st.just(act.Reset()),
)
on_publish = st.one_of(
    st.builds(act.Drop, retry=st.booleans()),
    st.builds(act.Duplicate, copies=st.integers(1, 10), gap=distributions),
    st.builds(act.Reorder, window=st.integers(2, 16)),
    st.builds(act.Stale, back=st.integers(1, 5)),
)


@functools.cache
def doings(kind: str) -> st.SearchStrategy[tuple[act.Action, ...]]:
    """What a rule may do, by what sets it off: "free", "vmm", "request" or "publish"."""
    possible = [anywhere]
    if kind != "free":
        possible.append(on_vmm_while_publishing if kind == "publish" else on_vmm)
    if kind == "request":
        possible.append(on_request)
    if kind == "publish":
        possible.append(on_publish)
    return st.lists(st.one_of(*possible), min_size=1, max_size=3).map(tuple)


rule_fields = with_few(
    dict[str, Any],
    {},
    {
        "for_": selectors(),
        "skip": st.integers(0, 3),
        "times": st.integers(1, 5),
        "chance": shares,
        "between": stretches(),
        "enabled": st.booleans(),
    },
)


@st.composite
def rules(draw: st.DrawFn, name: str) -> Rule:
    when = draw(st.one_of(vmm_triggers, free_triggers))
    of_vmm = when.response or when.state or when.edge or when.migration
    kind = "request" if when.request else "publish" if when.publish else "vmm" if of_vmm else "free"
    return Rule(name=name, when=when, do=draw(doings(kind)), **draw(rule_fields))


that = with_few(
    That,
    {"vmm": some(STATES)},
    {
        "acked": some([*PUBLISHED_STATES, "same_as_vmm"]),
        "instance": some(STATES),
        "migration_in": some(["pending", "in_progress", "completed", "failed"]),
        "migration_out": some(["pending", "in_progress", "completed", "failed"]),
        "sled": st.sampled_from(["changed", "unchanged"]),
        "request": some(["vmm_get_state", "vmm_*"]),
    },
)
expectations = st.one_of(
    st.builds(Expect, name=maybe(names), always=some(INVARIANTS)),
    st.builds(Expect, name=maybe(names), for_=selectors(), after=vmm_triggers, within=times, that=that),
    st.builds(
        Expect, for_=selectors(), after=vmm_triggers, lasts=times,
        never=st.builds(lambda t, same: Trigger(**_fields(t), same=same), vmm_triggers,
                        st.sampled_from([None, "vmm", "instance"])),
    ),
)  # fmt: skip


def _fields(trigger: Trigger) -> dict[str, Any]:
    keys = ("request", "response", "state", "edge", "migration", "publish", "to", "body")
    return {k: getattr(trigger, k) for k in keys}


creates = with_few(
    Create,
    {"hostname": st.sampled_from(["web-{n}", "db-{n:02}"])},
    {
        "count": st.integers(1, 4),
        "ncpus": st.integers(1, 16),
        "memory": st.integers(1, 8).map(lambda n: n * GIB),
        "project": names,
        "silo": names,
        "start": st.booleans(),
        "spread": times,
        "sled": st.sampled_from([("sled-2",), ("sled-2", "sled-1")]),
        "auto_restart": st.sampled_from(["never", "best_effort"]),
    },
)
churns = with_few(
    Churn,
    {"population": st.integers(1, 10), "create": st.integers(1, 4)},
    {verb: st.integers(0, 4) for verb in ("stop", "reboot", "migrate", "delete", "start")},
)


def _named(verb: str, of: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return of.map(lambda one: {verb: one})


user_actions = st.one_of(
    _named("create", creates),
    *(_named(verb, selectors()) for verb in ("start", "stop", "reboot", "delete")),
    _named("migrate", st.builds(Migrate, hostname=globs, to=st.sampled_from(["any", "sled-2"]))),
    _named("churn", churns),
)
loads = st.one_of(
    st.builds(lambda at, action, name: Load(name=name, at=at, **action), times, user_actions, maybe(names)),
    st.builds(
        lambda every, action: Load(every=d.Fixed(every + 5 * SECOND), from_=0, to=20 * SECOND, **action),
        times,
        user_actions,
    ),
)
entries = st.one_of(
    st.builds(LatencyEntry, st.just("edge"), st.sampled_from(sorted(" -> ".join(e) for e in EDGES)), distributions),
    st.builds(LatencyEntry, st.just("migration"), st.sampled_from(PHASES), distributions),
    st.builds(LatencyEntry, st.just("request"), st.sampled_from(["vmm_register", "vmm_put_state"]), distributions),
    st.builds(LatencyEntry, st.just("network"), st.just("network"), distributions),
)
latencies = st.builds(
    Latency,
    st.sampled_from(sorted(PRESETS)),
    st.lists(entries, max_size=2, unique_by=lambda e: (e.kind, e.what)).map(tuple),
)
shapes = with_few(
    Shape,
    {},
    {
        "cpus": st.integers(1, 256),
        "ram": st.integers(65, 4096).map(lambda n: n * GIB),
        "reservoir": st.integers(1, 63).map(lambda n: n * GIB),
        "zpools": st.integers(0, 10),
        "model": names,
        "cpu_family": st.sampled_from(["unknown", "amd_turin"]),
        "role": st.sampled_from(["gimlet", "scrimlet"]),
    },
)
overrides = st.builds(Override, st.just(("sled-1",)), name=maybe(st.just("odd-one")), cpus=maybe(st.integers(1, 64)))
fleets = st.builds(
    Fleet,
    sleds=st.integers(2, 4),
    shape=shapes,
    overrides=maybe(st.lists(overrides, min_size=1, max_size=1).map(tuple), ()),
)
agents = with_few(
    Agent,
    {},
    {
        "stop_grace": lasts,
        "queue": st.integers(1, 64),
        "reporting": st.sampled_from(["push", "doorbell"]),
        "retry": st.builds(Retry, first=times, factor=st.sampled_from([1.0, 1.5, 2.0]), max=times),
    },
)


scenario_fields = with_few(
    dict[str, Any],
    {
        "name": names,
        "expect": st.lists(expectations, max_size=2).map(tuple),
        "load": st.lists(loads, max_size=2).map(tuple),
    },
    {
        "seed": st.integers(0, 2**64 - 1),
        "clock": st.just("virtual"),
        "fleet": fleets,
        "agent": agents,
        "latency": latencies,
    },
    most=3,
)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A scenario: fleet, agent, latencies, rules, expectations and users, of the built-in Nexus model."""
    given_rules = [draw(rules(f"rule-{i}")) for i in range(draw(st.integers(0, 3)))]
    if any(isinstance(action, act.Hold) for rule in given_rules for action in rule.do):
        # `until: go` needs somebody who has the trigger
        given_rules.append(Rule(name="hand", when=Trigger(manual="go"), do=(act.Note("by hand"),)))
    return Scenario(1, rules=tuple(given_rules), **draw(scenario_fields))


def scenario_texts() -> st.SearchStrategy[str]:
    """The same as the text of a file, for programs that read files."""
    return scenarios().map(print_scenario)
