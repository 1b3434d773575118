"""Checks of rules: triggers against actions, names against names, no circles. Read before: language/check.py."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

import attrs

from sim_sled.language.actions import (
    ON_SLED,
    ON_VMM,
    PUBLISH_ONLY,
    REQUEST_ONLY,
    Action,
    Delay,
    Fail,
    Fire,
    Hold,
    MigrationFate,
    Partition,
    Release,
    SetState,
    SkipStates,
)
from sim_sled.language.codes import CLIENT_TIMEOUT_US
from sim_sled.language.figures import FOREVER, show_duration
from sim_sled.language.schema import Rule, Scenario
from sim_sled.language.selector import Trigger
from sim_sled.language.source import Mark, Problems
from sim_sled.language.words import AGENT_CODES, EDGES, TERMINAL_STATES, On, Truth, hint

_FATES: Final = {
    ("completed", None, None),
    ("completed", None, "running"),
    ("completed", None, "silent"),
    ("completed", "dies", None),
    ("completed", "dies", "running"),
    ("completed", "dies", "silent"),
    ("completed", "silent", None),
    ("completed", "silent", "running"),
    ("completed", "silent", "silent"),
    *(
        ("failed", source, target)
        for source in (None, "resumes", "dies", "silent")
        for target in (None, "failed", "silent")
    ),
}
"""(result, source, target) that can be: who completed is not resumed, who failed does not run at the target."""


def check_rules(s: Scenario, sleds: frozenset[str], problems: Problems) -> None:
    """What is wrong with the rules of a scenario beyond their fields: names, triggers, actions that these do not
    bear, circles of rules. `sleds`: names that there are.
    """
    first: dict[str, Mark] = {}
    manuals = {r.when.manual for r in s.rules if r.when is not None and r.when.manual}
    known = _Known(s, sleds, {*manuals}, problems)
    by_name = {rule.name: rule for rule in s.rules}
    for rule in s.rules:
        if rule.name is not None:
            if rule.name in first:
                before = first[rule.name]
                there = f"line {before.line}" if before.file == rule.mark().file else str(before)
                problems.add(
                    "E191",
                    rule.mark("name"),
                    f"two rules are named '{rule.name}' ({there} and line {rule.mark('name').line})",
                )
            first.setdefault(rule.name, rule.mark("name"))
        label = f"rule '{rule.name}'" if rule.name else "this rule"
        if rule.when is None:
            continue
        check_trigger(rule.when, label, problems)
        origin = _origin(rule, by_name)
        for action in rule.do or ():
            _check_action(action, rule, origin, label, known)
    _check_circles(s, problems)
    for entry in s.latency.entries:
        if entry.kind == "request" and entry.takes.typical_most_us() > CLIENT_TIMEOUT_US:
            problems.add("W301", entry.mark("takes"), _too_long(entry.takes.typical_most_us()))


def check_trigger(t: Trigger, label: str, problems: Problems, *, in_never: bool = False) -> None:
    """Exactly one trigger, and only the fields that go with it."""
    given = t.given()
    if not given and t.misspelt():
        return
    if not given:
        problems.add("E210", t.mark(), f"{label} has no trigger; write e.g. when: {{state: running}}")
        return
    if len(given) > 1:
        a, b = given[:2]
        first, second = sorted((t.mark(f"{a}:"), t.mark(f"{b}:")), key=lambda m: (m.line, m.col))
        names = {t.mark(f"{a}:"): a, t.mark(f"{b}:"): b}
        problems.add(
            "E210",
            first,
            f"{label} has two triggers: '{names[first]}' (line {first.line})"
            f" and '{names[second]}' (line {second.line})",
        )
        return
    kind = given[0]
    wants = {"to": ("request", "response", "every"), "from": ("every",), "body": ("request",)}
    for key, kinds in wants.items():
        if t.has(key) and kind not in kinds:
            problems.add(
                "E111", t.mark(f"{key}:"), f"{label}: '{key}' goes with {' or '.join(kinds)}, not with '{kind}'"
            )
    if t.to is not None and kind in wants["to"] and isinstance(t.to, int) != (kind == "every"):
        asked = "a time" if kind == "every" else "a requested state"
        problems.add("E111", t.mark("to"), f"{label}: 'to' beside '{kind}' is {asked}")
    elif isinstance(t.to, str) and not any(fnmatchcase(op, g) for g in t.request + t.response for op in _PUT_STATE):
        problems.add("E111", t.mark("to:"), f"{label}: 'to' goes with vmm_put_state")
    elif isinstance(t.to, int) and t.from_ is not None and t.from_ >= t.to:
        problems.add("E221", t.mark("to"), f"{label}: 'from' is not before 'to'")
    if t.has("same") and not in_never:
        problems.add("E111", t.mark("same:"), f"{label}: 'same' only goes with 'never'")


_PUT_STATE: Final = ("vmm_put_state", "instance_put_state")


def _most_us(action: Delay) -> int:
    return 0 if action.base is None else action.base.typical_most_us()  # None: refused before


def _too_long(us: int) -> str:
    return f"up to {show_duration(us)}: Nexus gives up after {show_duration(CLIENT_TIMEOUT_US)}"


@attrs.frozen
class _Known:
    """What a rule is checked against."""

    s: Scenario
    sleds: frozenset[str]
    manuals: set[str | None]
    problems: Problems


@attrs.frozen
class _Origin:
    """What a rule's trigger brings along, through `rule:` chains."""

    trigger: Trigger
    of_vmm: bool
    of_sled: bool


_FAILS_REPORT: Final = "; what Nexus answers to reports is 'nexus_replies: 503'"
_FAILS: Final = "; a migration is failed by 'migration: {result: failed}', a VMM by 'set_state: failed'"


def _origin(rule: Rule, by_name: Mapping[str, Rule]) -> _Origin:
    at, seen = rule, {rule.name}
    while at.when is not None and at.when.kind() is On.RULE:
        following = by_name.get(at.when.rule or "")
        if following is None or following.name in seen or following.when is None:
            break
        at = following
        seen.add(at.name)
    trigger = at.when if at.when is not None else Trigger()
    vmm = trigger.of_vmm() or any(r.for_ is not None and r.for_.names_vmms() for r in (rule, at))
    sled = vmm or trigger.of_sled() or any(r.for_ is not None and r.for_.names_sleds() for r in (rule, at))
    return _Origin(trigger, vmm, sled)


def _check_action(action: Action, rule: Rule, origin: _Origin, label: str, known: _Known) -> None:  # fmt: skip
    at, kind, problems = action.mark("do:"), origin.trigger.kind(), known.problems
    kind_here = rule.when.kind() if rule.when is not None else None
    if isinstance(action, REQUEST_ONLY) and kind is not On.REQUEST:
        said = f"{label}: '{action.key}' answers a request; its trigger is '{kind or 'unknown'}'"
        instead = _FAILS_REPORT if kind is On.PUBLISH else _FAILS
        problems.add("E232", at, said + (instead if isinstance(action, Fail) else ""))
    if isinstance(action, PUBLISH_ONLY) and kind is not On.PUBLISH:
        problems.add(
            "E234", at, f"{label}: '{action.key}' acts on a publication; its trigger is '{kind or 'unknown'}'"
        )
    if isinstance(action, ON_VMM) and not origin.of_vmm:
        problems.add(
            "E241", at, f"{label}: '{action.key}' needs a VMM; name some under 'for', or use a trigger of a VMM"
        )
    if isinstance(action, ON_SLED) and not origin.of_sled:
        problems.add(
            "E243", at, f"{label}: '{action.key}' needs a sled; name some under 'for', or use a request on one"
        )
    if isinstance(action, Delay) and kind is On.REQUEST and _most_us(action) > CLIENT_TIMEOUT_US:
        problems.add("W301", action.mark("base"), f"{label}: {_too_long(_most_us(action))}")
    if isinstance(action, Fail) and action.code is not None and action.code not in AGENT_CODES:
        problems.add(
            "W302",
            action.mark("code"),
            f"{label}: no agent sends code '{action.code}'{hint(action.code, AGENT_CODES)}",
        )
    if isinstance(action, Hold):
        _check_hold(action, rule, kind, label, known)
    if isinstance(action, Release):
        holders = {r.name for r in known.s.rules if any(isinstance(a, Hold) for a in r.do or ())}
        if action.rule not in holders:
            told = f"{label}: no rule '{action.rule}' holds anything{hint(action.rule or '', holders)}"
            problems.add("E233", action.mark("rule"), told)
    if isinstance(action, SetState | SkipStates):
        _check_states(action, origin.trigger, kind_here, label, problems)
    if isinstance(action, MigrationFate) and (action.result, action.source, action.target) not in _FATES:
        sides = (("source", action.source), ("target", action.target))
        told = " with ".join([str(action.result), *(f"{side} {fate}" for side, fate in sides if fate)])
        problems.add("E242", at, f"{label}: a migration cannot be {told}")
    if isinstance(action, Partition) and action.from_ is not None and action.from_ not in ("nexus", *known.sleds):
        peers = ["nexus", *sorted(known.sleds)]
        problems.add("E244", action.mark("from"), f"{label}: no peer '{action.from_}'{hint(action.from_, peers)}")
    if isinstance(action, Fire) and action.manual is not None and action.manual not in known.manuals:
        near = hint(action.manual, known.manuals)
        told = f"{label}: no rule has the manual trigger '{action.manual}'{near}"
        problems.add("E245", action.mark("manual"), told)


def _check_hold(action: Hold, rule: Rule, kind: On | None, label: str, known: _Known) -> None:
    at, problems, s, manuals = action.mark("do:"), known.problems, known.s, known.manuals
    if kind is not On.PUBLISH and not action.publish and not action.has("publish"):
        problems.add(
            "E233",
            at,
            f"{label}: nothing is published here; say which with 'publish', e.g. {{hold: {{publish: '*'}}}}",
        )
    if kind is On.PUBLISH and action.publish and rule.when is not None:
        problems.add("E233", action.mark("publish"), f"{label}: under 'when: {{publish}}' the one that fired is held")
    rules = {r.name for r in s.rules}
    if action.until is not None and action.until not in rules | manuals:
        near = hint(action.until, rules | manuals)
        problems.add("E233", action.mark("until"), f"{label}: no rule or manual trigger '{action.until}'{near}")
    released = any(isinstance(a, Release) and a.rule == rule.name for r in s.rules for a in r.do or ())
    if (
        action.lasts is not None
        and action.lasts >= FOREVER
        and not (action.until or released)
        and kind is not On.MANUAL
    ):
        problems.add("W303", at, f"{label}: nothing ever releases this hold; give it 'lasts' or 'until'")


def _check_states(
    action: SetState | SkipStates, trigger: Trigger, kind: On | None, label: str, problems: Problems
) -> None:
    """`kind`: what fires the rule itself. Only under `edge` does the VMM wait for what shall become of it; elsewhere
    it is a sled that forces a state, and all that a sled can force is the end (SA 2.12).
    """
    if isinstance(action, SkipStates):
        for name in action.states or ():
            if name in (*TERMINAL_STATES, Truth.CREATING):
                problems.add("E240", action.mark("states"), f"{label}: '{name}' cannot be skipped; every life has it")
        return
    if action.state is None or action.illegal:
        return
    sources = set(trigger.state) if trigger.state else {a for a, _ in trigger.edge}
    for source in sorted(sources):
        if not can_follow(source, action.state):
            told = f"{label}: '{action.state}' cannot follow '{source}'; add 'illegal: true' to force it"
            problems.add("E240", action.mark("state"), told)
            return
    if kind is not On.EDGE and action.state not in TERMINAL_STATES:
        problems.add(
            "E240",
            action.mark("state"),
            f"{label}: nothing makes a VMM '{action.state}' at once, only {' or '.join(TERMINAL_STATES)};"
            f" use 'when: {{edge: ...}}', or add 'illegal: true' to force it",
        )


def can_follow(source: str, target: str) -> bool:
    """Whether a VMM may go there. Any live VMM may fail (its Propolis is lost) or be destroyed (by the agent)."""
    if source in TERMINAL_STATES:
        return False
    return target in TERMINAL_STATES or (source, target) in EDGES


def _check_circles(s: Scenario, problems: Problems) -> None:
    """Rules that set each other off: `rule:` and `fire`."""
    leads: dict[str, list[str]] = {r.name: [] for r in s.rules if r.name is not None}
    for rule in s.rules:
        if rule.name is None or rule.when is None:
            continue
        if rule.when.rule is not None:
            if rule.when.rule not in leads:
                told = f"rule '{rule.name}': no rule '{rule.when.rule}'{hint(rule.when.rule, leads)}"
                problems.add("E210", rule.when.mark("rule"), told)
            else:
                leads[rule.when.rule].append(rule.name)
        for action in rule.do or ():
            if isinstance(action, Fire):
                leads[rule.name] += [
                    r.name
                    for r in s.rules
                    if r.name is not None and r.when is not None and r.when.manual == action.manual
                ]
    done: set[str] = set()
    for rule in s.rules:
        if rule.name in leads and rule.name not in done:
            cycle = _cycle(rule.name, leads, done)
            if cycle:
                problems.add("E245", rule.mark("name"), f"rules trigger each other for ever: {' -> '.join(cycle)}")


def _cycle(start: str, leads: dict[str, list[str]], done: set[str]) -> list[str]:
    """A way from `start` back to a rule on it, by depth-first search without recursion."""
    path, pending = [start], [iter(leads[start])]
    while path:
        following = next(pending[-1], None)
        if following is None:
            done.add(path.pop())
            pending.pop()
        elif following in path:
            done.update(path)
            return [*path[path.index(following) :], following]
        elif following not in done:
            path.append(following)
            pending.append(iter(leads[following]))
    return []
