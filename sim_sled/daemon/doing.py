"""An action of the scenario language that a person has done to one VM: a rule of its own, fired once by hand.

So whatever knows rules knows it: `rules` lists it, `why` names it, and `release` lets go what it holds.

Read before: language/check.py, engine/engine.py. Read next: daemon/daemon.py.
"""

from __future__ import annotations

import json
import re
from typing import Final

import attrs

from sim_sled.engine.engine import Engine
from sim_sled.language.check import parse_scenario
from sim_sled.language.schema import Rule, Scenario

PREFIX: Final = "injected-"
"""Begins the names of such rules."""
KEPT_MAX: Final = 100
"""So many of them are kept; older ones are not listed any more (what they did stays done)."""
_OURS: Final = re.compile(rf"{PREFIX}\d{{1,9}}")


def with_one_more(engine: Engine, hostname: str, action: str) -> tuple[Scenario, str]:
    """The scenario in effect with a rule that does that to a VM of this name when it is fired, and the rule's name.
    ValueError with every problem of the action.
    """
    numbers = [int(known[len(PREFIX) :]) for known in engine.counters if _OURS.fullmatch(known)]
    name = f"{PREFIX}{max(numbers, default=0) + 1}"
    rule = one_rule(name, hostname, action)
    theirs = [each for each in engine.scenario.rules if not _OURS.fullmatch(each.name)]
    ours = [each for each in engine.scenario.rules if _OURS.fullmatch(each.name)]
    return attrs.evolve(engine.scenario, rules=(*theirs, *ours[1 - KEPT_MAX :], rule)), name


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
