"""A scenario as YAML again: `parse(print(s)) == s` for every valid scenario."""

from __future__ import annotations

from typing import Any

import yaml

from sim_sled.language.actions import Action
from sim_sled.language.record import Struct, fields_of
from sim_sled.language.schema import Rule, Scenario


def plain(scenario: Scenario) -> dict[str, Any]:
    """As it stands in YAML, in plain lists and mappings."""
    shown = Struct(Scenario).show(scenario)
    assert isinstance(shown, dict)
    return {"version": scenario.version, "name": scenario.name} | shown


def print_scenario(scenario: Scenario, comment: str = "") -> str:
    """YAML text; `comment` becomes `#` lines at its head."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    body = yaml.dump(plain(scenario), Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=110)
    return head + body


def rule_in_words(rule: Rule) -> dict[str, str]:
    """`for`, `when` and `do` of a rule, each on one line, as in the file: `hostname: web-*`."""
    shown = Struct(Rule).show(rule)
    assert isinstance(shown, dict)
    words = {part: _line(shown[part]) if shown.get(part) else "" for part in ("for", "when")}
    return words | {"do": _line([_said(action) for action in rule.do])}


def _said(action: Action) -> dict[str, Any]:
    """An action whose values are all the usual ones says the one that it could be written with: `stall: forever`."""
    body = Struct(type(action)).show(action)
    if body == {} and action.short:
        usual = fields_of(type(action))[action.short]
        body = {} if usual.default is None else usual.kind.show(usual.default)
    return {action.key: True if body == {} else body}


def _line(value: Any) -> str:
    parts = value if isinstance(value, list) else [value]
    lines = (yaml.dump(part, Dumper=yaml.CSafeDumper, default_flow_style=True, width=10**6).strip() for part in parts)
    return ", ".join(line[1:-1] for line in lines)  # without the braces around a mapping
