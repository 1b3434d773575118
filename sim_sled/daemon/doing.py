"""What a person does by rules, and why it cannot be done.

An action of the scenario language that is to be done to one VM is a rule of its own, fired once by hand. So whatever
knows rules knows it: `rules` lists it, `why` names it, and `release` lets go what it holds.

Read before: language/check.py, engine/engine.py. Read next: daemon/daemon.py.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Final

import attrs

from nexus_client.types import stamp
from sim_sled.engine.engine import Engine
from sim_sled.language.check import parse_scenario
from sim_sled.language.schema import Rule, Scenario
from sim_sled.language.source import Mark
from sim_sled.language.words import hint

PREFIX: Final = "injected-"
"""Begins the names of such rules."""
KEPT_MAX: Final = 100
"""So many of them are kept; older ones are not listed any more (what they did stays done)."""
_KEYED: Final = re.compile(r"([a-z_]+):\s*(.*)", re.DOTALL)
_NOTHING: Final = ("", "{}")
"""Values of actions that the command takes as meant, without a word."""
_OURS: Final = re.compile(rf"{PREFIX}\d{{1,9}}")


def with_one_more(engine: Engine, hostname: str, action: str, now_us: int) -> tuple[Scenario, str]:
    """The scenario in effect with a rule that does that to a VM of this name when it is fired, and the rule's name.
    The rule says that it is from nobody's file: by which command, and when. ValueError with every problem of the
    action.
    """
    numbers = [int(known[len(PREFIX) :]) for known in engine.counters if _OURS.fullmatch(known)]
    name = f"{PREFIX}{max(numbers, default=0) + 1}"
    rule = one_rule(name, hostname, action)
    rule = attrs.evolve(rule, marks={"": Mark(f"{command_of(hostname, action)}, at {stamp(now_us)[:19]}Z")})
    theirs = [each for each in engine.scenario.rules if not _OURS.fullmatch(each.name)]
    ours = [each for each in engine.scenario.rules if _OURS.fullmatch(each.name)]
    return attrs.evolve(engine.scenario, rules=(*theirs, *ours[1 - KEPT_MAX :], rule)), name


def no_trigger(engine: Engine, name: str) -> str:
    """Why `fire` has fired nothing."""
    known = [rule.when.manual for rule in engine.scenario.rules if rule.when.manual]
    there = f"; there are: {', '.join(known)}" if known else ": no rule of this scenario has `when: {manual: NAME}`"
    return f"no rule waits for {name!r}{hint(name, known) or there}"


def nothing_held(engine: Engine, rule: str, now_us: int) -> str:
    """Why `release` has let nothing go."""
    known = [each.name for each in engine.scenario.rules]
    if rule not in known:
        there = f"; there are: {', '.join(known)}" if known else ""
        return f"no rule is called {rule!r}{hint(rule, known) or there}"
    why_not = ""
    if stalled := engine.stalled(rule, now_us):
        longer = [f"{who.frozen_by} stalls {who.hostname} for longer" for who in stalled if who.frozen_by]
        whose = ", ".join(who.hostname for who in stalled)
        why_not = (
            f" by itself: {', '.join(longer)}"
            if longer
            else f" that can be let go: a request or a fault ends the stall of {whose}"
        )
    return f"rule {rule} holds nothing{why_not}"


def command_of(hostname: str, action: str) -> str:
    """The command that does this, as a shell reads it."""
    keyed = _KEYED.fullmatch(action.strip())
    if keyed is None:
        words = [json.dumps({"do": action})]
    else:
        words = [keyed[1], *([] if keyed[2] in _NOTHING else [keyed[2]])]
    return " ".join(["sim-sled", "inject", *(_quoted(word) for word in (hostname, *words))])


def _quoted(word: str) -> str:
    """For a shell; in double quotes where a single one within would make it unreadable and nothing means more."""
    return f'"{word}"' if "'" in word and not set('"$`\\!') & set(word) else shlex.quote(word)


def one_rule(name: str, hostname: str, action: str) -> Rule:
    """A rule that does that to a VM of this name when its trigger is fired. ValueError with every problem of it."""
    scenario, problems = parse_scenario(
        f"version: 1\nrules:\n- name: {name}\n  for: {{hostname: {json.dumps(hostname)}}}\n"
        f"  when: {{manual: {name}}}\n  do: {{{action}}}\n",
        "do",
    )
    if scenario is None:
        raise ValueError("; ".join(one.text for one in sorted(problems.found)))
    rule = scenario.rules[0]
    if not rule.do:
        raise ValueError("there is no action in it; write e.g. stall: 30s")
    return rule
